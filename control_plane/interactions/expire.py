"""Questions nobody answered in time: their declared default happens, by the same ways as a person's word."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.expiry import declared_reply
from control_plane.domain.news import Settle
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.run_log import Refused, RunLog, Write
from shared.contracts.events import Diagnostic, InteractionResolved
from shared.contracts.interactions import Interaction, InteractionType, OnExpiry
from shared.errors import ErrorCode

log = structlog.get_logger("expire")


@dataclass(frozen=True, slots=True)
class ExpireQuestions:
    interactions: InteractionStore
    run_log: RunLog

    async def __call__(self) -> None:
        """One sweep. A question that is answered meanwhile stays answered: it is looked at again under its run's lock."""
        for run_id, question_id, on_expiry in await self.interactions.expired():
            question = None if on_expiry is OnExpiry.FAIL else await self.interactions.one(run_id, question_id)
            if question is not None and await self._answer(question):
                continue
            expired = InteractionResolved(question_id=question_id, how="expired")
            stop = Settle(expired, _unfit(question), pending=True, stop=ErrorCode.INTERACTION_EXPIRED)
            try:
                await self.run_log.write([Write(run_id, [stop])])
            except Refused as refusal:
                log.error("expire.refused", run_id=run_id, question_id=question_id, reason=str(refusal))

    async def _answer(self, question: Interaction) -> bool:
        """What was declared is said in the absent person's name. False: there is no such word, or somebody was first."""
        reply = declared_reply(question)
        if reply is None:
            return False
        return await self.interactions.answer(question.run_id, question.question_id, reply, "expiry", late=True)


def _unfit(question: Interaction | None) -> Diagnostic | None:
    """Why a declared answer was not given."""
    if question is None or question.on_expiry is not OnExpiry.ANSWER or question.type is not InteractionType.QUESTION:
        return None
    return Diagnostic(
        code="expiry_answer_unfit", message=f"{question.question_id}: the declared answer is not of the form asked for"
    )
