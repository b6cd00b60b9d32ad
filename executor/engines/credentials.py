"""What this executor may sign engines in with: its own environment, and a directory of credential files.

Read anew at every start, so that a changed key needs no restart. Says names only, never a value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from executor.engines.environment import credentials_for
from shared.contracts.credentials import Credentials

MAX_FILE_BYTES = 1024 * 1024
_NOT_THERE = "is not there"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What one start signs in with. ``files``: content by its path below the engine's HOME."""

    env: Mapping[str, str]
    files: Mapping[str, str]

    def values(self) -> tuple[str, ...]:
        """All that nobody may see."""
        return (*self.env.values(), *self.files.values())


@dataclass(frozen=True, slots=True)
class CredentialStore:
    own: Mapping[str, str]
    folder: Path | None

    def sign_in(self, table: Credentials, given: Mapping[str, str]) -> SignIn:
        """``given`` came with the start and stands above what is here: with a key of its own it gets no file of ours.

        Raises ``invalid_request`` for a variable that cannot be set.
        """
        env = credentials_for(table.names, self.own, given)
        return SignIn(env, {} if any(given.get(name) for name in table.keys) else self._files(table))

    def missing(self, table: Credentials) -> str | None:
        """Why an engine could not sign in with what is here; None when it could, or needs nothing."""
        if not (table.keys or table.files) or any(self.own.get(name) for name in table.keys) or self._files(table):
            return None
        wrong = [f"{file.source} {why}" for file in table.files if (why := self._read(file.source)[1]) not in (None, _NOT_THERE)]
        wanted = [" or ".join(table.keys)] if table.keys else []
        if table.files:
            sources = " or ".join(file.source for file in table.files)
            wanted.append(f"{sources} in EXECUTOR_CREDENTIALS_DIR" + (" (not set)" if self.folder is None else ""))
        return "; ".join([f"no credentials: set {', or give '.join(wanted)}", *wrong])

    def _files(self, table: Credentials) -> dict[str, str]:
        found = {file.target: self._read(file.source)[0] for file in table.files}
        return {target: content for target, content in found.items() if content is not None}

    def _read(self, source: str) -> tuple[str | None, str | None]:
        """The file's content, or why it is of no use."""
        if self.folder is None:
            return None, _NOT_THERE
        try:
            with (self.folder / source).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None, _NOT_THERE
        except OSError as error:
            return None, f"cannot be read ({os.strerror(error.errno or 0)})"
        return _usable(content)


def _usable(content: bytes) -> tuple[str | None, str | None]:
    if len(content) > MAX_FILE_BYTES:
        return None, f"is larger than {MAX_FILE_BYTES} bytes"
    try:
        text = content.decode()
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None, "is not JSON"
    return (text, None) if isinstance(said, dict) and said else (None, "holds nothing")
