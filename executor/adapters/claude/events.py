"""What Claude Code tells about a turn, as events of a run: messages, reasoning, tools, plan, tokens, retries, notices.

It remembers only what one event needs of an earlier one. It sends nothing and decides no outcome.

An answer is told twice: streamed, and block by block as it becomes whole. The stream is shown, the whole block completes it.
What helpers of the engine say comes block by block only; it is told as theirs, beside the tool call that started them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from executor.adapters.base import Emit, Step
from executor.adapters.claude import tools
from executor.adapters.claude.errors import asked_with, code_of_retry, reason_of_retry
from executor.adapters.claude.protocol import (
    ApiRetry,
    Assistant,
    Block,
    CanUseTool,
    CompactBoundary,
    Delta,
    Message,
    ModelEvent,
    RateLimited,
    Result,
    Streamed,
    TaskStarted,
    Tokens,
    Told,
    User,
)
from executor.adapters.framing import Line
from executor.adapters.repeats import Repeats, Shown
from executor.adapters.sub_agents import marked
from shared.contracts.events import (
    Diagnostic,
    MessageCompleted,
    MessageDelta,
    Payload,
    PlanUpdated,
    ReasoningCompleted,
    ReasoningDelta,
    RetryScheduled,
    ToolCompleted,
    Usage,
    UsageUpdated,
)


@dataclass(slots=True)
class _Answer:
    """The model's answer that is being told: its id, its newest block, and whether a stream of it is open."""

    id: str = ""
    index: int = -1
    is_open: bool = False


@dataclass(slots=True)
class _Call:
    tool: str
    input: Any
    parent: str | None = None
    status: tools.Status | None = None


@dataclass(slots=True)
class _Counted:
    """Tokens of the requests seen in the stream: what there is until the engine's own account comes with the result."""

    usage: Usage = field(default_factory=lambda: Usage(cached_input_tokens=0))

    def add(self, tokens: Tokens, *, is_end: bool) -> None:
        before = self.usage
        if is_end:
            self.usage = before.model_copy(update={"output_tokens": before.output_tokens + (tokens.output_tokens or 0)})
            return
        cached = tokens.cache_read_input_tokens or 0
        fresh = (tokens.input_tokens or 0) + (tokens.cache_creation_input_tokens or 0)
        self.usage = before.model_copy(
            update={
                "input_tokens": before.input_tokens + fresh + cached,
                "cached_input_tokens": (before.cached_input_tokens or 0) + cached,
            }
        )


class TurnEvents:
    """The events of one conversation. ``usage``: this attempt's tokens and cost so far. ``error``: the engine's word for it.
    ``asks_ms``: how long the model asked for with its newest failure, until it speaks again.

    A whole message is held until something follows it or ``release`` is called, because only then is known whether it is final.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error: str | None = None
        self.asks_ms: int | None = None
        self.was_stopped = False
        self._answer = _Answer()
        self._was_cut = False
        self._messages = Repeats()
        self._reasoning = Repeats()
        self._held: tuple[Shown, Line] | None = None
        self._calls: dict[str, _Call] = {}
        self._helpers: dict[str, str] = {}
        self._said_by_helpers = 0
        self._tasks = tools.TaskList()
        self._counted = _Counted()

    def read(self, told: Told, line: Line) -> list[Step]:
        """The events of one line."""
        steps: list[Step] = []
        if self._follows(told):
            steps += self.release(final=False)
        return [*steps, *(Emit(payload, line.byte_from, line.byte_to) for payload in self._payloads(told, line))]

    def release(self, final: bool) -> list[Step]:
        """The message that was held, if there is one."""
        if self._held is None:
            return []
        line = self._held[1]
        return [Emit(payload, line.byte_from, line.byte_to) for payload in self._let_go(final)]

    def answered(self, text: str, line: Line) -> list[Step]:
        """The turn ended with this answer: the held message, or a message of its own where the engine told none."""
        if self._held is not None and self._held[0].text.strip() == text.strip():
            return self.release(final=True)
        payload = MessageCompleted(message_id="answer", text=text, final=True)
        return [*self.release(final=False), Emit(payload, line.byte_from, line.byte_to)]

    def asked(self, asked: CanUseTool) -> Iterator[Payload]:
        """A person is to be asked about a call."""
        return self._begun(asked.tool_use_id, asked.tool_name, asked.input, self._helpers.get(asked.agent_id or ""))

    def declined(self, tool_id: str) -> None:
        """Somebody said no to a call that was begun."""
        if tool_id in self._calls:
            self._calls[tool_id].status = "declined"

    def ended(self) -> list[Step]:
        """Nothing more will come: tools that never ended were canceled."""
        open_calls, self._calls = dict(self._calls), {}
        gone = [
            ToolCompleted(tool_id=id, name=tools.name_of(call.tool), status="canceled", parent_tool_id=call.parent)
            for id, call in open_calls.items()
            if call.tool not in tools.SILENT
        ]
        return [*self.release(final=False), *(Emit(payload) for payload in gone)]

    def _let_go(self, final: bool = False) -> Iterator[Payload]:
        if self._held is not None:
            (shown, _), self._held = self._held, None
            yield MessageCompleted(message_id=shown.message_id, text=shown.text, final=final)

    def _follows(self, told: Told) -> bool:
        """Whether the engine went on after the message that is held."""
        match told:
            case Streamed(event=ModelEvent(type="message_start" | "content_block_start"), parent_tool_use_id=None):
                return True
            case Assistant(parent_tool_use_id=None, error=None):
                return True
            case User(is_replay=False):
                return True
            case _:
                return False

    def _payloads(self, told: Told, line: Line) -> Iterator[Payload]:
        match told:
            case Streamed(event=event, parent_tool_use_id=None):
                self.asks_ms = None
                yield from self._on_stream(event)
            case Assistant(parent_tool_use_id=None):
                yield from self._on_blocks(told, line)
            case Assistant(parent_tool_use_id=str(parent), error=None):
                yield from self._on_helper(told.message, parent)
            case User(is_replay=False):
                yield from self._on_results(told)
            case Result():
                yield from self._count_up(told)
            case _:
                yield from self._on_notice(told)

    def _on_notice(self, told: Told) -> Iterator[Payload]:
        match told:
            case TaskStarted(task_id=task, tool_use_id=str(tool)):
                self._helpers[task] = tool
            case ApiRetry():
                yield self._on_retry(told)
            case CompactBoundary():
                yield Diagnostic(code="claude_compacted", severity="info", message="the conversation so far was summed up")
            case RateLimited(rate_limit_info=info) if info.status != "allowed":
                message = f"the account's limit ({info.rate_limit_type or 'unnamed'}) is {info.status}"
                yield Diagnostic(code="claude_rate_limit", severity="warning", message=message)
            case _:
                pass

    # ---- messages and reasoning ----

    def _on_stream(self, event: ModelEvent) -> Iterator[Payload]:
        match event:
            case ModelEvent(type="message_start", message=message) if message is not None:
                self._on_new_answer(message.id)
                if message.usage is not None:
                    self._counted.add(message.usage, is_end=False)
            case ModelEvent(type="content_block_start", index=index):
                self._answer.index = index
            case ModelEvent(type="content_block_delta", delta=delta) if delta is not None:
                yield from self._on_delta(delta)
            case ModelEvent(type="message_delta", usage=usage) if usage is not None:
                self._counted.add(usage, is_end=True)
                yield from self._changed_usage(self._counted.usage)
            case ModelEvent(type="message_stop"):
                self._answer.is_open = self._was_cut = False
                self._settled()
            case _:
                pass

    def _on_delta(self, delta: Delta) -> Iterator[Payload]:
        if delta.text:
            yield from self._message_payloads(self._messages.delta(self._block_id(), delta.text))
        for each in self._reasoning.delta(self._block_id(), delta.thinking) if delta.thinking else ():
            if each.what == "delta":
                yield ReasoningDelta(message_id=each.message_id, text=each.text)

    def _on_new_answer(self, id: str) -> None:
        if self._answer.is_open:
            self._broken()
        self._answer = _Answer(id, is_open=True)

    def _on_blocks(self, told: Assistant, line: Line) -> Iterator[Payload]:
        if told.error is not None:
            self.error = told.error
            return
        self.error = None
        if told.message.id != self._answer.id:
            # an answer that was not streamed: a broken stream is asked for again without one
            if self._answer.is_open:
                self._broken()
            self._answer = _Answer(told.message.id)
        for block in told.message.blocks:
            if not self._answer.is_open:
                self._answer.index += 1
            yield from self._let_go()
            yield from self._on_block(block, line)

    def _on_block(self, block: Block, line: Line) -> Iterator[Payload]:
        if block.type == "tool_use":
            yield from self._begun(block.id, block.name, block.input, parent=None)
        elif block.type == "text" and block.text:
            yield from self._on_message(self._messages.completed(self._block_id(), block.text), line)
        elif block.type == "thinking" and block.thinking:
            shown = self._reasoning.completed(self._block_id(), block.thinking)
            yield from (
                ReasoningCompleted(message_id=each.message_id, text=each.text) for each in shown if each.what == "completed"
            )

    def _on_helper(self, message: Message, parent: str) -> Iterator[Payload]:
        """A helper's blocks; why it has no answer stands in what its tool call gave."""
        for block in message.blocks:
            self._said_by_helpers += 1
            id = f"{message.id}-helper-{self._said_by_helpers}"
            if block.type == "tool_use":
                yield from self._begun(block.id, block.name, block.input, parent)
            elif block.type == "text" and block.text:
                yield MessageCompleted(message_id=id, text=block.text, parent_tool_id=parent)
            elif block.type == "thinking" and block.thinking:
                yield ReasoningCompleted(message_id=id, text=block.thinking, parent_tool_id=parent)

    def _on_message(self, shown: Sequence[Shown], line: Line) -> Iterator[Payload]:
        for each in shown:
            if each.what == "completed":
                self._held = (each, line)
        yield from self._message_payloads([each for each in shown if each.what != "completed"])

    def _message_payloads(self, shown: Sequence[Shown]) -> Iterator[Payload]:
        for each in shown:
            if each.what == "delta":
                yield MessageDelta(message_id=each.message_id, text=each.text)
            elif each.what == "given_up":
                said = f"message {each.message_id} was cut off and is begun anew"
                yield Diagnostic(code="message_abandoned", severity="info", message=said)

    def _block_id(self) -> str:
        return f"{self._answer.id}-{self._answer.index}"

    def _on_retry(self, retry: ApiRetry) -> Payload:
        self.asks_ms = asked_with(retry)
        self._was_cut = self._was_cut or self._answer.is_open
        if self._answer.is_open:
            self._answer.is_open = False
            self._broken()
        return RetryScheduled(
            by="engine",
            reason=reason_of_retry(retry),
            error_code=code_of_retry(retry, self._was_cut),
            attempt=retry.attempt or None,
            delay_ms=int(retry.retry_delay_ms),
        )

    def _broken(self) -> None:
        self._messages.broken()
        self._reasoning.broken()

    def _settled(self) -> None:
        self._messages.settled()
        self._reasoning.settled()

    # ---- tools ----

    def _begun(self, tool_id: str, tool: str, given: Any, parent: str | None) -> Iterator[Payload]:
        """A tool is called; nothing when that was told, or is told otherwise. ``parent``: the call of the helper that does."""
        if not tool_id or tool_id in self._calls:
            return
        self._calls[tool_id] = _Call(tool, given, parent)
        if tool not in tools.SILENT:
            yield marked(tools.started(tool_id, tool, given), parent)

    def _on_results(self, told: User) -> Iterator[Payload]:
        for block in told.message.blocks:
            call = self._calls.pop(block.tool_use_id, None) if block.type == "tool_result" else None
            if call is None:
                continue
            self._settled()
            if call.tool not in tools.SILENT:
                done = tools.completed(call.tool, block, self._status(call, block), told.tool_use_result)
                yield marked(done, call.parent)
            elif not block.is_error and self._tasks.read(call.tool, call.input, told.tool_use_result):
                yield PlanUpdated(items=self._tasks.items)

    def _status(self, call: _Call, result: Block) -> tools.Status:
        if not result.is_error:
            return "completed"
        return call.status or ("canceled" if self.was_stopped else "failed")

    # ---- tokens ----

    def _count_up(self, result: Result) -> Iterator[Payload]:
        """The engine's own account is of this process, so of this attempt, and counts its helpers; it leaves out what was cut."""
        told, counted = list(result.model_usage.values()), self._counted.usage
        if not told:
            yield from self._changed_usage(counted)
            return
        cached = sum(each.cache_read_input_tokens for each in told)
        fresh = sum(each.input_tokens + each.cache_creation_input_tokens for each in told)
        usage = Usage(
            input_tokens=max(cached + fresh, counted.input_tokens),
            cached_input_tokens=max(cached, counted.cached_input_tokens or 0),
            output_tokens=max(sum(each.output_tokens for each in told), counted.output_tokens),
            cost_usd=result.total_cost_usd,
        )
        yield from self._changed_usage(usage)

    def _changed_usage(self, usage: Usage) -> Iterator[Payload]:
        if usage == self.usage or not (usage.input_tokens or usage.output_tokens):
            return
        if usage.cost_usd is None and self.usage is not None:
            usage = usage.model_copy(update={"cost_usd": self.usage.cost_usd})
        self.usage = usage
        yield UsageUpdated(usage=usage)
