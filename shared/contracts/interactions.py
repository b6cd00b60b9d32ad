"""Questions an engine asks and the replies people give."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from shared.contracts.wire import Request, Wire, exactly_one_of


class InteractionType(StrEnum):
    PERMISSION = "permission"
    QUESTION = "question"
    PLAN = "plan"


class InteractionStatus(StrEnum):
    PENDING = "pending"
    ANSWERED = "answered"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Decision(StrEnum):
    ACCEPT = "accept"
    ACCEPT_FOR_SESSION = "acceptForSession"
    DECLINE = "decline"
    DECLINE_AND_STOP = "declineAndStop"


MAX_EXPIRY_ANSWER = 4096
MAX_ANSWER_BYTES = 64 * 1024  # a later attempt may be told it with everything else that was said


class OnExpiry(StrEnum):
    """What happens to a question nobody answered in time: its run fails, or what was declared before is answered.

    ``deny`` declines a permission or plan; ``answer`` does so too, and answers a question with ``expiryAnswer``.
    """

    FAIL = "fail"
    DENY = "deny"
    ANSWER = "answer"


class Option(Wire):
    label: str
    description: str | None = None


class AskedTool(Wire):
    """The tool a permission is about; for an edit, ``input`` holds the diff."""

    name: str
    input: dict[str, Any] = Field(default_factory=dict[str, Any])


Answer = str | list[str] | dict[str, Any]


class Reply(Request):
    """What a person answers: ``answer`` to a question, ``decision`` (with an optional ``message``) on a permission or plan."""

    model_config = exactly_one_of("answer", "decision")

    answer: Answer | None = Field(
        default=None, description=f"A string, a list, or {{question: answer}}: at most {MAX_ANSWER_BYTES} bytes of JSON."
    )
    decision: Decision | None = None
    message: str | None = Field(default=None, max_length=16_384)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.answer is None) == (self.decision is None):
            raise ValueError("give either answer or decision")
        return self


class RunReply(Reply):
    """A reply to one question of the run in the path, or of an attempt."""

    question_id: str = Field(min_length=1, max_length=128)


class InboxReply(RunReply):
    """A reply from the inbox across runs: names the run too."""

    run_id: str = Field(min_length=1, max_length=128)


class Interaction(Wire):
    """A question as callers see it."""

    run_id: str
    question_id: str
    attempt: int
    status: InteractionStatus
    type: InteractionType
    prompt: str
    options: list[Option] = Field(default_factory=list[Option])
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    tool: AskedTool | None = None
    created_at: datetime
    expires_at: datetime | None = None
    on_expiry: OnExpiry = OnExpiry.FAIL
    expiry_answer: str | None = Field(default=None, description="What a question is answered with if nobody answers in time.")
    answer: dict[str, Any] | None = Field(default=None, description="The recorded reply, once there is one.")
    answered_by: str | None = None
    answered_at: datetime | None = None


class ReplyAccepted(Wire):
    run_id: str
    question_id: str
    status: InteractionStatus
    duplicate: bool = Field(default=False, description="The same reply had been recorded before.")


class InteractionList(Wire):
    items: list[Interaction]
    next_cursor: str | None = None
