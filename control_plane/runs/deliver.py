"""Delivering intents: stop, replies, messages and parking are rows first; here they reach the executor, until it confirms.

Replies and messages go in their order, and one that fails holds up those behind it. It never holds up a stop or a parking.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.messages import MessagesSettled
from control_plane.domain.run import DrivenRun, Placement
from control_plane.manager_client import ManagerClient
from control_plane.runs.leashes import Leashes
from control_plane.runs.park import DeliverParking
from control_plane.storage.interactions import Answered, InteractionStore
from control_plane.storage.messages import MessageStore
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.runs import RunStore
from shared.contracts.interactions import RunReply
from shared.contracts.provider_runs import UserMessage
from shared.contracts.runs import TERMINAL
from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("deliver")

# Answers to a message that no repetition changes.
_NEVER = frozenset({ErrorCode.CAPABILITY_UNAVAILABLE, ErrorCode.INVALID_REQUEST, ErrorCode.PAYLOAD_TOO_LARGE})
_FAILURES = (NeverSentError, UnknownOutcomeError, RunyardError)


@dataclass(frozen=True, slots=True)
class DeliverIntents:
    """One use case: ``await deliver(run_id)``, for a run that is driven here. What fails is tried again by the next call."""

    runs: RunStore
    interactions: InteractionStore
    messages: MessageStore
    manager: ManagerClient
    run_log: RunLog
    parking: DeliverParking
    leashes: Leashes
    stop_seconds: float  # an attempt that was to stop for so long is renewed no more: its executor, then its guard, ends it

    async def __call__(self, run_id: str) -> None:
        run = await self.runs.driven(run_id)
        if run.status in TERMINAL or not run.attempt_living or run.placement is None:
            return
        if run.stopping_seconds > self.stop_seconds:
            self.leashes.drop(run.placement.executor_id, run_id, run.attempt)
        try:
            await self._said(run, run.placement)
        except _FAILURES as error:
            log.info("intent.not_delivered", run_id=run_id, reason=str(error))
        try:
            if run.stop_requested:
                await self.manager.stop(run.placement.executor_id, run_id, run.attempt)
            elif run.is_to_park:
                await self.parking(run, run.placement)
        except _FAILURES as error:
            log.info("end.not_delivered", run_id=run_id, stop=run.stop_requested, reason=str(error))

    async def _said(self, run: DrivenRun, placement: Placement) -> None:
        for answered in await self.interactions.answered(run.run_id):
            await self._reply(run, placement, answered)
        await self._messages(run, placement)

    async def _reply(self, run: DrivenRun, placement: Placement, answered: Answered) -> None:
        if answered.attempt != run.attempt:
            return  # asked by an earlier attempt: it travels with the start of this one
        reply = RunReply(question_id=answered.question_id, **answered.reply.model_dump(exclude_none=True))
        try:
            await self.manager.reply(placement.executor_id, run.run_id, run.attempt, reply)
        except RunyardError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            # Its engine withdrew the question, or ended. Which of them, and what becomes of the answer, the stream tells.
            log.info("reply.not_taken", run_id=run.run_id, question_id=answered.question_id, reason=error.detail)

    async def _messages(self, run: DrivenRun, placement: Placement) -> None:
        """In the order they came. One the engine cannot take now waits, and those behind it."""
        if not run.attempt_started or run.stop_requested:
            return
        for message in await self.messages.to_hand_over(run.run_id, run.attempt):
            said = UserMessage(message_id=message.message_id, text=message.text)
            why = None
            try:
                await self.manager.message(placement.executor_id, run.run_id, run.attempt, said)
            except RunyardError as error:
                if error.code not in _NEVER:
                    raise
                why = error.detail
            await self.run_log.write([Write(run.run_id, [MessagesSettled(run.attempt, (message.message_id,), why)])])
