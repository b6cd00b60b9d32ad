"""The harness's readers over recorded output: whole, in any split, and with the outcome the engine told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, Emit, Outcome
from executor.adapters.codex.exec import ExecReader
from executor.adapters.forms import FORMS
from executor.adapters.gemini import stream as gemini_stream
from executor.adapters.opencode.run import RunReader
from executor.adapters.passed_through import PassedThrough, Reader
from executor.adapters.qwen import stream as qwen_stream
from shared.contracts.events import AttemptOutcome, Kind, MessageCompleted, MessageDelta, ToolCompleted, ToolStarted
from shared.contracts.providers import Provider
from shared.errors import ErrorCode

RECORDINGS = Path(__file__).parents[1] / "recordings"
READERS: dict[str, Callable[[], Reader]] = {
    "codex-exec": ExecReader, "gemini-stream": gemini_stream.StreamReader, "opencode-run": RunReader,
    "qwen-stream": qwen_stream.StreamReader,
}  # fmt: skip
CASES = sorted(f"{form}/{path.name}" for form in READERS for path in (RECORDINGS / form).iterdir())
ENDS = {
    "codex-exec/exec-empty": ErrorCode.ENGINE_NO_OUTPUT,
    "codex-exec/fail-401": ErrorCode.AUTH_FAILED,
    "gemini-stream/empty": ErrorCode.ENGINE_NO_OUTPUT,
    "gemini-stream/fail-auth": ErrorCode.AUTH_FAILED,
    "gemini-stream/fail-forbidden": ErrorCode.AUTH_FAILED,
    "gemini-stream/nocred-nothing": ErrorCode.AUTH_MISSING,
    "gemini-stream/untrusted-yolo": ErrorCode.PERMISSION_DENIED,
    "opencode-run/empty": ErrorCode.ENGINE_NO_OUTPUT,
    "opencode-run/fail-auth": ErrorCode.AUTH_FAILED,
    "opencode-run/fail-disconnect": ErrorCode.MODEL_UNAVAILABLE,
    "opencode-run/maxtok": ErrorCode.OUTPUT_LIMIT,
    "qwen-stream/empty": ErrorCode.ENGINE_NO_OUTPUT,
    "qwen-stream/fail-auth": ErrorCode.AUTH_FAILED,
    "qwen-stream/fail-disconnect": ErrorCode.MODEL_UNAVAILABLE,
    "qwen-stream/nocred-nothing": ErrorCode.AUTH_MISSING,
}
SILENT = {"gemini-stream/nocred-nothing", "gemini-stream/untrusted-yolo", "qwen-stream/nocred-nothing"}  # told no session
STEP = 7  # bytes between the cuts that are tried; more where a recording is long


def read(case: str, chunks: Sequence[bytes]) -> tuple[list[Any], Outcome]:
    folder = RECORDINGS / case
    conversation = PassedThrough("engine", (), READERS[case.partition("/")[0]]())
    steps = [step for chunk in chunks for step in conversation.feed(STDOUT, chunk)]
    steps += conversation.feed(STDERR, (folder / "stderr.txt").read_bytes())
    steps += [*conversation.end_of(STDOUT), *conversation.end_of(STDERR)]
    exit_code = int((folder / "exit.txt").read_text().split()[0].removeprefix("exit_code="))
    told = [(step.payload, step.byte_from, step.byte_to) for step in steps if isinstance(step, Emit)]
    return told, conversation.ended(exit_code)


def stdout_of(case: str) -> bytes:
    return (RECORDINGS / case / "stdout.jsonl").read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_process_ends_as_it_said(case: str) -> None:
    told, outcome = read(case, [stdout_of(case)])
    failure = ENDS.get(case)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR if failure else AttemptOutcome.SUCCESS, failure)
    assert outcome.error_message if failure else outcome.result
    finals = [payload.text for payload, _, _ in told if payload.KIND == "message.completed" and payload.final]
    assert finals == ([outcome.result] if failure is None else [])
    sessions = [payload.engine_session for payload, _, _ in told if payload.KIND == "session.started"]
    assert len(sessions) == (0 if case in SILENT else 1)
    assert not [payload for payload, _, _ in told if payload.KIND == "raw.stdout"]


@pytest.mark.parametrize("case", CASES)
def test_no_split_changes_what_is_read(case: str) -> None:
    stdout = stdout_of(case)
    whole = read(case, [stdout])
    for cut in range(0, len(stdout), max(STEP, len(stdout) // 400)):
        assert read(case, [stdout[:cut], stdout[cut:]]) == whole


@pytest.mark.parametrize("case", [case for case in CASES if case.split("/")[1] in ("shell", "write")])
def test_tools_of_the_one_shot_forms_are_told_with_what_went_in_and_came_out(case: str) -> None:
    told = [payload for payload, _, _ in read(case, [stdout_of(case)])[0]]
    kinds = [payload.KIND for payload in told]
    assert kinds.count(Kind.TOOL_STARTED) == kinds.count(Kind.TOOL_COMPLETED) == 1
    assert kinds.index(Kind.TOOL_STARTED) < kinds.index(Kind.TOOL_COMPLETED)
    started = next(payload for payload in told if isinstance(payload, ToolStarted))
    ended = next(payload for payload in told if isinstance(payload, ToolCompleted))
    assert started.name == ("shell" if case.endswith("shell") else "edit")
    assert ended.status == ("failed" if case == "qwen-stream/write" else "completed")  # it wants an absolute path
    assert "hello-from-tool" in json.dumps(started.input) if case.endswith("shell") else "written" in json.dumps(started.input)
    assert [payload.text for payload in told if isinstance(payload, MessageCompleted)] == [
        "I will use a tool. ",
        "The tool has answered. DONE-TOOL",
    ]


def test_a_model_that_broke_off_and_began_anew_is_shown_once() -> None:
    """Gemini CLI streams the same words again and says nothing about it."""
    words = b"".join(
        _line({"type": "message", "role": "assistant", "content": word}) for word in ("This answer ", "will be ", "cut ")
    )
    end = _line({"type": "message", "role": "assistant", "content": "no more."}) + _line({"type": "result", "status": "success"})
    conversation = PassedThrough("gemini", (), gemini_stream.StreamReader())
    told = [step.payload for step in conversation.feed(STDOUT, words + words + end) if isinstance(step, Emit)]
    assert "".join(payload.text for payload in told if isinstance(payload, MessageDelta)) == "This answer will be cut no more."
    assert [payload.KIND for payload in told].count(Kind.RETRY_SCHEDULED) == 1
    assert conversation.ended(0).result == "This answer will be cut no more."


def test_an_answer_of_qwen_is_its_own_final_value_and_no_helpers_word() -> None:
    said = {"role": "assistant", "content": [{"type": "text", "text": "the helper's"}]}
    lines = _line({"type": "assistant", "parent_tool_use_id": "t1", "message": said})
    lines += _line({"type": "assistant", "message": said | {"content": [{"type": "text", "text": "one "}]}})
    lines += _line({"type": "result", "subtype": "success", "result": "one two"})
    conversation = PassedThrough("qwen", (), qwen_stream.StreamReader())
    told = [step.payload for step in conversation.feed(STDOUT, lines) if isinstance(step, Emit)]
    messages = [(payload.text, payload.final) for payload in told if isinstance(payload, MessageCompleted)]
    assert messages == [("one ", False), ("one two", True)]
    assert conversation.ended(0).result == "one two"


def test_what_opencode_says_after_an_error_is_no_answer() -> None:
    error = {"name": "ContextOverflowError", "data": {"message": "prompt is too long"}}
    lines = _line({"type": "error", "sessionID": "s", "error": error})
    lines += _line({"type": "text", "sessionID": "s", "part": {"messageID": "m", "text": "Continue if you can"}})
    lines += _line({"type": "step_finish", "sessionID": "s", "part": {"messageID": "m", "reason": "stop"}})
    conversation = PassedThrough("opencode", (), RunReader())
    conversation.feed(STDOUT, lines)
    told = [step.payload for step in conversation.end_of(STDOUT) if isinstance(step, Emit)]
    assert not [payload for payload in told if isinstance(payload, MessageCompleted) and payload.final]
    assert conversation.ended(1).error_code is ErrorCode.CONTEXT_OVERFLOW


@pytest.mark.parametrize("form", READERS)
def test_a_form_for_people_is_judged_by_its_exit(form: str) -> None:
    conversation = PassedThrough("engine", ("--help",), READERS[form]())
    told = [step.payload.KIND for step in conversation.feed(STDOUT, b"Usage: engine\n") if isinstance(step, Emit)]
    assert told == [Kind.RAW_STDOUT]
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS
    assert conversation.ended(1).error_code is ErrorCode.ENGINE_EXIT_NONZERO


def test_every_engine_the_harness_runs_can_be_read_and_gone_on_with() -> None:
    runs = {provider for provider, adapter in ADAPTERS.items() if adapter.install.command and not adapter.install.closed}
    assert {provider for provider in runs if FORMS[provider].reader and FORMS[provider].resume} == runs


@pytest.mark.parametrize("provider", FORMS)
@pytest.mark.parametrize("message", ["two words", "-x", "", "a=b"])
def test_a_resumption_holds_the_session_the_message_and_the_users_own_arguments(provider: Provider, message: str) -> None:
    resume = FORMS[provider].resume
    assert resume is not None
    arguments = resume("session-1", message, ("--mine", "a b"))
    assert "session-1" in arguments
    assert arguments[-1] in (message, f"--prompt={message}")
    assert "--mine\0a b" in "\0".join(arguments)


def test_tools_edits_and_retries_of_codex_are_events() -> None:
    kinds = {case: [payload.KIND.value for payload, _, _ in read(f"codex-exec/{case}", [stdout_of(f"codex-exec/{case}")])[0]]
             for case in ("exec-tool", "exec-edit", "fail-401")}  # fmt: skip
    assert kinds["exec-tool"][1:5] == ["message.completed", "tool.started", "tool.completed", "message.completed"]
    assert kinds["exec-edit"][2:4] == ["tool.started", "tool.completed"]
    assert kinds["fail-401"].count("retry.scheduled") == 5


TODO = {"id": "item_1", "type": "todo_list", "items": [{"text": "a", "completed": True}]}


@pytest.mark.parametrize("after", [
    [{"type": "item.completed", "item": TODO}],
    [{"type": "item.completed", "item": {"id": "item_2", "type": "error", "message": "careful"}}],
    [{"type": "item.completed", "item": TODO}, {"type": "item.completed", "item": {"id": "item_2", "type": "error"}}],
])  # fmt: skip
def test_what_codex_adds_after_its_last_message_does_not_take_its_answer(after: list[dict[str, Any]]) -> None:
    conversation = PassedThrough("codex", (), ExecReader())
    said = {"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": "done"}}
    lines = [{"type": "turn.started"}, said, *after, {"type": "turn.completed"}]
    steps = conversation.feed(STDOUT, b"".join(_line(each) for each in lines))
    told = [step.payload for step in steps if isinstance(step, Emit)]
    assert [(each.text, each.final) for each in told if isinstance(each, MessageCompleted)] == [("done", True)]
    assert conversation.ended(0) == Outcome(AttemptOutcome.SUCCESS, result="done")


def test_the_last_message_of_codex_answers_whatever_follows_it() -> None:
    conversation = PassedThrough("codex", (), ExecReader())
    said = {"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": "done"}}
    ran = {"type": "item.completed", "item": {"id": "item_1", "type": "command_execution", "status": "completed"}}
    conversation.feed(STDOUT, b"".join(_line(each) for each in (said, ran, {"type": "turn.completed"})))
    assert conversation.ended(0) == Outcome(AttemptOutcome.SUCCESS, result="done")


@pytest.mark.parametrize("item", [{"type": "todo_list", "items": 3}, {"type": "todo_list", "items": [3]},
                                  {"type": "command_execution", "exit_code": "?"}])  # fmt: skip
def test_an_odd_item_of_codex_stops_nothing(item: dict[str, Any]) -> None:
    conversation = PassedThrough("codex", (), ExecReader())
    conversation.feed(STDOUT, _line({"type": "item.completed", "item": item}) + stdout_of("codex-exec/exec-plain"))
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS


@pytest.mark.parametrize(
    "line", [b"plain text", b"{not json", b'{"type": 3}', b'{"type":"unheard.of"}', b"[]", b'{"type":"item.started"}']
)
def test_what_is_of_no_known_form_is_shown_and_stops_nothing(line: bytes) -> None:
    good = stdout_of("codex-exec/exec-plain")
    conversation = PassedThrough("codex", (), ExecReader())
    steps = conversation.feed(STDOUT, line + b"\n" + good)
    assert steps[0].payload.KIND in ("raw.stdout", "diagnostic")  # type: ignore[union-attr]
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS


def test_an_engine_of_no_known_form_is_judged_by_its_exit() -> None:
    conversation = PassedThrough("other", ())
    assert [step.payload.KIND for step in conversation.feed(STDOUT, b"hello\n") if isinstance(step, Emit)] == ["raw.stdout"]
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS
    assert conversation.ended(1).error_code is ErrorCode.ENGINE_EXIT_NONZERO


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
