"""The check after every case finds what it is there to find."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.contracts.providers import Provider
from tests.conformance import invariants
from tests.conformance.engines import ENGINES
from tests.conformance.ground import KEYS, OF_THE_SERVICE, Attempt, Ground
from tests.conformance.seen import Seen
from tests.conformance.suite import ALL_CASES, judge
from tests.e2e.kit import soon

CODEX = ENGINES[Provider.CODEX_APP_SERVER]
NOBODY: Any = None


def attempt_with(environment: bytes) -> Attempt:
    ground = Ground(CODEX, NOBODY, NOBODY)
    return Attempt(ground, "run-of-this-test", [environment])


@pytest.mark.parametrize("secret", [*KEYS.values(), *OF_THE_SERVICE.values()])
def test_a_secret_in_anything_shown_is_found(secret: str) -> None:
    with pytest.raises(AssertionError, match="stands in an event"):
        invariants.no_secret_in("an event", b'{"text":"' + secret.encode() + b'"}')


@pytest.mark.parametrize("name", ["RUNYARD_SERVICE_TOKEN", "DATABASE_URL", "ANTHROPIC_API_KEY"])
def test_a_secret_in_an_engines_environment_is_found(name: str) -> None:
    secret = {**OF_THE_SERVICE, **KEYS}[name]
    with pytest.raises(AssertionError, match=f"was given {name}"):
        invariants._no_secret_of_others(attempt_with(b"HOME=/h\0X=" + secret.encode()))


def test_an_engines_own_key_is_none_of_others() -> None:
    invariants._no_secret_of_others(attempt_with(b"OPENAI_API_KEY=" + KEYS["OPENAI_API_KEY"].encode()))


async def test_a_process_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "GONE_SECONDS", 0.1)
    attempt = attempt_with(b"")
    monkeypatch.setattr(attempt, "ended", _nothing)
    monkeypatch.setattr(attempt, "show", _nothing)
    attempt.ground.attempts.append(attempt)
    with _left(attempt.run_id):
        assert soon(lambda: bool(attempt.pids))
        with pytest.raises(AssertionError, match="run-of-this-test left"):
            await invariants.check(attempt.ground)


@contextmanager
def _left(run_id: str) -> Generator[None]:
    process = subprocess.Popen(["sleep", "60"], env={"RUNYARD_RUN": f"{run_id}.1", "PATH": "/usr/bin:/bin"})
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _nothing() -> Any:
    return None


@pytest.mark.parametrize(
    ("case", "seen"),
    [
        ("plain", Seen([], "error", "auth_failed", "no", None, None)),
        ("plain", Seen([("message.completed", {"text": "a", "final": False})], "success", None, None, "a", None)),
        ("fails: 401", Seen([], "error", "internal", "no", None, None)),
        ("fails: 401", Seen([("message.completed", {"text": "no", "final": True})], "error", "auth_failed", "no", "no", None)),
        ("interrupt", Seen([], "success", None, None, None, None)),
        (
            "tool",
            Seen([("tool.completed", {"toolId": "t", "name": "x", "status": "completed"})], "success", None, None, "a", None),
        ),
    ],
)
def test_what_no_engine_may_show_is_not_let_through(case: str, seen: Seen) -> None:
    with pytest.raises(AssertionError):
        judge(ALL_CASES[case], seen, CODEX)
