"""``runyard harness``: an engine under the user's own arguments, byte for byte, read by its adapter.

    harness [start] ENGINE [--run-dir D] [--json] -- ARGS…      harness resume HANDLE MESSAGE [--json] [-- ARGS…]

Nothing is added: no command profile, no setting, no environment of ours. What the engine prints is kept as it is, and its events
beside it, under ``<state>/harness/<handle>/``. Errors are JSON on stderr and exit status 2; else the engine's own status is ours.
An engine whose output nobody reads any more, or no disk takes, is ended.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from subprocess import PIPE, Popen
from typing import IO, Any

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, Emit, Stream
from executor.adapters.forms import FORMS
from executor.adapters.passed_through import Form, PassedThrough
from executor.harness.record import Attempt, Record, Records
from executor.processes import procfs
from shared.contracts.problems import problem_of
from shared.contracts.providers import Provider, provider_named
from shared.engine_programs import engines_dir, executable_of
from shared.errors import ErrorCode, RunyardError, invalid

REFUSED = 2
READ_BYTES = 64 * 1024
GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for: an engine to start, or a handle to resume with a message."""

    arguments: tuple[str, ...]
    message: str = ""
    engine: str | None = None
    handle: str | None = None
    run_dir: Path | None = None
    as_json: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """The engine's exit status (128 + signal for one that was ended by it), or 2 for what could not be begun."""
    _make_sayable()
    try:
        asked = parse(list(sys.argv[1:] if argv is None else argv))
        record, form, executable, arguments = _begin(asked, Records.here())
        conversation = PassedThrough(executable, arguments, form.reader() if form.reader else None)
        attempt = record.begin(conversation.command.argv)
    except RunyardError as error:
        _complain(problem_of(error))
        return REFUSED
    return asyncio.run(_Harness(conversation, attempt, asked.as_json).run())


def parse(argv: list[str]) -> Asked:
    """Raises ``invalid_request``. What follows ``--`` is the engine's and is not looked at."""
    ours, arguments = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, None)
    words, run_dir, as_json = _words(ours)
    if words[:1] == ["resume"]:
        if len(words) != 3 or run_dir is not None:
            raise invalid("resume", "give HANDLE and MESSAGE")
        return Asked(tuple(arguments or ()), handle=words[1], message=words[2], as_json=as_json)
    words = words[1:] if words[:1] == ["start"] else words
    if len(words) != 1:
        raise invalid("engine", "give one engine, then -- and its arguments")
    if arguments is None:
        raise invalid("arguments", "the engine's arguments stand behind --")
    return Asked(tuple(arguments), engine=words[0], run_dir=run_dir, as_json=as_json)


def _words(ours: list[str]) -> tuple[list[str], Path | None, bool]:
    words: list[str] = []
    run_dir, as_json = None, False
    rest = iter(ours)
    for word in rest:
        if word == "--json":
            as_json = True
        elif word == "--run-dir":
            value = next(rest, None)
            if value is None:
                raise invalid("--run-dir", "give a folder")
            run_dir = Path(value)
        elif word.startswith("-") and not (words[:1] == ["resume"] and len(words) == 2):  # a message may begin so
            raise invalid(word[:64], "the harness has no such option; the engine's stand behind --")
        else:
            words.append(word)
    return words, run_dir, as_json


def _begin(asked: Asked, records: Records) -> tuple[Record, Form, str, tuple[str, ...]]:
    """Raises ``RunyardError`` before anything is written."""
    if asked.handle is None:
        provider = provider_named(asked.engine or "", "engine")
        executable, form = _program(provider), FORMS.get(provider, Form())
        cwd = (asked.run_dir or Path.cwd()).resolve()
        if not cwd.is_dir():
            raise invalid("--run-dir", f"{cwd} is no folder")
        return records.new(token_hex(4), provider, str(cwd)), form, executable, asked.arguments
    record = records.one(asked.handle)
    form = FORMS.get(record.engine, Form())
    if form.resume is None:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"the harness cannot resume {record.engine}")
    if record.session is None:
        raise RunyardError(ErrorCode.CONFLICT, f"{asked.handle} left no engine session to go on with")
    return record, form, _program(record.engine), form.resume(record.session, asked.message, asked.arguments)


def _program(provider: Provider) -> str:
    adapter = ADAPTERS.get(provider)
    if adapter is None or adapter.install.closed or not (adapter.install.command or adapter.install.globs):
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"the harness cannot run {provider}")
    found = executable_of(adapter.install, engines_dir())
    if found is None:
        raise RunyardError(ErrorCode.ENGINE_NOT_FOUND, f"{adapter.install.command} is not installed")
    return found


class _Harness:
    """One engine as a child in the user's own terminal and environment: its stdin is ours, Ctrl-C reaches it by itself."""

    def __init__(self, conversation: PassedThrough, attempt: Attempt, as_json: bool) -> None:
        self._conversation = conversation
        self._attempt = attempt
        self._as_json = as_json
        self._failure: Exception | None = None

    async def run(self) -> int:
        procfs.become_subreaper()
        try:
            process = Popen(  # noqa: ASYNC220 (its exit is noticed by pidfd; asyncio's own wait would wait for its pipes too)
                self._conversation.command.argv, stdout=PIPE, stderr=PIPE, cwd=self._attempt.record.cwd, bufsize=0
            )
        except OSError as error:
            return self._over(None, f"{error.strerror}")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sends it to the engine too
        loop.add_signal_handler(signal.SIGTERM, process.terminate)
        reading = asyncio.gather(self._read(process, STDOUT, process.stdout), self._read(process, STDERR, process.stderr))
        code = await _exit_of(process)
        try:
            await _end_what_is_left()
            async with asyncio.timeout(GRACE_SECONDS):
                await reading
        except TimeoutError:
            _complain({"code": "left_behind", "detail": "a process of the engine withstood its end"})
        return self._over(code)

    async def _read(self, process: Popen[bytes], stream: Stream, pipe: IO[bytes] | None) -> None:
        """To the stream's end, whatever becomes of what is read: an engine whose pipe nobody drains never ends."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        while True:
            chunk = await reader.read(READ_BYTES)
            try:
                if self._failure is None:
                    self._take(stream, chunk)
            except Exception as error:  # noqa: BLE001  whatever it is: nobody else drains the pipe
                self._failure = error
                process.terminate()
                asyncio.get_running_loop().call_later(GRACE_SECONDS, process.kill)
            if not chunk:
                return

    def _take(self, stream: Stream, chunk: bytes) -> None:
        """``b""``: the stream's end. Raises ``OSError`` where our own reader has left or the disk is full."""
        if chunk:
            self._attempt.keep(stream, chunk)
        for step in self._conversation.feed(stream, chunk) if chunk else self._conversation.end_of(stream):
            if isinstance(step, Emit):
                event = self._attempt.event(step)
                _say(json.dumps(event) if self._as_json else _line(event))

    def _over(self, code: int | None, why: str | None = None) -> int:
        try:
            said = self._attempt.ended(self._conversation.ended(code), code)
            _say(json.dumps({"kind": "harness.ended", "data": said}) if self._as_json else _end_line(said))
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            failed = getattr(self._failure, "strerror", None) or type(self._failure).__name__
            _complain({"code": "not_kept", "detail": f"{self._attempt.folder}: {failed}"})
        if code is None:
            _complain(problem_of(RunyardError(ErrorCode.ENGINE_START_FAILED, why or "")))
            return REFUSED
        return code if code >= 0 else 128 - code


async def _exit_of(process: Popen[bytes]) -> int:
    exited, pidfd = asyncio.Event(), os.pidfd_open(process.pid)
    asyncio.get_running_loop().add_reader(pidfd, exited.set)
    try:
        await exited.wait()  # as long as the user lets it run
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
    return process.wait()


async def _end_what_is_left() -> None:
    """What the engine started and left behind came to us; nobody else will end it. Gives up after ``GRACE_SECONDS``."""
    async with asyncio.timeout(GRACE_SECONDS):
        while left := _left():
            for process in left:
                procfs.send(process, signal.SIGKILL)
                procfs.reap(process.pid)
            await asyncio.sleep(LOOK_SECONDS)


def _left() -> list[procfs.Process]:
    processes = procfs.snapshot()
    return [processes[pid] for pid in procfs.descendants(processes, {os.getpid()})]


def _make_sayable() -> None:
    """What an engine says may hold more than the terminal can show; a stream that the shell closed leads to nobody."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(text: str) -> None:
    """Raises ``OSError`` once, where nobody reads it any more."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what waits in its buffer would fail again at our exit
        raise


def _complain(what: Mapping[str, object]) -> None:
    """One JSON object on stderr; where nobody reads it, it is not said."""
    with suppress(OSError):
        sys.stderr.write(json.dumps(what) + "\n")


def _line(event: dict[str, Any]) -> str:
    data = event["data"]
    said = data.get("text") or data.get("message") or " ".join(str(data[name]) for name in ("name", "status") if name in data)
    return f"{event['kind']:<20} {said or json.dumps(data)}"


def _end_line(said: dict[str, object]) -> str:
    why = f": {said['errorCode']} {said['errorMessage']}" if said["errorCode"] else ""
    further = f"runyard harness resume {said['handle']} MESSAGE" if said["session"] else said["handle"]
    return f"{'harness.ended':<20} {said['outcome']}{why}  ({further})"
