"""The harness's readers over recorded output: whole, in any split, and with the outcome the engine told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.base import STDERR, STDOUT, Emit, Outcome
from executor.adapters.codex_exec import ExecReader
from executor.adapters.passed_through import PassedThrough
from shared.contracts.events import AttemptOutcome
from shared.errors import ErrorCode

RECORDINGS = Path(__file__).parents[1] / "recordings" / "codex-exec"
CASES = sorted(path.name for path in RECORDINGS.iterdir())
ENDS = {
    "exec-empty": (AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT),
    "fail-401": (AttemptOutcome.ERROR, ErrorCode.AUTH_FAILED),
}


def read(case: str, chunks: Sequence[bytes]) -> tuple[list[Any], Outcome]:
    conversation = PassedThrough("codex", ("exec",), ExecReader())
    steps = [step for chunk in chunks for step in conversation.feed(STDOUT, chunk)]
    steps += conversation.feed(STDERR, (RECORDINGS / case / "stderr.txt").read_bytes())
    steps += [*conversation.end_of(STDOUT), *conversation.end_of(STDERR)]
    exit_code = int((RECORDINGS / case / "exit.txt").read_text().split()[0].removeprefix("exit_code="))
    told = [(step.payload, step.byte_from, step.byte_to) for step in steps if isinstance(step, Emit)]
    return told, conversation.ended(exit_code)


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_process_ends_as_it_said(case: str) -> None:
    told, outcome = read(case, [(RECORDINGS / case / "stdout.jsonl").read_bytes()])
    assert (outcome.outcome, outcome.error_code) == ENDS.get(case, (AttemptOutcome.SUCCESS, None))
    finals = [payload.text for payload, _, _ in told if payload.KIND == "message.completed" and payload.final]
    assert finals == ([outcome.result] if outcome.outcome is AttemptOutcome.SUCCESS else [])
    assert told[0][0].KIND == "session.started"
    assert not [payload for payload, _, _ in told if payload.KIND == "raw.stdout"]


@pytest.mark.parametrize("case", CASES)
def test_no_split_changes_what_is_read(case: str) -> None:
    stdout = (RECORDINGS / case / "stdout.jsonl").read_bytes()
    whole = read(case, [stdout])
    for cut in range(0, len(stdout), 7):
        assert read(case, [stdout[:cut], stdout[cut:]]) == whole


def test_tools_edits_and_retries_of_codex_are_events() -> None:
    kinds = {case: [payload.KIND.value for payload, _, _ in read(case, [(RECORDINGS / case / "stdout.jsonl").read_bytes()])[0]]
             for case in ("exec-tool", "exec-edit", "fail-401")}  # fmt: skip
    assert kinds["exec-tool"][1:5] == ["message.completed", "tool.started", "tool.completed", "message.completed"]
    assert kinds["exec-edit"][2:4] == ["tool.started", "tool.completed"]
    assert kinds["fail-401"].count("retry.scheduled") == 5


@pytest.mark.parametrize(
    "line", [b"plain text", b"{not json", b'{"type": 3}', b'{"type":"unheard.of"}', b"[]", b'{"type":"item.started"}']
)
def test_what_is_of_no_known_form_is_shown_and_stops_nothing(line: bytes) -> None:
    good = (RECORDINGS / "exec-plain" / "stdout.jsonl").read_bytes()
    conversation = PassedThrough("codex", (), ExecReader())
    steps = conversation.feed(STDOUT, line + b"\n" + good)
    assert steps[0].payload.KIND in ("raw.stdout", "diagnostic")  # type: ignore[union-attr]
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS


def test_an_engine_of_no_known_form_is_judged_by_its_exit() -> None:
    conversation = PassedThrough("other", ())
    assert [step.payload.KIND for step in conversation.feed(STDOUT, b"hello\n") if isinstance(step, Emit)] == ["raw.stdout"]
    assert conversation.ended(0).outcome is AttemptOutcome.SUCCESS
    assert conversation.ended(1).error_code is ErrorCode.ENGINE_EXIT_NONZERO
