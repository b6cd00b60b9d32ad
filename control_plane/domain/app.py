"""An app as the control plane knows it, and who sees and uses it. Pure; the values of its credentials are not here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.contracts.apps import AppMember, Retention, RuntimeDefaults, VisibilityRule


class Viewer(Protocol):
    """Who looks: a key, and the user behind it if the key may speak for users."""

    @property
    def app_id(self) -> str | None: ...
    @property
    def admin(self) -> bool: ...
    @property
    def user_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class RegisteredApp:
    app_id: str
    name: str
    enabled: bool
    visibility_rules: list[VisibilityRule]
    members: list[AppMember]
    defaults: RuntimeDefaults
    credential_names: list[str]
    created_at: datetime
    updated_at: datetime
    retention: Retention | None = None

    def is_run_by(self, viewer: Viewer) -> bool:
        """An admin and the app's own keys see all of it."""
        return viewer.admin or viewer.app_id == self.app_id

    def visible_to(self, viewer: Viewer) -> bool:
        if self.is_run_by(viewer) or self._membership(viewer) is not None:
            return True
        return any(rule.scope == "all" or rule.user_id == viewer.user_id for rule in self.visibility_rules)

    def usable_by(self, viewer: Viewer) -> bool:
        """Whether the viewer may name it as an execution profile. Where members are listed, only they may."""
        if not self.enabled or not self.visible_to(viewer):
            return False
        if self.is_run_by(viewer) or not self.members:
            return True
        member = self._membership(viewer)
        return member is not None and member.can_use

    def _membership(self, viewer: Viewer) -> AppMember | None:
        return next((each for each in self.members if viewer.user_id is not None and each.user_id == viewer.user_id), None)
