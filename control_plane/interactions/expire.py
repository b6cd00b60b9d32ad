"""Questions nobody answered in time: their declared default happens, by the same ways as a person's word."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.news import Settle
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.run_log import Refused, RunLog, Write
from shared.contracts.events import InteractionResolved
from shared.contracts.interactions import Decision, InteractionType, OnExpiry, Reply
from shared.errors import ErrorCode

log = structlog.get_logger("expire")


@dataclass(frozen=True, slots=True)
class ExpireQuestions:
    interactions: InteractionStore
    run_log: RunLog

    async def __call__(self) -> None:
        """One sweep. A question that is answered meanwhile stays answered: it is looked at again under its run's lock."""
        for run_id, question_id, on_expiry in await self.interactions.expired():
            if on_expiry is OnExpiry.DENY and await self._deny(run_id, question_id):
                continue
            expired = InteractionResolved(question_id=question_id, how="expired")
            try:
                await self.run_log.write([Write(run_id, [Settle(expired, pending=True, stop=ErrorCode.INTERACTION_EXPIRED)])])
            except Refused as refusal:
                log.error("expire.refused", run_id=run_id, question_id=question_id, reason=str(refusal))

    async def _deny(self, run_id: str, question_id: str) -> bool:
        """A permission is declined in the absent person's name. False: this question knows no such word."""
        question = await self.interactions.one(run_id, question_id)
        if question is None or question.type is InteractionType.QUESTION:
            return False
        reply = Reply(decision=Decision.DECLINE, message="Nobody answered in time.")
        return await self.interactions.answer(run_id, question_id, reply, "expiry", late=True)
