"""What an ACP engine tells about a prompt, as events of a run: messages, reasoning, tools, plan, tokens, retries.

It remembers only what one event needs of an earlier one. It sends nothing and decides no outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from executor.adapters.acp import tools
from executor.adapters.acp.log import Retry
from executor.adapters.acp.profile import AcpProfile, UsageFrom
from executor.adapters.acp.protocol import Chunk, Plan, PlanEntry, PromptEnded, Tokens, ToolCall
from executor.adapters.acp.sub_agents import HelperTexts
from executor.adapters.acp.tools import Tool
from executor.adapters.base import Emit, Step
from executor.adapters.framing import Framed
from executor.adapters.repeats import Repeats, Shown
from executor.adapters.restarts import News, Restarts
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
    Usage,
    UsageUpdated,
)
from shared.errors import ErrorCode

_PLAN_STATUS: dict[str, Literal["pending", "in_progress", "completed"]] = {
    "in_progress": "in_progress",
    "completed": "completed",
}


class PromptEvents:
    """The events of one conversation. ``answer`` is its prompt's last whole message, ``usage`` this attempt's tokens so far."""

    def __init__(self, profile: AcpProfile) -> None:
        self._profile = profile
        self.answer: str | None = None
        self.usage: Usage | None = None
        self.was_stopped = False
        self._streams = 0
        self._said: list[str] = []
        self._engine_id = ""
        self._thought: list[str] = []
        self._messages, self._reasoning = Repeats(), Repeats()
        self._restarts = Restarts()
        self._helpers = HelperTexts()
        self._tools: dict[str, Tool] = {}
        self._over: set[str] = set()
        self._had_tools = False

    # ---- text ----

    def said(self, chunk: Chunk, line: Framed) -> list[Step]:
        counted = self._count_chunk(chunk)
        text = chunk.content.text
        if chunk.parent is not None:
            return _at(line, [*self._helper_said(chunk.parent, text, is_thought=False), *counted])
        if not text or (self._profile.own_remarks is not None and self._profile.own_remarks.match(text)):
            return _at(line, counted)
        closed = self._close_thought()
        if self._said and chunk.message_id != self._engine_id:
            closed += self._close_message(final=False, well=True)
        self._engine_id = chunk.message_id
        news = self._restarts.piece(text) if self._profile.says_again else News([text])
        return _at(line, [*counted, *closed, *self._told(news)])

    def thought(self, chunk: Chunk, line: Framed) -> list[Step]:
        if not chunk.content.text:
            return []
        if chunk.parent is not None:
            return _at(line, self._helper_said(chunk.parent, chunk.content.text, is_thought=True))
        if not self._thought:
            self._streams += 1
        self._thought.append(chunk.content.text)
        shown = self._reasoning.delta(f"r{self._streams}", chunk.content.text)
        return _at(line, [ReasoningDelta(message_id=each.message_id, text=each.text) for each in shown if each.what == "delta"])

    def retried(self, retry: Retry, line: Framed) -> list[Step]:
        """The engine tells that it asks the model again."""
        if retry.starts_over and not self._restarts.told():
            self._begin_anew()
            self._restarts = Restarts()
            self._reasoning.broken()
            self._thought = []
        told = RetryScheduled(
            by="engine", reason=retry.reason, error_code=retry.code, attempt=retry.attempt, delay_ms=retry.asked_ms
        )
        return _at(line, [told])

    # ---- tools and plan ----

    @property
    def has_open_tools(self) -> bool:
        return any(tool.is_told for tool in self._tools.values())

    def tool(self, call: ToolCall, line: Framed) -> list[Step]:
        if call.tool_call_id in self._over:
            return []
        told, tool = self._learn(call)
        if tool.status in tools.OVER:
            # what ends without having begun was refused by the engine, whoever stopped it since
            was_ended = tool.is_told and self.was_stopped
            told += self._start(tool)
            told += self._helpers.closed(tool.id)
            told.append(tools.completed(tool, was_ended))
            told += self._planned(tools.todos_of(tool)) if tool.status == "completed" else []
            self._forget(tool.id)
        elif tool.status != "pending" or tool.parent is not None:  # a sub-agent's is told when it runs, and as pending
            told += self._start(tool)
        return _at(line, told)

    def asked(self, call: ToolCall, line: Framed, is_question: bool) -> tuple[Tool, list[Step]]:
        """The tool a permission is asked for. A question to the user is none, whatever the engine calls it."""
        told, tool = self._learn(call)
        if is_question:
            self._forget(tool.id)
        else:
            told += self._start(tool)
        return tool, _at(line, told)

    def declined(self, tool_id: str) -> list[Step]:
        """A person said no: whatever the engine still tells of it, it does not run."""
        tool = self._tools.get(tool_id)
        if tool is None:
            return []
        self._forget(tool_id)
        return [Emit(tools.ended_as(tool, "declined"))]

    def plan(self, plan: Plan, line: Framed) -> list[Step]:
        return _at(line, self._planned(plan.entries))

    # ---- ends ----

    def begin(self) -> None:
        """Another prompt goes out: the answer is still to come."""
        self.answer = None
        self._had_tools = False

    def prompt_ended(self, final: bool, well: bool = True) -> list[Step]:
        """The prompt is over, or nothing more will come: what is open is closed. ``final``: its last message is the answer."""
        payloads = [*self._helpers.all_closed(), *self._close_thought(), *self._close_message(final=final, well=well)]
        for tool in list(self._tools.values()):
            self._forget(tool.id)
            if tool.is_told:
                payloads.append(tools.ended_as(tool, "canceled"))
        return [Emit(payload) for payload in payloads]

    def count(self, ended: PromptEnded) -> list[Step]:
        """The tokens a prompt's answer tells. Where they are the last call's only, more than one call cannot be told."""
        tokens = ended.usage
        quota = ended.meta.quota if ended.meta is not None else None
        if self._profile.usage is UsageFrom.QUOTA and quota is not None and quota.model_usage:
            tokens = Tokens(input_tokens=quota.token_count.input_tokens, output_tokens=quota.token_count.output_tokens)
        elif self._profile.usage is not UsageFrom.LAST_CALL or self._had_tools:
            return []
        return [Emit(payload) for payload in self._add(tokens)]

    # ---- the parts of it ----

    def _planned(self, entries: Sequence[PlanEntry]) -> list[Payload]:
        items = [PlanItem(text=each.content, status=_PLAN_STATUS.get(each.status, "pending")) for each in entries]
        return [PlanUpdated(items=items)] if items else []

    def _told(self, news: News) -> list[Payload]:
        told: list[Payload] = [_restarted() for _ in range(news.restarts)]
        if news.is_anew:
            self._begin_anew()
        for text in news.pieces:
            if not self._said:
                self._streams += 1
            self._said.append(text)
            told += [_message(each) for each in self._messages.delta(f"m{self._streams}", text)]
        return told

    def _begin_anew(self) -> None:
        """The model call is made again: its text may be what was shown already."""
        self._messages.broken()
        self._said = []

    def _close_message(self, final: bool, well: bool) -> list[Payload]:
        closed = self._told(self._restarts.ended(well))
        self._restarts = Restarts()
        said, self._said = "".join(self._said), []
        if said:
            for each in self._messages.completed(f"m{self._streams}", said) if well else ():
                closed += self._completed(each, final)
            self._messages.settled()
        return closed

    def _completed(self, shown: Shown, final: bool) -> list[Payload]:
        if shown.what != "completed":
            return [_message(shown)]
        if not shown.text.strip():
            return []
        self.answer = shown.text
        return [MessageCompleted(message_id=shown.message_id, text=shown.text, final=final)]

    def _close_thought(self) -> list[Payload]:
        if not self._thought:
            return []
        shown = self._reasoning.completed(f"r{self._streams}", "".join(self._thought))
        self._thought = []
        self._reasoning.settled()
        return [ReasoningCompleted(message_id=each.message_id, text=each.text) for each in shown if each.what == "completed"]

    def _learn(self, call: ToolCall) -> tuple[list[Payload], Tool]:
        closed: list[Payload] = []
        tool = self._tools.get(call.tool_call_id)
        if tool is None:
            tool = self._tools[call.tool_call_id] = Tool(call.tool_call_id)
            self._had_tools = True
            parent = tools.parent_of(call)
            closed = self._close_for_a_tool() if parent is None else self._helpers.closed(parent)
        tool.learn(call)
        return closed, tool

    def _close_for_a_tool(self) -> list[Payload]:
        """What was said before a tool is not the answer."""
        closed = [*self._close_thought(), *self._close_message(final=False, well=True)]
        self.answer = None
        return closed

    def _helper_said(self, parent: str, text: str, is_thought: bool) -> list[Payload]:
        """An empty text comes with the tokens of a model call: it is over."""
        return self._helpers.said(parent, text, is_thought) if text else self._helpers.closed(parent)

    def _start(self, tool: Tool) -> list[Payload]:
        if tool.is_told:
            return []
        tool.is_told = True
        return [tools.started(tool)]

    def _forget(self, tool_id: str) -> None:
        self._tools.pop(tool_id, None)
        self._over.add(tool_id)

    def _count_chunk(self, chunk: Chunk) -> list[Payload]:
        tokens = chunk.meta.usage if chunk.meta is not None else None
        return self._add(tokens) if self._profile.usage is UsageFrom.CHUNKS else []

    def _add(self, tokens: Tokens | None) -> list[Payload]:
        if tokens is None or not (tokens.input_tokens or tokens.output_tokens):
            return []
        cached, thought = tokens.cached_read_tokens, tokens.thought_tokens
        apart = self._profile.caches_apart
        before = self.usage or Usage()
        self.usage = Usage(
            input_tokens=before.input_tokens + tokens.input_tokens + ((cached or 0) if apart else 0),
            cached_input_tokens=_sum(before.cached_input_tokens, cached),
            output_tokens=before.output_tokens + tokens.output_tokens + ((thought or 0) if apart else 0),
            reasoning_tokens=_sum(before.reasoning_tokens, thought),
        )
        return [UsageUpdated(usage=self.usage)]


def _at(line: Framed, payloads: Sequence[Payload]) -> list[Step]:
    return [Emit(payload, line.byte_from, line.byte_to) for payload in payloads]


def _message(shown: Shown) -> Payload:
    if shown.what == "delta":
        return MessageDelta(message_id=shown.message_id, text=shown.text)
    said = f"message {shown.message_id} was cut off and is begun anew"
    return Diagnostic(code="message_abandoned", severity="info", message=said)


def _restarted() -> Payload:
    said = "the model's answer broke off and was begun anew"
    return RetryScheduled(by="engine", reason=said, error_code=ErrorCode.MODEL_UNAVAILABLE)


def _sum(before: int | None, more: int | None) -> int | None:
    return before if more is None else (before or 0) + more
