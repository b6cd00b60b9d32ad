"""Answering a question: exactly one reply wins, and it is a row before any engine hears of it."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.domain.plain_text import refuse_nul
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.runs import RunStore
from shared.contracts.interactions import (
    MAX_ANSWER_BYTES,
    Interaction,
    InteractionStatus,
    InteractionType,
    Reply,
    ReplyAccepted,
)
from shared.errors import ErrorCode, RunyardError, invalid
from shared.web import Caller


@dataclass(frozen=True, slots=True)
class ReplyToQuestion:
    runs: RunStore
    interactions: InteractionStore

    async def __call__(self, run_id: str, question_id: str, reply: Reply, caller: Caller) -> ReplyAccepted:
        """The same reply again is a duplicate; another one, or a late one, raises ``conflict`` with what is recorded.

        Raises ``not_found``, ``payload_too_large``, and ``invalid_request`` for a reply that does not fit the question.
        """
        refuse_nul(reply)
        _check_size(reply)
        head = await self.runs.head(run_id)
        if head is None or not caller.may_see(head[1]):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        question = await self._question(run_id, question_id)
        _check_fit(question, reply)
        if question.status is InteractionStatus.PENDING and await self.interactions.answer(
            run_id, question_id, reply, caller.user_id or caller.key_id
        ):
            return ReplyAccepted(run_id=run_id, question_id=question_id, status=InteractionStatus.ANSWERED)
        return _late(await self._question(run_id, question_id), reply)

    async def _question(self, run_id: str, question_id: str) -> Interaction:
        question = await self.interactions.one(run_id, question_id)
        if question is None:
            raise RunyardError(ErrorCode.NOT_FOUND, f"run {run_id} has no question {question_id}")
        return question


def _check_size(reply: Reply) -> None:
    if len(reply.model_dump_json(include={"answer"}).encode()) > MAX_ANSWER_BYTES:
        raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"answer: more than {MAX_ANSWER_BYTES} bytes")


def _check_fit(question: Interaction, reply: Reply) -> None:
    if question.type is InteractionType.QUESTION and reply.answer is None:
        raise invalid("answer", "a question takes an answer")
    if question.type is not InteractionType.QUESTION and reply.decision is None:
        raise invalid("decision", f"a {question.type} takes a decision")


def _late(question: Interaction, reply: Reply) -> ReplyAccepted:
    """What a reply that did not win is told."""
    given = reply.model_dump(mode="json", by_alias=True, exclude_none=True, include={"answer", "decision", "message"})
    if question.answer == given and question.status in (InteractionStatus.ANSWERED, InteractionStatus.DELIVERED):
        return ReplyAccepted(run_id=question.run_id, question_id=question.question_id, status=question.status, duplicate=True)
    recorded = {"interactionStatus": question.status, "answer": question.answer, "answeredBy": question.answered_by}
    if question.status is InteractionStatus.PENDING:
        raise RunyardError(ErrorCode.CONFLICT, "the question has expired", extra=recorded)
    raise RunyardError(ErrorCode.CONFLICT, f"the question is {question.status} already", extra=recorded)
