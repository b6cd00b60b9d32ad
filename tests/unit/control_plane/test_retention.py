from __future__ import annotations

import pytest

from control_plane.domain.retention import DAY_SECONDS, Keep
from shared.contracts.apps import Retention


def ages(keep: Keep) -> list[float | None]:
    return [each and each / DAY_SECONDS for each in (keep.output_seconds, keep.events_seconds, keep.runs_seconds)]


def test_by_default_everything_is_kept_for_ever() -> None:
    assert ages(Keep()) == [None, None, None]
    assert not Keep().lets_go


@pytest.mark.parametrize(("keep", "expected"), [
    (Keep(output_days=1), [1, None, None]),
    (Keep(events_days=2), [2, 2, None]),
    (Keep(runs_days=3), [3, 3, 3]),
    (Keep(output_days=1, events_days=2, runs_days=3), [1, 2, 3]),
    (Keep(output_days=9, events_days=5, runs_days=3), [3, 3, 3]),
])  # fmt: skip
def test_nothing_outlives_what_it_belongs_to(keep: Keep, expected: list[float | None]) -> None:
    assert ages(keep) == expected
    assert keep.lets_go


def test_a_bound_on_bytes_alone_lets_things_go() -> None:
    assert Keep(bytes=1).lets_go


def test_an_app_replaces_what_it_names_and_zero_is_for_ever() -> None:
    keep = Keep(output_days=1, events_days=2, runs_days=3, bytes=4)
    assert keep.of(Retention()) == keep
    assert keep.of(Retention(runs_days=0, max_bytes=9)) == Keep(output_days=1, events_days=2, runs_days=0, bytes=9)
