"""``/api/runs/{runId}/messages``: a further user message into a run. No decisions here."""

from __future__ import annotations

from control_plane.runs.messages import SendRunMessage
from shared.contracts.runs import MessageAccepted, SendMessage
from shared.errors import ErrorCode
from shared.web import Answer, Call, Operation, post


def message_routes(send: SendRunMessage) -> tuple[Operation, ...]:
    async def say(call: Call[SendMessage]) -> Answer:
        key = call.headers.get("idempotency-key")
        return Answer(await send(call.path["run_id"], call.body, call.caller, key))

    refusals = (
        ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.CAPABILITY_UNAVAILABLE, ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.IDEMPOTENCY_CONFLICT, ErrorCode.QUEUE_FULL,
    )  # fmt: skip
    return (
        post("/api/runs/{run_id}/messages", say, body=SendMessage, returns=MessageAccepted, status=202, errors=refusals,
             headers={"Idempotency-Key": {"pattern": "^[ -~]{1,255}$", "description": "The same key and body are one message."}},
             summary="A further user message; handed to the run's engine until it is confirmed"),
    )  # fmt: skip
