"""The judges of soak and crowd notice what they are for: each fault is planted here."""

from __future__ import annotations

from typing import Any

import pytest

from shared.sse import Frame
from tests.chaos.soak.crowd import faults_of
from tests.chaos.soak.figures import Figures, Latencies
from tests.chaos.soak.judge import Sample, Window, memory_table, not_flat, peaks, percentiles, windows
from tests.chaos.soak.usage import Use
from tests.chaos.storm.clients import TICKING, Followed


def use(rss: float) -> Use:
    return Use(rss, rss, rss, 10, 1, 1, 0.0)


def grown(*rss: float) -> list[Sample]:
    """One sample a run."""
    return [Sample(number, {"control-plane": use(each)}) for number, each in enumerate(rss)]


EARLY, LATE = Window(0, 3), Window(3, 6)


@pytest.mark.parametrize(("late", "is_flat"), [(119, True), (121, False), (81, True), (79, False)])
def test_flat_is_the_same_within_a_fifth_up_and_down(late: float, is_flat: bool) -> None:
    found = not_flat(grown(100, 100, 100, late, late, late), EARLY, LATE, ["control-plane"])
    assert found == ([] if is_flat else [f"control-plane went from 100.0 to {late:.1f} MiB"])


def test_a_moment_makes_no_window_and_a_service_nobody_looked_at_is_not_flat() -> None:
    assert not_flat(grown(100, 100, 900, 100, 900, 100), EARLY, LATE, ["control-plane"]) == []
    assert not_flat(grown(100), EARLY, LATE, ["control-plane"]) == ["control-plane was not sampled"]


def test_windows_lie_behind_the_warm_up_and_at_the_end_and_never_overlap() -> None:
    assert windows(10_000, 1_000, 1_000) == (Window(1_000, 2_000), Window(9_000, 10_001))
    with pytest.raises(ValueError, match="too few"):
        windows(2_999, 1_000, 1_000)


def test_the_table_tells_what_a_run_added() -> None:
    told = memory_table(grown(100, 100, 100, 103, 103, 103), EARLY, LATE)
    assert "| control-plane | 100 → 103 (+3.0%) |" in told
    assert told.endswith("| +1024.00 |")


def test_a_peak_is_the_most_of_every_figure() -> None:
    samples = [Sample(0, {"a": Use(9, 1, 1, 2, 1, 1, 0.0)}), Sample(0, {"a": Use(1, 1, 1, 7, 1, 1, 0.0)})]
    assert peaks(samples)["a"] == Use(9, 1, 1, 7, 1, 1, 0.0)


def test_percentiles_end_with_the_worst() -> None:
    assert percentiles(list(range(1, 101))) == "51 / 96 / 100 / 100"
    assert percentiles([]) == "–"


def followed(status: str = "success") -> Followed:
    return Followed("run_1", TICKING, 1, [Frame(b"1", b"run.status", b'{"data":{"status":"%b"}}' % status.encode())], [0.0])


def test_a_run_of_the_crowd_ends_well_in_its_first_attempt() -> None:
    events: list[dict[str, Any]] = [
        {"kind": "attempt.started", "data": {}}, {"kind": "message.completed", "data": {"text": "tick 1"}},
    ]  # fmt: skip
    assert faults_of(followed(), events) == []
    assert faults_of(followed("error"), events) == ["run_1 ended as error"]
    assert faults_of(followed(), [*events, events[0]]) == ["run_1 had 2 attempts"]


def test_a_crowd_that_was_never_all_there_is_none() -> None:
    figures = Figures([], 999, Latencies([], [], []), {}, [], {}, {})
    assert figures.faults(1_000) == ["at most 999 runs lived at once, not 1000"]
    assert figures.faults(999) == []
    assert "at most 999 runs" in figures.told()
