"""The one table of engine modes: every mode for every engine, and no engine freer in a stricter mode."""

from __future__ import annotations

from itertools import pairwise

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.engine_modes import MODES, Row, Unasked, told
from executor.adapters.gemini.adapter import PROFILE as GEMINI
from executor.adapters.iflow import PROFILE as IFLOW
from executor.adapters.opencode.adapter import PROFILE as OPENCODE
from executor.adapters.qwen.adapter import PROFILE as QWEN
from shared.contracts.providers import EngineMode, Provider

STRICTEST_FIRST = (EngineMode.PLAN, EngineMode.READ_ONLY, EngineMode.ASK, EngineMode.AUTO_EDIT, EngineMode.FULL)
CODEX = ("read-only", "workspace-write", "danger-full-access")
ACP = ("plan", "default", "auto", "yolo")


def test_every_mode_has_a_row_and_every_provider_a_word() -> None:
    assert set(MODES) == set(EngineMode) == set(STRICTEST_FIRST)
    assert all(told(provider, mode) for provider in Provider for mode in EngineMode)
    assert set(ADAPTERS) == set(Provider)


def rank_of(row: Row) -> list[int]:
    """How far each engine may go, by its own words."""
    acp = [next(at for at, word in enumerate(ACP) if each.startswith(word)) for each in (row.gemini, row.iflow, row.qwen)]
    return [
        [Unasked.DENIED, Unasked.PERSON, Unasked.ALLOWED].index(row.asked),
        CODEX.index(row.codex.sandbox),
        ("plan", "default", "acceptEdits").index(row.claude),
        ("deny", "ask", "allow").index(row.opencode.others) + (row.opencode.edit == "allow"),
        *acp,
    ]


def test_no_engine_is_freer_in_a_stricter_mode() -> None:
    ranks = [rank_of(MODES[mode]) for mode in STRICTEST_FIRST]
    for stricter, freer in pairwise(ranks):
        assert all(one <= other for one, other in zip(stricter, freer, strict=True)), (stricter, freer)


@pytest.mark.parametrize("mode", list(EngineMode))
def test_what_is_never_asked_about_can_change_nothing_where_everything_is_denied(mode: EngineMode) -> None:
    row = MODES[mode]
    if row.asked is Unasked.DENIED:
        assert (row.codex.sandbox, row.codex.approval_policy, row.opencode.others) == ("read-only", "never", "deny")
        assert row.claude != "acceptEdits"
        assert {row.gemini, row.iflow, row.qwen} == {"plan"}


def test_the_profiles_take_their_column() -> None:
    for profile, column in ((GEMINI, "gemini"), (IFLOW, "iflow"), (QWEN, "qwen")):
        assert profile.modes == {mode: getattr(row, column) for mode, row in MODES.items()}
    assert OPENCODE.modes == {mode: row.opencode.agent for mode, row in MODES.items()}
