"""One child process and its three pipes, on the event loop. It knows nothing of engines, trees or journals.

The exit is noticed by pidfd, never by a pending wait: a grandchild that holds a pipe delays nothing. The process stays
unreaped until ``close``, so that its pid, process group and session cannot be used again while the tree below it is ended.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import select
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor.adapters.base import STDERR, STDOUT, Stream
from executor.processes.cgroups import Cgroup

READ_BYTES = 64 * 1024
LEAST_READ_BYTES = 2 * 1024
LONG_TURN_SECONDS = 0.01
DRAIN_SECONDS = 0.5
LONGEST_DRAIN_SECONDS = 5.0
ENGINE_NICE = 10
_NICEST = 19
_SHELL_SIGNALS = 128
MAX_UNREAD_INPUT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started, where, with which whole environment. ``is_wrapped``: ``argv`` runs a wrapper that runs the engine.

    ``cgroup``: made before it starts, and what ``argv`` enters first of all. ``makes_way``: to our own work, which this is not.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    is_wrapped: bool = False
    cgroup: Cgroup | None = None
    makes_way: bool = True


def launch(what: Launch) -> subprocess.Popen[bytes]:
    """Start it, in a session of its own; what makes way has less claim to the processor than we. Raises ``OSError``.

    May run in a thread.
    """
    popen = subprocess.Popen(
        what.argv, env=what.env, cwd=what.cwd, start_new_session=True, close_fds=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    if what.makes_way:
        _make_way(popen.pid)
    return popen


def _make_way(session: int) -> None:
    """However much the engines of a full machine compute, whoever renews their leashes and carries their events comes first.

    Where sessions share the machine and not processes (autogroups), what counts is the session's own nice value. From whoever may
    not administer the machine the kernel takes one such value in 100 ms, of all its sessions: the others keep the usual one.
    """
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + ENGINE_NICE, _NICEST)
    with contextlib.suppress(OSError):  # ended already, or not allowed: it runs as anything else does
        os.setpriority(os.PRIO_PGRP, session, nice)
    with contextlib.suppress(OSError):  # that, or there are no autogroups
        Path(f"/proc/{session}/autogroup").write_text(str(nice))


class Listener(Protocol):
    """What a process tells its owner, always on the event loop."""

    def on_bytes(self, stream: Stream, chunk: bytes) -> None: ...

    def on_change(self) -> None:
        """It exited, or a stream ended."""
        ...


class InputFullError(Exception):
    """The process takes no input, and more than ``MAX_UNREAD_INPUT_BYTES`` wait for it."""


class EngineProcess:
    """A process that ``launch`` started. Made on the event loop; ``close`` it after its exit.

    Raises ``OSError`` when it cannot be watched; it lives on then, unwatched.
    """

    def __init__(self, popen: subprocess.Popen[bytes], listener: Listener, is_wrapped: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._popen = popen
        self._listener = listener
        self._is_wrapped = is_wrapped
        self.pid = popen.pid
        self.exit_code: int | None = None
        self.is_paused = False
        self._is_closed = False
        self._read_bytes = READ_BYTES
        self._was_read_out = asyncio.Event()
        self._pidfd = os.pidfd_open(popen.pid)
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._outputs = {popen.stdout.fileno(): STDOUT, popen.stderr.fileno(): STDERR}
        self._input: int | None = popen.stdin.fileno()
        self.input_link = f"pipe:[{os.fstat(self._input).st_ino}]"  # as /proc shows it of whoever reads it
        self._input_rest = bytearray()
        self._input_closing = False
        self._input_progress = self._loop.time()
        for fd in (*self._outputs, self._input):
            os.set_blocking(fd, False)
        self._loop.add_reader(self._pidfd, self._exited)
        for fd in self._outputs:
            self._loop.add_reader(fd, self._readable, fd)

    # ---- output ----

    @property
    def has_open_output(self) -> bool:
        return bool(self._outputs)

    def has_waiting_output(self) -> bool:
        """Whether bytes stand in a pipe that this loop has not come to read yet."""
        poll = select.poll()
        for fd in self._outputs:
            poll.register(fd, select.POLLIN)
        return any(events & select.POLLIN for _fd, events in poll.poll(0))

    def pause(self) -> None:
        """Stop reading: the pipes fill and the process blocks. Never because a reader of its events is slow."""
        if not self.is_paused:
            self.is_paused = True
            for fd in self._outputs:
                self._loop.remove_reader(fd)

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            for fd in self._outputs:
                self._loop.add_reader(fd, self._readable, fd)

    async def drain(self, is_hurried: Callable[[], bool]) -> None:
        """After its exit, while others may hold its pipes: read to their end, or until nothing came any more for a while.

        Whoever goes on writing is heard for ``LONGEST_DRAIN_SECONDS``, less when ``is_hurried``.
        """
        if self.is_paused:
            return
        until = self._loop.time() + LONGEST_DRAIN_SECONDS
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._was_read_out.wait()
        except TimeoutError:
            pass
        # a machine that is busy with others has not come to what stands there: the clock says nothing about its writer
        while self._loop.time() < until:
            if self.is_paused or is_hurried() or not self.has_waiting_output():
                return
            await asyncio.sleep(0)

    async def read_out(self) -> None:
        """When nobody writes any more: everything that stands in the pipes, however long that takes. They hold no more than
        they did when this began, whoever was overlooked."""
        for fd in list(self._outputs):
            if self.is_paused:
                return
            self._loop.remove_reader(fd)
            left = _bytes_in(fd)
            while left > 0 and not self.is_paused and (taken := self._readable(fd)):
                left -= taken
                await asyncio.sleep(0)

    def _readable(self, fd: int) -> int:
        """How many bytes were read."""
        stream = self._outputs.get(fd)
        if stream is None:
            return 0
        try:
            chunk = os.read(fd, self._read_bytes)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        if chunk:
            began = self._loop.time()
            self._listener.on_bytes(stream, chunk)
            self._adapt(self._loop.time() - began)
            return len(chunk)
        self._loop.remove_reader(fd)
        del self._outputs[fd]
        if not self._outputs:
            self._was_read_out.set()
        self._listener.on_change()
        return 0

    def _adapt(self, took: float) -> None:
        """Bytes differ in the work they make: one talkative process must not hold the loop that serves all."""
        if took > LONG_TURN_SECONDS:
            self._read_bytes = max(self._read_bytes // 2, LEAST_READ_BYTES)
        elif took < LONG_TURN_SECONDS / 4:
            self._read_bytes = min(self._read_bytes * 2, READ_BYTES)

    # ---- input ----

    def send(self, data: bytes) -> None:
        """In order, as fast as the process takes it; nothing once the input is closed. Raises ``InputFullError``."""
        if self._input is None or self._input_closing:
            return
        if not self._input_rest:
            self._input_progress = self._loop.time()
        elif len(self._input_rest) + len(data) > MAX_UNREAD_INPUT_BYTES:
            raise InputFullError
        self._input_rest += data
        self._write()

    def close_input(self) -> None:
        """End of input, once everything sent before has been taken."""
        self._input_closing = True
        if self._input is not None and not self._input_rest:
            self._drop_input()

    def input_stuck_seconds(self) -> float:
        """How long the process has taken nothing of what waits for it; 0 when nothing waits."""
        return self._loop.time() - self._input_progress if self._input_rest else 0.0

    def _write(self) -> None:
        if self._input is None:
            return
        try:
            taken = os.write(self._input, self._input_rest[:READ_BYTES])
        except BlockingIOError:
            taken = 0
        except OSError:  # it closed its end
            self._drop_input()
            return
        if taken:
            del self._input_rest[:taken]
            self._input_progress = self._loop.time()
        if self._input_rest:
            self._loop.add_writer(self._input, self._write)
            return
        self._loop.remove_writer(self._input)
        if self._input_closing:
            self._drop_input()

    def _drop_input(self) -> None:
        if self._input is None or self._popen.stdin is None:
            return
        self._loop.remove_writer(self._input)
        self._input_rest.clear()
        self._input = None
        self._popen.stdin.close()

    # ---- the end ----

    def _exited(self) -> None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if result is None:
            return
        self._loop.remove_reader(self._pidfd)
        exit_code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        # A wrapper says of an engine that died by a signal what a shell says.
        self.exit_code = _SHELL_SIGNALS - exit_code if self._is_wrapped and exit_code > _SHELL_SIGNALS else exit_code
        self._listener.on_change()

    def close(self) -> None:
        """Reap the process and give back its pipes. What nobody read by now is dropped. Any number of times."""
        if self._is_closed:
            return
        self._is_closed = True
        for fd in (self._pidfd, *self._outputs):
            self._loop.remove_reader(fd)
        self._outputs.clear()
        self._drop_input()
        status = self._popen.wait()
        self.exit_code = status if self.exit_code is None else self.exit_code
        os.close(self._pidfd)
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


def _bytes_in(pipe: int) -> int:
    """What stands in it."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
