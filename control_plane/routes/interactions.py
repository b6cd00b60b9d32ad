"""Human loop: reply to a run's question, and the inbox across runs."""

from __future__ import annotations

from pydantic import Field

from control_plane.interactions.inbox import ReadInbox
from control_plane.interactions.reply import ReplyToQuestion
from control_plane.views.positions import NO_PLACE
from shared.contracts.interactions import InboxReply, InteractionList, InteractionStatus, ReplyAccepted, RunReply
from shared.contracts.wire import Request
from shared.errors import ErrorCode
from shared.web import Answer, Call, Operation, get, post


class PendingQuery(Request):
    cursor: str | None = Field(default=None, max_length=512)
    limit: int = Field(default=50, ge=1, le=500)


class RequestsQuery(PendingQuery):
    status: InteractionStatus | None = None


def interaction_routes(reply: ReplyToQuestion, inbox: ReadInbox) -> tuple[Operation, ...]:
    async def reply_to_run(call: Call[RunReply]) -> Answer:
        return Answer(await reply(call.path["run_id"], call.body.question_id, call.body, call.caller))

    async def reply_from_inbox(call: Call[InboxReply]) -> Answer:
        return Answer(await reply(call.body.run_id, call.body.question_id, call.body, call.caller))

    async def pending(call: Call[None]) -> Answer:
        return Answer(await inbox(call.caller, InteractionStatus.PENDING, call.query.cursor, call.query.limit))

    async def requests(call: Call[None]) -> Answer:
        return Answer(await inbox(call.caller, call.query.status, call.query.cursor, call.query.limit))

    refusals = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.PAYLOAD_TOO_LARGE)
    return (
        post("/api/runs/{run_id}/human-loop/reply", reply_to_run, body=RunReply, returns=ReplyAccepted, errors=refusals,
             summary="Answer a question of a run; exactly one reply wins"),
        post("/api/human-loop/reply", reply_from_inbox, body=InboxReply, returns=ReplyAccepted, errors=refusals,
             summary="Answer a question from the inbox"),
        get("/api/human-loop/pending", pending, query=PendingQuery, returns=InteractionList, also=NO_PLACE,
            summary="Questions that wait for a reply, oldest first"),
        get("/api/human-loop/requests", requests, query=RequestsQuery, returns=InteractionList, also=NO_PLACE,
            summary="Questions, oldest first"),
    )  # fmt: skip
