"""What the harness keeps of each engine it ran: ``<state>/harness/<handle>/harness.json`` and a folder an attempt.

An attempt's folder holds the arguments as they were given, both output streams as they came, and the events read from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from executor.adapters.base import STDERR, STDOUT, Emit, Outcome, Stream
from executor.state_dir import default_state_dir, write_whole
from shared.clock import utc_now
from shared.contracts.events import SessionStarted
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError

NOTE = "harness.json"


@dataclass(slots=True)
class Record:
    """One engine session under the harness. ``cwd``: where the engine works in every attempt; ``attempts``: how many so far."""

    folder: Path
    engine: Provider
    cwd: str
    session: str | None = None
    attempts: int = 0

    @property
    def handle(self) -> str:
        return self.folder.name

    def write(self) -> None:
        said = {"handle": self.handle, "engine": self.engine, "cwd": self.cwd, "session": self.session, "attempts": self.attempts}
        write_whole(self.folder / NOTE, json.dumps(said, indent=1) + "\n")

    def begin(self, argv: Sequence[str]) -> Attempt:
        """The next attempt's folder, with its arguments written. Raises ``workspace_error``."""
        try:
            folder = self._next_folder()
            (folder / "argv.json").write_text(json.dumps(list(argv)) + "\n")
            self.write()
        except OSError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"{self.folder}: {error.strerror}") from error
        return Attempt(self, folder)

    def _next_folder(self) -> Path:
        """What a harness that was killed while it began has left, or another one makes just now, is passed over."""
        while True:
            self.attempts += 1
            folder = self.folder / f"attempt-{self.attempts}"
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return folder


@dataclass(slots=True)
class Attempt:
    """One process. Every method raises ``OSError`` where the disk takes no more."""

    record: Record
    folder: Path
    _number: int = 0
    _files: dict[str, IO[bytes]] = field(default_factory=dict[str, IO[bytes]])

    def keep(self, stream: Stream, chunk: bytes) -> None:
        """Bytes as the engine printed them."""
        self._file({STDOUT: "stdout", STDERR: "stderr"}[stream]).write(chunk)

    def event(self, told: Emit) -> dict[str, object]:
        """The event as it is kept. A session is noted at once: whatever happens to us, it can be gone on with."""
        if isinstance(told.payload, SessionStarted):
            self.record.session = told.payload.engine_session
            self.record.write()
        self._number += 1
        shown: dict[str, object] = {
            "cursor": self._number, "attempt": self.record.attempts, "at": utc_now().isoformat(), "kind": told.payload.KIND,
            "data": json.loads(told.payload.wire_json()),
        }  # fmt: skip
        self._file("events.jsonl").write(json.dumps(shown).encode() + b"\n")
        return shown

    def ended(self, outcome: Outcome, exit_code: int | None) -> dict[str, object]:
        """How it ended, as it is kept; all files are closed."""
        said: dict[str, object] = {
            "handle": self.record.handle, "attempt": self.record.attempts, "session": self.record.session,
            "outcome": outcome.outcome, "errorCode": outcome.error_code, "errorMessage": outcome.error_message,
            "exitCode": exit_code,
        }  # fmt: skip
        (self.folder / "outcome.json").write_text(json.dumps(said) + "\n")
        for file in self._files.values():
            file.close()
        return said

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = (self.folder / name).open("wb", buffering=0)
        return self._files[name]


@dataclass(frozen=True, slots=True)
class Records:
    root: Path

    @classmethod
    def here(cls) -> Records:
        return cls(default_state_dir().parent / "harness")

    def new(self, handle: str, engine: Provider, cwd: str) -> Record:
        """Raises ``workspace_error``."""
        try:
            (self.root / handle).mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"{self.root}: {error.strerror}") from error
        return Record(self.root / handle, engine, cwd)

    def one(self, handle: str) -> Record:
        """Raises ``not_found``."""
        try:
            said = json.loads((self.root / handle / NOTE).read_text()) if handle.isalnum() else None
        except (OSError, ValueError):
            said = None
        if said is None:
            raise RunyardError(ErrorCode.NOT_FOUND, f"the harness knows no {handle[:64]}")
        return Record(self.root / handle, Provider(said["engine"]), said["cwd"], said["session"], said["attempts"])
