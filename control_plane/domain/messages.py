"""What becomes of a user message, as news and as events of its run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from shared.contracts.events import Diagnostic

RUN_OVER = "the run ended before an engine had taken it"


class Heard(NamedTuple):
    """What an engine of a run has taken beside its request, and whose engine that was. ``at``: when a person said it."""

    attempt: int
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class MessagesSettled:
    """This attempt has taken these messages; or, with ``why``, no attempt ever will.

    Without effect once another one is the run's newest: that one is to be told of them, by whoever drives it.
    """

    attempt: int
    message_ids: tuple[str, ...]
    why: str | None = None

    @property
    def status(self) -> str:
        return "delivered" if self.why is None else "undeliverable"


def told(message_id: str, why: str | None) -> Diagnostic:
    """The event that tells a run's readers what became of a message; never its text."""
    if why is None:
        return Diagnostic(code="message_delivered", severity="info", message=message_id)
    return Diagnostic(code="message_undeliverable", message=f"{message_id}: {why}"[:1000])
