"""Which Runyard a command talks to: what it is told, else the environment, else the stack that is up on this machine."""

from __future__ import annotations

import os

from runyard.api import Runyard, RunyardUnreachableError
from runyard.local_stack.ready_file import stack_up_in
from runyard.local_stack.stack import default_state_dir


def find_server(url: str | None, key: str | None) -> tuple[str, str | None]:
    """Address and key. The local stack's key goes to the local stack only. Raises ``RunyardUnreachableError`` for nowhere."""
    local = stack_up_in(default_state_dir()) or {}
    found = url or os.environ.get("RUNYARD_URL") or local.get("apiUrl")
    if not found:
        raise RunyardUnreachableError("no Runyard is up here, and neither --url nor RUNYARD_URL names one")
    found = str(found).rstrip("/")
    own_key = local.get("apiKey") if found == local.get("apiUrl") else None
    return found, key or os.environ.get("RUNYARD_API_KEY") or own_key


def open_server(url: str | None, key: str | None) -> Runyard:
    return Runyard(*find_server(url, key))
