"""What an attempt is made of before its process exists. Pure data: nothing here starts or decides anything."""

from __future__ import annotations

from dataclasses import dataclass

from executor.adapters.base import Conversation
from executor.attempts.answers import Fit, as_it_is
from executor.processes.engine_process import Launch
from shared.contracts.events import AttemptStarted


@dataclass(frozen=True, slots=True)
class Plan:
    """``secrets``: what nobody may be shown; the ``passing`` ones of them are worth nothing when it has ended. ``fit``: how the
    engine's own outcome is judged."""

    conversation: Conversation
    launch: Launch
    run_mark: str
    secrets: tuple[str, ...]
    started: AttemptStarted
    output_quota_bytes: int
    fit: Fit = as_it_is
    passing: tuple[str, ...] = ()
