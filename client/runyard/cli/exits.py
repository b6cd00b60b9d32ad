"""What the command's exit status says: one table, the same for every command that follows a run.

| status | meaning |
|---|---|
| 0 | the run succeeded, or the command did what it was asked |
| 1 | the run ended in an error, or the server refused |
| 2 | the arguments or the request are wrong |
| 3 | the run timed out |
| 4 | the run was canceled |
| 5 | no Runyard to talk to: none is up there, or it stopped answering |
| 130 | left by Ctrl-C: a run that was started goes on |
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, NoReturn

import typer

from runyard.api import RunyardApiError, RunyardUnreachableError


class Exit(IntEnum):
    SUCCESS = 0
    ERROR = 1
    USAGE = 2
    TIMEOUT = 3
    CANCELED = 4
    UNREACHABLE = 5
    DETACHED = 130


OF_RUN = {"success": Exit.SUCCESS, "error": Exit.ERROR, "timeout": Exit.TIMEOUT, "canceled": Exit.CANCELED}


def finish(work: Coroutine[Any, Any, Exit | None]) -> NoReturn:
    """Runs a command to its end and leaves with its status; a refusal or silence becomes a line on stderr and a status."""
    try:
        status = asyncio.run(work) or Exit.SUCCESS
    except RunyardApiError as error:
        is_usage = error.code == "invalid_request"  # its text names the fields, which is the hint
        complain(f"{error}" + (f" ({error.hint})" if error.hint and not is_usage else ""))
        status = Exit.USAGE if is_usage else Exit.ERROR
    except RunyardUnreachableError as error:
        complain(f"{error}; is it up? Start one here with: runyard up")
        status = Exit.UNREACHABLE
    except UnicodeEncodeError:  # the bytes of an argument that are none stand in it as halves of characters
        complain("an argument is no UTF-8 text")
        status = Exit.USAGE
    except KeyboardInterrupt:
        status = Exit.DETACHED
    raise typer.Exit(int(status))


def complain(text: str) -> None:
    sys.stderr.write(f"runyard: {text}\n")
    sys.stderr.flush()
