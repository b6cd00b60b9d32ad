"""What a conversation costs against the engine's one-shot mode: ``python -m tests.engines.one_shot_costs [ENGINE…] [--runs N]``.

Each engine answers one prompt from the model stub, in turns: as a run drives it, and in its one-shot mode, with the same files
and environment. Measured: from launch to the final answer; the processor time of everything it started; its largest
proportional set size. Prints a table of medians. No test: run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from executor.adapters import ADAPTERS
from executor.adapters.base import CloseInput, Conversation, Emit, StartRequest, Step
from executor.adapters.forms import FORMS
from executor.adapters.passed_through import PassedThrough
from executor.processes import procfs
from shared.contracts.events import AttemptOutcome, MessageCompleted, MessageDelta
from shared.contracts.providers import Provider
from shared.engine_programs import executable_of
from tests.engines.drive import Driven, driven, request_for
from tests.model_stub.server import ModelStub, serving

ENGINES = Path(__file__).parents[2] / "engines"
PROMPT = "say it [[text]]"
KEY = "sk-only-for-the-stub"
LOOK_SECONDS = 0.1
END_SECONDS = 55.0
ONLY_IN_A_CONVERSATION = {"QWEN_DEBUG_LOG_FILE", "OPENCODE_SERVER_PASSWORD", "OPENCODE_ENABLE_QUESTION_TOOL"}


@dataclass(frozen=True)
class Engine:
    """``one_shot``: the arguments of its one-shot mode, given the model's address."""

    provider: Provider
    key: str
    model: str
    one_shot: Callable[[str], tuple[str, ...]]


ROWS = {
    "codex": Engine(
        Provider.CODEX_APP_SERVER, "OPENAI_API_KEY", "gpt-5.5",
        lambda _: ("exec", "--json", "--skip-git-repo-check", "--model", "gpt-5.5", PROMPT),
    ),
    "claude": Engine(
        Provider.CLAUDE_CODE, "ANTHROPIC_API_KEY", "claude-sonnet-4-5",
        lambda _: ("--print", "--output-format", "stream-json", "--verbose", "--model", "claude-sonnet-4-5", PROMPT),
    ),
    "gemini": Engine(
        Provider.GEMINI_CLI, "GEMINI_API_KEY", "gemini-2.5-flash",
        lambda _: ("-m", "gemini-2.5-flash", "--output-format", "stream-json", "--prompt", PROMPT),
    ),
    "opencode": Engine(Provider.OPENCODE, "OPENAI_API_KEY", "stub", lambda _: ("run", "--format", "json", PROMPT)),
    "qwen": Engine(
        Provider.QWEN_CODE, "OPENAI_API_KEY", "stub",
        lambda url: ("--openai-base-url", url, "--output-format", "stream-json", "--prompt", PROMPT),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    answer_seconds: float
    cpu_seconds: float
    peak_mib: float


class InOneShot(PassedThrough):
    def opened(self) -> list[Step]:
        return [CloseInput()]


class Unhurried(Driven):
    """One-shot modes are told at once that no input comes, and work on. ``said_at``: when the last text came (monotonic).

    Not when the answer was known to be final: OpenCode's one-shot mode says that by its end only.
    """

    said_at = 0.0

    async def do(self, steps: list[Step]) -> None:
        told = [step.payload for step in steps if isinstance(step, Emit)]
        pieces = [each for each in told if isinstance(each, MessageDelta)]
        if pieces or (not self.payloads(MessageDelta) and any(isinstance(each, MessageCompleted) for each in told)):
            self.said_at = time.monotonic()
        await super().do(steps)

    def _close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        asyncio.get_running_loop().call_later(END_SECONDS, self._end)


def conversation_of(engine: Engine, request: StartRequest, url: str, in_one_shot: bool) -> Conversation:
    real = ADAPTERS[engine.provider].start(request)
    if not in_one_shot:
        return real
    reader = FORMS[engine.provider].reader
    one = InOneShot(request.executable, engine.one_shot(url), reader() if reader else None)
    env = {name: value for name, value in real.command.env.items() if name not in ONLY_IN_A_CONVERSATION}
    one.command = replace(one.command, env=env, files=real.command.files)
    return one


async def measured(engine: Engine, stub: ModelStub, in_one_shot: bool) -> Cost:
    executable = executable_of(ADAPTERS[engine.provider].install, ENGINES)
    assert executable is not None, f"{engine.provider} is not installed"
    with tempfile.TemporaryDirectory(prefix="runyard-costs-", dir=Path.cwd(), ignore_cleanup_errors=True) as home:
        fields: dict[str, Any] = {
            "model": engine.model, "provider_options": {"baseUrl": stub.base_url}, "credential_env": {engine.key: KEY},
        }  # fmt: skip
        request = request_for(Path(home), PROMPT, executable, **fields)
        before, began = _children_cpu(), time.monotonic()
        async with driven(conversation_of(engine, request, stub.base_url, in_one_shot), request, kind=Unhurried) as running:
            peak = Peak(running.pid)
            watching = asyncio.create_task(peak.watch())
            outcome = await running.outcome()
            assert outcome.outcome is AttemptOutcome.SUCCESS, outcome
            answered = running.said_at - began
            watching.cancel()
        _end_what_is_left()
        return Cost(answered, _children_cpu() - before, peak.mib)


class Peak:
    """The largest sum over a process and all below it; what several share is counted once between them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.mib = 0.0

    async def watch(self) -> None:
        while True:
            pids = {self._pid, *procfs.descendants(procfs.snapshot(), {self._pid})}
            self.mib = max(self.mib, sum(_pss_mib(pid) for pid in pids))
            await asyncio.sleep(LOOK_SECONDS)  # a sample every so often is what this is


def _pss_mib(pid: int) -> float:
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next((int(line.split()[1]) / 1024 for line in rollup if line.startswith("Pss:")), 0.0)
    return 0.0


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_what_is_left() -> None:
    while left := procfs.descendants(procfs.snapshot(), {os.getpid()}):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            procfs.reap(pid)
        time.sleep(LOOK_SECONDS)  # polling a condition


def _row(name: str, costs: list[Cost], one_shot: list[Cost]) -> str:
    cells: list[str] = []
    for of in (lambda c: c.answer_seconds, lambda c: c.cpu_seconds, lambda c: c.peak_mib):  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType, reportUnknownVariableType]
        ours, theirs = (statistics.median(of(each) for each in group) for group in (costs, one_shot))
        digits = 0 if ours > 50 else 2
        cells.append(f"{ours:.{digits}f} → {theirs:.{digits}f} ({theirs / ours - 1:+.0%})")
    return f"| {name} | {' | '.join(cells)} |"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", nargs="*", default=list(ROWS), metavar="ENGINE")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    procfs.become_subreaper()
    _say("| engine | launch to answer, s | processor, s | peak memory, MiB |\n| --- | --- | --- | --- |")
    async with serving() as stub:
        for name in asked.engines:
            await measured(ROWS[name], stub, in_one_shot=True)  # the first start of all reads the program from the disk
            pairs = [(await measured(ROWS[name], stub, False), await measured(ROWS[name], stub, True)) for _ in range(asked.runs)]
            _say(_row(name, [ours for ours, _ in pairs], [theirs for _, theirs in pairs]))


if __name__ == "__main__":
    asyncio.run(main())
