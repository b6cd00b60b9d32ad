"""Ids: prefixed, sortable by time, never reused."""

from __future__ import annotations

from collections.abc import Callable

from uuid_utils import uuid7

NewId = Callable[[str], str]


def random_id(kind: str) -> str:
    """``run_0198…``: the kind, then 32 hex digits of a UUIDv7."""
    return f"{kind}_{uuid7().hex}"
