"""The guard: a small process beside each executor, so that no engine outlives it, whatever happens to it.

It starts the executor, forwards the wish to stop (SIGTERM: when its work is done; SIGINT, or a second SIGTERM: now), and ends
everything below it when the executor is gone, hangs, or lets a leash pass. It then ends itself, so that whoever supervises it
starts both anew. Standard library only: it must stay small enough to have no reason to fail. It never reads a journal and never
speaks a protocol.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from executor.processes import procfs
from executor.state_dir import GUARD_PID, INSTANCE, MARK, STATE_DIR, StateDir, write_whole
from shared.clock import monotonic_ms
from shared.private_process import become_private

WAKE_SECONDS = 0.25
SILENCE_SECONDS = 6.0
START_SECONDS = 30.0
LEASH_OVERRUN_MS = 2_000
STOP_SECONDS = 4.0
SWEEP_SECONDS = 30.0
SEEN_EVERY_SECONDS = 1.0
HEARTBEAT_BYTES = 128

LOCKED_EXIT = 3
LEFTOVERS_EXIT = 4


def main() -> int:
    """The exit status: 0 after an asked-for stop, else what made it end. Never returns while a process of the executor lives."""
    parent = os.getppid()
    state = StateDir.at(os.environ.get(STATE_DIR))
    state.make()
    lock = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"another guard holds {state.lock}")
        return LOCKED_EXIT
    wishes = Wishes.listen()
    become_private()
    procfs.become_subreaper()
    procfs.signal_when_parent_dies(signal.SIGINT, parent)  # nobody would start it again: there is nothing to wait for
    if not sweep(state):
        _say("processes of an earlier life could not be ended")
        return LEFTOVERS_EXIT
    return _Guard(state, wishes).run()


def sweep(state: StateDir) -> bool:
    """End everything below this process, everything with the executor's mark, and what an earlier guard had below it.

    True once two scans in a row find nothing; False when something withstands SIGKILL for ``SWEEP_SECONDS``.
    """
    seen = _recall(state)
    deadline = time.monotonic() + SWEEP_SECONDS
    empty_scans = 0
    while empty_scans < 2:
        _reap_all()
        is_clean = _sweep_once(state, seen)
        empty_scans = empty_scans + 1 if is_clean else 0
        if not is_clean:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def _sweep_once(state: StateDir, seen: Iterable[tuple[int, int]]) -> bool:
    """Whether nothing was found. A system too short of everything to be looked at proves nothing."""
    try:
        left = _ours(procfs.snapshot(), state.mark, seen)
        for process in left:
            procfs.send(process, signal.SIGKILL)
    except OSError:
        return False
    return not left


def _ours(processes: procfs.Snapshot, mark: str, seen: Iterable[tuple[int, int]]) -> list[procfs.Process]:
    me = os.getpid()
    roots = {pid for pid in processes if pid != me and procfs.variable(pid, MARK) == mark}
    roots |= {pid for pid, start in seen if pid in processes and processes[pid].start == start}
    pids = roots | procfs.descendants(processes, {me, *roots})
    return [processes[pid] for pid in pids - {me} if processes[pid].is_alive]


def _recall(state: StateDir) -> list[tuple[int, int]]:
    """What the last guard of this boot saw; [] when there is nothing to read."""
    try:
        boot, *lines = state.seen.read_text().splitlines()
        return [(int(pid), int(start)) for pid, start in (line.split() for line in lines)] if boot == _boot_id() else []
    except (OSError, ValueError):
        return []


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return boot.read().strip()


def _reap_all() -> dict[int, int]:
    """Every child that has ended, with its exit status (negative: by that signal)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _say(text: str) -> None:
    sys.stderr.write(f'{{"service": "executor-guard", "pid": {os.getpid()}, "event": "{text}"}}\n')
    sys.stderr.flush()


@dataclass(slots=True)
class Wishes:
    """The signals that came, waited for with a bound."""

    wakeup: int
    stop: bool = False
    hurry: bool = False

    @classmethod
    def listen(cls) -> Wishes:
        """Replaces the handlers of SIGTERM, SIGINT and SIGCHLD; a started child does not inherit them."""
        wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        wishes = cls(wakeup)

        def stop(number: int, _frame: object) -> None:
            wishes.hurry = wishes.stop or number == signal.SIGINT
            wishes.stop = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        return wishes

    def wait(self, seconds: float) -> None:
        if select.select([self.wakeup], [], [], seconds)[0]:
            os.read(self.wakeup, 4096)


@dataclass(slots=True)
class Pulse:
    """The executor's heartbeat, judged by the guard's own wake-ups: a paused guard never takes its pause for silence."""

    state: StateDir
    last: bytes = b""
    silent_seconds: float = 0.0
    leash_until_ms: int = 0
    leaves_by_ms: int = 0  # 0: it was not asked to

    def look(self, elapsed: float) -> str | None:
        """Why the executor must be ended, or None. ``elapsed``: seconds since the last look."""
        beat = self._read()
        if beat and beat != self.last:
            self.last, self.silent_seconds = beat, 0.0
            self.leash_until_ms, self.leaves_by_ms = _number(beat, 1), _number(beat, 2)
        else:
            self.silent_seconds += min(elapsed, 2 * WAKE_SECONDS)
        if self.silent_seconds > (SILENCE_SECONDS if self.last else START_SECONDS):
            return f"the executor gave no heartbeat for {self.silent_seconds:.1f} s"
        if self.leash_until_ms and monotonic_ms() > self.leash_until_ms + LEASH_OVERRUN_MS:
            return "the executor let a leash pass"
        return None

    def _read(self) -> bytes:
        try:
            with open(self.state.heartbeat, "rb") as file:
                return file.read(HEARTBEAT_BYTES).strip()
        except OSError:
            return b""


def _number(beat: bytes, place: int) -> int:
    """Of a heartbeat, see ``executor.heartbeat``; a line we cannot read says nothing."""
    try:
        return int(beat.split()[place])
    except (IndexError, ValueError):
        return 0


@dataclass(slots=True)
class _Guard:
    state: StateDir
    wishes: Wishes
    _seen: frozenset[tuple[int, int]] = field(default_factory=frozenset[tuple[int, int]])

    def run(self) -> int:
        self._blank_heartbeat()
        child = self._start()
        pulse = Pulse(self.state)
        reason = self._watch(child, pulse, lambda: self.wishes.stop)
        if reason is None and child.returncode is not None:
            reason = f"the executor ended by itself with status {child.returncode}"
        elif reason is None:
            reason = self._drain(child, pulse) or self._stop(child)
        if reason:
            _say(reason)
        swept = sweep(self.state)
        self.state.pid.unlink(missing_ok=True)
        if not swept:
            return LEFTOVERS_EXIT
        return 1 if reason else 0

    def _blank_heartbeat(self) -> None:
        """That of an earlier life says nothing. Its place on the disk is kept: the next one needs no other."""
        try:
            with open(self.state.heartbeat, "r+b") as file:
                file.write(b" " * HEARTBEAT_BYTES)
        except OSError:
            self.state.heartbeat.unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[bytes]:
        """The executor, as a child with a session of its own. A new instance id exists only from here on: after the sweep."""
        marks = {MARK: self.state.mark, INSTANCE: f"inst_{secrets.token_hex(8)}", GUARD_PID: str(os.getpid())}
        child = subprocess.Popen(
            [sys.executable, "-m", "executor.server"],
            env={**os.environ, **marks, STATE_DIR: str(self.state.root)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.state.pid.unlink(missing_ok=True)  # that of an earlier life is another process by now
            write_whole(self.state.pid, str(child.pid))
        except OSError as error:  # who cannot be told lives all the same
            _say(f"cannot write the executor's pid: {error.strerror}")
        self._note_what_is_below()  # nobody but root finds a private process by its mark
        return child

    def _watch(self, child: subprocess.Popen[bytes], pulse: Pulse, is_over: Callable[[], bool]) -> str | None:
        """Until ``is_over`` or it has ended (None), or it gives a reason to be ended."""
        looked = noted = time.monotonic()
        while not is_over():
            self.wishes.wait(WAKE_SECONDS)
            if self._ended(child) is not None:
                return None
            now = time.monotonic()
            if (reason := pulse.look(now - looked)) is not None:
                return reason
            looked = now
            if now - noted >= SEEN_EVERY_SECONDS:
                noted = now
                self._note_what_is_below()
        return None

    def _drain(self, child: subprocess.Popen[bytes], pulse: Pulse) -> str | None:
        """Ask the executor to end when its work is done. None when it did, when somebody cannot wait for that, or when it takes
        longer than it said it would; else why it must be ended."""
        if self.wishes.hurry:
            return None
        child.send_signal(signal.SIGTERM)
        asked_ms = monotonic_ms()
        return self._watch(
            child, pulse, lambda: self.wishes.hurry or monotonic_ms() > max(asked_ms, pulse.leaves_by_ms) + STOP_SECONDS * 1000
        )

    def _stop(self, child: subprocess.Popen[bytes]) -> str:
        """Ask the executor to end now: "" when it does so in time, else what went wrong."""
        child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if self._ended(child) is not None:
                return ""
            self.wishes.wait(min(left, WAKE_SECONDS))
        _say(f"the executor did not end within {STOP_SECONDS} s")
        return ""

    def _ended(self, child: subprocess.Popen[bytes]) -> int | None:
        """Its exit status once it has ended; collects whatever else was re-parented to us and has ended."""
        ended = _reap_all()
        if child.pid in ended:
            child.returncode = ended[child.pid]
        return child.returncode

    def _note_what_is_below(self) -> None:
        """For the guard after us: were we killed, this finds also what has shed its mark. Losing the note loses only that."""
        try:
            processes = procfs.snapshot()
            below = frozenset(processes[pid].key for pid in procfs.descendants(processes, {os.getpid()}))
            if below == self._seen:
                return
            lines = [_boot_id(), *(f"{pid} {start}" for pid, start in sorted(below))]
            write_whole(self.state.seen, "\n".join(lines))
        except OSError as error:
            _say(f"cannot note the processes below: {error.strerror}")
            return
        self._seen = below
