"""The small pure parts: leash, limits, questions, endings, environment, and the guard's judgement of a heartbeat."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from executor import guard
from executor.adapters.base import Outcome
from executor.attempts.endings import ENDINGS, Cause, decided
from executor.attempts.leash import LEASH_MS, Leash, is_ours
from executor.attempts.limits import SECOND_LOOK_SECONDS, Limit, Limits
from executor.attempts.questions import Questions
from executor.engines.environment import credentials_for, engine_environment, refuse_reserved
from executor.guard import LEASH_OVERRUN_MS, SILENCE_SECONDS, START_SECONDS, WAKE_SECONDS, Pulse, Wishes, _Guard, _sweep_once
from executor.processes import procfs
from executor.state_dir import StateDir
from shared.clock import monotonic_ms
from shared.contracts.events import AttemptOutcome, Kind, Timeouts
from shared.contracts.interactions import InteractionType
from shared.contracts.provider_runs import LeashQuote
from shared.errors import RunyardError
from tests.service.executor.kit import suspend


def quote(clock_ms: int, instance: str = "i") -> LeashQuote:
    return LeashQuote(instance=instance, clock_ms=clock_ms)


def test_a_leash_counts_from_the_reading_it_quotes_and_not_from_its_arrival() -> None:
    leash = Leash.starting(quote(1_000), "i", 5_000)
    assert leash is not None
    assert not leash.has_lapsed(1_000 + LEASH_MS - 1)
    assert leash.has_lapsed(1_000 + LEASH_MS)


@pytest.mark.parametrize("bad", [quote(1_000, "another"), quote(5_001), quote(5_000 - LEASH_MS)])
def test_a_start_with_a_reading_that_is_not_ours_or_too_old_is_refused(bad: LeashQuote) -> None:
    assert Leash.starting(bad, "i", 5_000) is None


def test_a_delayed_renewal_never_shortens_a_leash() -> None:
    leash = Leash(20_000)
    leash.renew(quote(1_000))
    assert leash.until_ms == 20_000
    assert not is_ours(quote(10, "j"), "i", 100)
    assert not is_ours(quote(101), "i", 100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waiting_for_a_person_counts_for_neither_timeout() -> None:
    clock = Clock()
    limits = Limits(Timeouts(run_ms=10_000, idle_ms=4_000), clock)
    clock.now = 3
    limits.pause()
    clock.now = 103
    assert (limits.run_left(), limits.idle_left(), limits.is_paused) == (7, 1, True)
    limits.resume()
    assert (limits.run_left(), limits.idle_left()) == (7, 4)
    clock.now = 105
    limits.heard()
    clock.now = 106
    assert (limits.run_left(), limits.idle_left(), limits.active_seconds()) == (4, 3, 6)


def test_a_reply_is_taken_once_and_another_one_never() -> None:
    questions = Questions()
    assert questions.ask("q", InteractionType.QUESTION)
    assert not questions.ask("q", InteractionType.QUESTION)
    assert not questions.is_repeat("q", {"answer": "a"})
    questions.answered("q", {"answer": "a"})
    assert questions.close("q")
    assert not questions.close("q")
    assert questions.is_repeat("q", {"answer": "a"})
    for refused in (("q", {"answer": "b"}), ("other", {"answer": "a"})):
        with pytest.raises(RunyardError, match="conflict"):
            questions.is_repeat(*refused)


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_an_ending_and_an_engines_success_stands_above_it(cause: Cause) -> None:
    success = Outcome(AttemptOutcome.SUCCESS, result="r")
    crashed = Outcome(AttemptOutcome.ERROR)
    assert decided(cause, "", success) is success
    ended = decided(cause, "why", crashed)
    assert (ended.outcome, ended.error_code, ended.error_message) == (ENDINGS[cause].outcome, ENDINGS[cause].code, "why")
    assert decided(None, "", crashed) is crashed


def test_an_engine_gets_an_explicit_environment() -> None:
    own = {"PATH": "/bin", "TZ": "UTC", "RUNYARD_SERVICE_TOKEN": "t", "KEY": "own", "OTHER": "x"}
    credentials = credentials_for(("KEY", "UNSET"), own, {"EXTRA": "e", "EMPTY": ""})
    assert credentials == {"KEY": "own", "EXTRA": "e"}
    assert credentials_for(("KEY",), own, {"KEY": "given"}) == {"KEY": "given"}
    env = engine_environment(
        own, {"HOME": "/h", "TMPDIR": "/t"}, {"A": "asked", "B": "asked"}, {"B": "adapter"}, credentials, {"M": "m"}
    )
    assert env == {
        "PATH": "/bin", "TZ": "UTC", "LANG": "C.UTF-8", "TERM": "dumb", "HOME": "/h", "TMPDIR": "/t", "A": "asked",
        "B": "adapter", "KEY": "own", "EXTRA": "e", "M": "m",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["HOME", "TMPDIR", "RUNYARD_RUN", "KEY", "", "A=B", "A\0", "LD_PRELOAD", "LD_LIBRARY_PATH"])
def test_a_request_cannot_set_what_is_ours_or_a_credential(name: str) -> None:
    with pytest.raises(RunyardError):
        refuse_reserved({name: "x"}, {"KEY"})


@pytest.fixture
def pulse(tmp_path: Path) -> Pulse:
    return Pulse(StateDir.at(tmp_path))


def beat(pulse: Pulse, clock_ms: int, leash_until_ms: int = 0) -> None:
    pulse.state.heartbeat.write_bytes(b"%-20d %-20d\n" % (clock_ms, leash_until_ms))


def test_an_executor_that_changes_its_heartbeat_is_alive(pulse: Pulse) -> None:
    for n in range(100):
        beat(pulse, n)
        assert pulse.look(WAKE_SECONDS) is None


def test_silence_is_counted_over_the_guards_own_wake_ups(pulse: Pulse) -> None:
    beat(pulse, 1)
    pulse.look(WAKE_SECONDS)
    assert pulse.look(3600) is None, "an hour in which the guard itself did not run"
    looks = 0
    while pulse.look(WAKE_SECONDS) is None:
        looks += 1
    assert (SILENCE_SECONDS - 1) / WAKE_SECONDS < looks < (SILENCE_SECONDS + 1) / WAKE_SECONDS


def test_an_executor_has_longer_for_its_first_heartbeat(pulse: Pulse) -> None:
    looks = 0
    while pulse.look(WAKE_SECONDS) is None:
        looks += 1
    assert looks >= START_SECONDS / WAKE_SECONDS - 1


def test_a_leash_that_passed_without_an_act_is_the_executors_end(pulse: Pulse) -> None:
    now_ms = monotonic_ms()
    beat(pulse, 1, now_ms - LEASH_OVERRUN_MS + 60_000)
    assert pulse.look(WAKE_SECONDS) is None
    beat(pulse, 2, now_ms - LEASH_OVERRUN_MS - 1)
    assert pulse.look(WAKE_SECONDS) == "the executor let a leash pass"


def test_a_leash_passes_while_the_machine_is_suspended(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other clocks stand still meanwhile."""
    beat(pulse, 1, monotonic_ms() + 12_000)
    assert pulse.look(WAKE_SECONDS) is None
    suspend(monkeypatch, 60)
    assert pulse.look(WAKE_SECONDS) == "the executor let a leash pass"


@pytest.mark.parametrize("junk", [b"", b"x", b"1", b"1 y\n"])
def test_a_heartbeat_nobody_can_read_says_nothing(pulse: Pulse, junk: bytes) -> None:
    pulse.state.heartbeat.write_bytes(junk)
    assert pulse.look(WAKE_SECONDS) is None
    assert pulse.leash_until_ms == 0


def test_a_sweep_that_could_not_look_found_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(procfs, "snapshot", none_left)
    assert not _sweep_once(StateDir.at(tmp_path), [])


WORDLESS = Timeouts(run_ms=60_000, idle_ms=20_000, first_event_ms=5_000)


def test_an_engine_that_prints_without_telling_anything_passes_the_limit_of_the_first_event() -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    for kind in (Kind.RAW_STDOUT, Kind.RAW_STDERR, Kind.DIAGNOSTIC):
        limits.heard()
        limits.told(kind)
    clock.now = 4.9
    assert limits.passed(unread=False, stuck_seconds=0) is None
    clock.now = 5
    assert limits.passed(unread=False, stuck_seconds=0) is Limit.FIRST_EVENT


def test_one_event_ends_the_limit_of_the_first() -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    limits.told(Kind.SESSION_STARTED)
    clock.now = 19.9
    assert (limits.first_left(), limits.passed(unread=False, stuck_seconds=0)) == (None, None)
    clock.now = 20
    assert limits.passed(unread=False, stuck_seconds=0) is Limit.IDLE


def test_what_stands_unread_at_the_deadline_is_read_first_but_only_once() -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    clock.now = 15  # the timer fires late
    assert limits.passed(unread=True, stuck_seconds=0) is None
    assert limits.first_left() == SECOND_LOOK_SECONDS
    clock.now = 16
    assert limits.passed(unread=True, stuck_seconds=0) is Limit.FIRST_EVENT


def test_unread_bytes_are_no_silence() -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    limits.told(Kind.MESSAGE_DELTA)
    clock.now = 30
    assert limits.passed(unread=True, stuck_seconds=0) is None
    assert limits.idle_left() == 20


@pytest.mark.parametrize(
    ("seconds", "stuck", "limit"), [(60, 60, Limit.RUN), (30, 20, Limit.INPUT), (30, 19.9, Limit.FIRST_EVENT), (4, 0, None)]
)
def test_of_several_limits_the_widest_one_is_named(seconds: float, stuck: float, limit: Limit | None) -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    clock.now = seconds
    assert limits.passed(unread=False, stuck_seconds=stuck) is limit


def test_the_next_look_is_at_the_nearest_limit_and_never_later_than_asked() -> None:
    clock = Clock()
    limits = Limits(WORDLESS, clock)
    assert limits.next_check(1) == 1
    clock.now = 4.5
    assert limits.next_check(1) == 0.5
    clock.now = 9
    assert limits.next_check(1) == 0
    limits.told(Kind.MESSAGE_DELTA)
    clock.now = 19.75
    assert limits.next_check(1) == 0.25
    clock.now = 58.5
    limits.heard()
    assert limits.next_check(9) == 1.5


@pytest.fixture
def starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Guard:
    """A guard about to start an executor that ends at once."""
    monkeypatch.setattr(sys, "executable", "/bin/true")
    return _Guard(StateDir.at(tmp_path), Wishes(wakeup=0))


def test_a_guard_on_a_full_disk_keeps_the_executor_it_started(starting: _Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(guard, "write_whole", full)
    starting.state.pid.write_text("1")
    assert starting._start().wait(20) == 0
    assert not starting.state.pid.exists(), "that of an earlier life"


def test_the_heartbeat_of_an_earlier_life_says_nothing_and_its_place_on_the_disk_is_kept(starting: _Guard) -> None:
    pulse = Pulse(starting.state)
    beat(pulse, 1, 1)
    place = pulse.state.heartbeat.stat().st_ino
    starting._blank_heartbeat()
    assert pulse.look(WAKE_SECONDS) is None, "its leash passed long ago"
    assert pulse.last == b""
    assert pulse.state.heartbeat.stat().st_ino == place
    beat(pulse, 2)
    assert pulse.look(WAKE_SECONDS) is None
    assert pulse.last
