"""A question as it is stored: as it is read again, by everyone who lists questions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from shared.contracts.events import InteractionRequested


@dataclass(frozen=True, slots=True)
class Asked:
    question_id: str
    attempt: int
    request: str
    expires_at: datetime | None
    on_expiry: str

    @classmethod
    def told_by(cls, attempt: int, data: dict[str, Any]) -> Asked:
        """Raises ``ValueError`` for a question that nobody could read: one such row would break every list it stands in."""
        request = msgspec.json.encode(data).decode()
        InteractionRequested.model_validate_json(request)
        return cls(data["questionId"], attempt, request, datetime.fromisoformat(data["expiresAt"]), data["onExpiry"])
