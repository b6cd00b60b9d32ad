"""A further user message: a row first; whoever drives the run hands it to the engine until the executor confirms."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.plain_text import refuse_nul
from control_plane.manager_client import ManagerClient
from control_plane.runs.admit import idempotency_key
from control_plane.storage.messages import MessageStore, NewMessage
from control_plane.storage.runs import RunStore
from shared.contracts.runs import MAX_PROMPT_BYTES, MessageAccepted, SendMessage
from shared.errors import ErrorCode, RunyardError
from shared.http import NoAnswerError
from shared.ids import NewId
from shared.web import Caller

log = structlog.get_logger("messages")


@dataclass(frozen=True, slots=True)
class SendRunMessage:
    runs: RunStore
    messages: MessageStore
    manager: ManagerClient
    new_id: NewId

    async def __call__(self, run_id: str, message: SendMessage, caller: Caller, key: str | None) -> MessageAccepted:
        """Raises ``not_found``, ``conflict`` for a run that is over or stopping, ``capability_unavailable``,
        ``invalid_request``, ``payload_too_large``, ``idempotency_conflict`` and ``queue_full``; nothing is stored then."""
        refuse_nul(message)
        row = await self.runs.snapshot(run_id)
        if row is None or not caller.may_see(row.app_id):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        if len(message.text.encode()) > MAX_PROMPT_BYTES:
            raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"text: more than {MAX_PROMPT_BYTES} bytes")
        idempotency = idempotency_key(key, f"message\0{run_id}\0{message.text}")
        if row.finished_at is None and not await self._takes_messages(row.provider):
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{row.provider} takes no message into a running turn")
        sender = caller.user_id or caller.key_id
        new = NewMessage(run_id, self.new_id("msg"), message.text, caller.app_id, sender)
        stored = await self.messages.add(new, idempotency)
        return MessageAccepted.model_validate(
            {
                "run_id": run_id,
                "message_id": stored.message_id,
                "status": stored.status,
                "created_at": stored.created_at,
                "duplicate": stored.is_repeat,
            }
        )

    async def _takes_messages(self, provider: str | None) -> bool:
        """What the fleet says of the provider. While nobody says anything the message is kept, and its engine will tell."""
        try:
            known = (await self.manager.providers()).items
        except (RunyardError, NoAnswerError) as error:
            log.info("messages.capabilities_unknown", provider=provider, reason=str(error))
            return True
        return all(each.capabilities.messages for each in known if each.provider == provider)
