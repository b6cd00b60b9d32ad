"""Parking: an engine that waits for a person gives its process back. One that does not wait is never touched."""

from __future__ import annotations

from collections.abc import Sequence

from executor.attempts.endings import Cause
from executor.attempts.registry import Attempt
from shared.contracts.events import AttemptOutcome
from shared.contracts.provider_runs import ParkTaken
from shared.contracts.providers import Capabilities
from shared.errors import ErrorCode, RunyardError


def park(attempt: Attempt, question_ids: Sequence[str], able: Capabilities) -> ParkTaken:
    """Ask an attempt to end as parked; answered at once, and idempotent.

    Raises ``conflict`` where its engine does not wait for exactly these questions, and ``capability_unavailable`` where no later
    attempt could go on from its session. Then nothing was done.
    """
    runner = attempt.runner
    if runner is None or attempt.ended is not None:
        if attempt.ended is not None and attempt.ended.outcome is AttemptOutcome.PARKED:
            return ParkTaken(run_id=attempt.run_id, attempt=attempt.number, status="parked")
        raise RunyardError(ErrorCode.CONFLICT, "the attempt has ended")
    if runner.cause is not Cause.PARKED:
        if not able.resume or runner.engine_session is None:
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, "its engine has no session that could be gone on with")
        if runner.pid is None or runner.status != "running" or set(runner.questions.open) != set(question_ids):
            raise RunyardError(ErrorCode.CONFLICT, "the engine does not wait for these questions")
        runner.questions.keep()
        runner.end(Cause.PARKED)
    return ParkTaken(run_id=attempt.run_id, attempt=attempt.number, status="parking")
