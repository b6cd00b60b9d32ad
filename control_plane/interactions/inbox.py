"""The inbox: questions across runs, oldest first."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.storage.interactions import InteractionStore
from control_plane.views.positions import decode_position, encode_position
from shared.contracts.interactions import InteractionList, InteractionStatus
from shared.web import Caller


@dataclass(frozen=True, slots=True)
class ReadInbox:
    interactions: InteractionStore

    async def __call__(self, caller: Caller, status: InteractionStatus | None, cursor: str | None, limit: int) -> InteractionList:
        """Fewer than ``limit`` where they are large. Raises ``invalid_request`` for a cursor we did not give."""
        app_id = None if caller.admin else caller.app_id
        found, has_more = await self.interactions.page(app_id, status, None, decode_position(cursor, 3), limit)
        following = encode_position(found[-1].created_at, found[-1].run_id, found[-1].question_id) if has_more else None
        return InteractionList(items=found, next_cursor=following)
