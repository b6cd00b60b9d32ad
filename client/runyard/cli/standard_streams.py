"""The standard streams as the shell gave them, made so that every command can read and write them without a second thought."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer


def make_usable() -> None:
    """Call it before anything is opened: what is opened next takes the number of a stream that the shell closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nobody(reads=number == 0))
    if isinstance(sys.stdout, io.TextIOWrapper):  # what an engine says may hold more than the terminal can show
        sys.stdout.reconfigure(errors="replace")


def text_or_stdin(given: str) -> str:
    """``-`` stands for what stdin holds. Refuses, as a wrong argument, what is no text."""
    if given != "-":
        return given
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise typer.BadParameter("what stdin holds is no UTF-8 text") from error


def _nobody(reads: bool) -> Any:
    """A stream at whose other end there is nobody; programs that are started from here inherit it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    return os.fdopen(descriptor, "r" if reads else "w")
