"""What Codex tells about a turn, as events of a run: messages, reasoning, tools, plan, tokens, retries, notices.

It remembers only what one event needs of an earlier one. It sends nothing and decides no outcome.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from executor.adapters.base import Emit, Step
from executor.adapters.codex import items
from executor.adapters.codex.errors import code_of, reason_of
from executor.adapters.codex.protocol import (
    AgentMessage,
    Delta,
    ErrorRaised,
    FileDiff,
    FileEdit,
    ItemMoved,
    ModelRerouted,
    Named,
    Notice,
    PartAdded,
    PlanMoved,
    Reasoning,
    Tokens,
    Tool,
    UsageMoved,
    read_item,
)
from executor.adapters.framing import Line
from executor.adapters.repeats import Repeats, Shown
from shared.contracts.events import (
    Diagnostic,
    MessageCompleted,
    MessageDelta,
    Payload,
    PlanItem,
    PlanUpdated,
    ReasoningCompleted,
    ReasoningDelta,
    RetryScheduled,
    ToolCompleted,
    Usage,
    UsageUpdated,
)

_FOR_OPERATORS = frozenset({"configWarning", "deprecationNotice"})
_RETRY_NUMBER = re.compile(r"(\d{1,6})/\d")
_PLAN_STATUS: dict[str, Literal["pending", "in_progress", "completed"]] = {"inProgress": "in_progress", "completed": "completed"}


class TurnEvents:
    """The events of one conversation. ``answer`` is the last whole message, ``usage`` this attempt's tokens so far.

    A whole message is held until something follows it or ``release`` is called, because only then is known whether it is final.
    """

    def __init__(self) -> None:
        self.answer: str | None = None
        self.usage: Usage | None = None
        self.was_stopped = False
        self._messages = Repeats()
        self._reasoning = Repeats()
        self._held: tuple[Shown, Line] | None = None
        self._tools: dict[str, Tool] = {}
        self._thread_total: dict[str, Tokens] = {}

    def read(self, method: str, note: Named, line: Line) -> list[Step]:
        """The events of one notification of our own thread."""
        released = self.release(final=False) if method.startswith("item/") else []
        return [*released, *(Emit(payload, line.byte_from, line.byte_to) for payload in self._payloads(method, note, line))]

    def release(self, final: bool) -> list[Step]:
        """The message that was held, if there is one."""
        if self._held is None:
            return []
        (shown, line), self._held = self._held, None
        payload = MessageCompleted(message_id=shown.message_id, text=shown.text, final=final)
        return [Emit(payload, line.byte_from, line.byte_to)]

    def count(self, moved: UsageMoved) -> list[Payload]:
        """Adds up ``last``. The same total told twice is one request; threads of helpers count too."""
        tokens = moved.token_usage
        if self._thread_total.get(moved.thread_id) == tokens.total or tokens.last == Tokens():
            return []
        self._thread_total[moved.thread_id] = tokens.total
        before = self.usage or Usage(cached_input_tokens=0, reasoning_tokens=0)
        self.usage = Usage(
            input_tokens=before.input_tokens + tokens.last.input_tokens,
            cached_input_tokens=(before.cached_input_tokens or 0) + tokens.last.cached_input_tokens,
            output_tokens=before.output_tokens + tokens.last.output_tokens,
            reasoning_tokens=(before.reasoning_tokens or 0) + tokens.last.reasoning_output_tokens,
        )
        return [UsageUpdated(usage=self.usage)]

    def diffs_of(self, item_id: str) -> Sequence[FileDiff]:
        """The changes of an edit that was begun and has not ended."""
        tool = self._tools.get(item_id)
        return tool.changes if isinstance(tool, FileEdit) else []

    def ended(self) -> list[Step]:
        """Nothing more will come: tools that never ended were canceled."""
        open_tools, self._tools = list(self._tools.values()), {}
        gone = [ToolCompleted(tool_id=tool.id, name=items.name_of(tool), status="canceled") for tool in open_tools]
        return [*self.release(final=False), *(Emit(payload) for payload in gone)]

    def _payloads(self, method: str, note: Named, line: Line) -> Sequence[Payload]:
        match note:
            case Delta() | PartAdded():
                return self._on_delta(method, note)
            case ItemMoved():
                return self._on_item(note, method == "item/started", line)
            case PlanMoved(plan=plan):
                todo = [PlanItem(text=each.step, status=_PLAN_STATUS.get(each.status, "pending")) for each in plan]
                return [PlanUpdated(items=todo)]
            case UsageMoved():
                self._settled()
                return self.count(note)
            case ErrorRaised(will_retry=True):
                return [self._on_retry(note)]
            case Notice(message=message, summary=summary):
                severity = "info" if method in _FOR_OPERATORS else "warning"
                return [Diagnostic(code=f"codex_{_snake(method)}", severity=severity, message=message or summary)]
            case ModelRerouted(from_model=asked, to_model=used):
                return [Diagnostic(code="model_rerouted", severity="warning", message=f"{used} answers instead of {asked}")]
            case _:
                return []

    def _on_delta(self, method: str, note: Delta | PartAdded) -> Sequence[Payload]:
        match note:
            case PartAdded(summary_index=0):
                return []
            case PartAdded(item_id=item):
                shown = self._reasoning.delta(item, "\n\n")
            case Delta(item_id=item, delta=text) if method == "item/agentMessage/delta":
                return [self._message_payload(each) for each in self._messages.delta(item, text)]
            case Delta(item_id=item, delta=text):
                shown = self._reasoning.delta(item, text)
        return [ReasoningDelta(message_id=each.message_id, text=each.text) for each in shown if each.what == "delta"]

    def _on_item(self, moved: ItemMoved, is_start: bool, line: Line) -> Sequence[Payload]:
        item = read_item(moved.item)
        match item:
            case None:
                return []
            case AgentMessage() | Reasoning() if is_start:
                return []
            case AgentMessage(id=id, text=text):
                return self._on_message(self._messages.completed(id, text), line)
            case Reasoning(id=id, summary=summary, content=content):
                shown = self._reasoning.completed(id, "\n\n".join(summary or content))
                return [
                    ReasoningCompleted(message_id=each.message_id, text=each.text)
                    for each in shown
                    if each.what == "completed" and each.text
                ]
            case _:
                return self._on_tool(item, is_start)

    def _on_message(self, shown: Sequence[Shown], line: Line) -> Sequence[Payload]:
        for each in shown:
            if each.what == "completed" and each.text:
                self.answer = each.text
                self._held = (each, line)
        return [self._message_payload(each) for each in shown if each.what != "completed"]

    def _on_tool(self, tool: Tool, is_start: bool) -> Sequence[Payload]:
        self._settled()
        if is_start:
            is_known = tool.id in self._tools
            self._tools[tool.id] = tool
            return [] if is_known else [items.started(tool)]
        begun = [] if self._tools.pop(tool.id, None) is not None else [items.started(tool)]
        return [*begun, items.completed(tool, self.was_stopped)]

    def _message_payload(self, shown: Shown) -> Payload:
        if shown.what == "delta":
            return MessageDelta(message_id=shown.message_id, text=shown.text)
        said = f"message {shown.message_id} was cut off and is begun anew"
        return Diagnostic(code="message_abandoned", severity="info", message=said)

    def _on_retry(self, raised: ErrorRaised) -> Payload:
        self._messages.broken()
        self._reasoning.broken()
        number = _RETRY_NUMBER.search(raised.error.message)
        attempt = int(number.group(1)) if number else None
        return RetryScheduled(by="engine", reason=reason_of(raised.error), error_code=code_of(raised.error), attempt=attempt)

    def _settled(self) -> None:
        self._messages.settled()
        self._reasoning.settled()


def _snake(method: str) -> str:
    return re.sub(r"[^a-z]+", "_", re.sub(r"([A-Z])", r"_\1", method).lower())
