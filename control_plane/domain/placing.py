"""What a driver asks of an executor, and what becomes of a run whose attempt was lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from control_plane.domain.messages import Heard
from control_plane.domain.profile import with_profile
from control_plane.domain.run import DrivenRun
from control_plane.domain.standing import NOBODY_YET, Standing, otherwise
from control_plane.domain.timeouts import LIMITS, limits_of
from shared.contracts.events import InteractionRequested, Timeouts
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message, StartProviderRun, WorkspaceRef
from shared.contracts.runs import RunStatus, StartRun

# What an engine is told that goes on with its session after an attempt of the same run failed.
GO_ON = "The last attempt at this was cut off. Go on from where it stopped, and do not repeat what is already done."
# Options that say something to us, not to the engine.
NEVER_SENT = LIMITS | {"onExpiry", "expiryAnswer", "outputSchema"}


class NextStep(StrEnum):
    """A run without a living attempt, and what is to be done about it."""

    PLACE = "place"
    GIVE_UP = "give_up"
    CANCEL = "cancel"


def next_step(run: DrivenRun) -> NextStep:
    """For a run whose attempt is over although the run is not: whether another follows was written with its end.

    Only an older release leaves an end without that word.
    """
    if run.stop_requested:
        return NextStep.CANCEL
    if run.attempt == 0 or run.status is RunStatus.WAITING_USER:
        return NextStep.PLACE  # the first attempt, or a reply woke a parked run
    return NextStep.PLACE if run.failures else NextStep.GIVE_UP


def provider_run(
    run: DrivenRun,
    replies: Sequence[tuple[InteractionRequested, Reply]],
    credentials: Mapping[str, str],
    said: Sequence[str] = (),
    standing: Standing = NOBODY_YET,
    heard: Sequence[Heard] = (),
) -> StartProviderRun:
    """The start of its newest attempt, ``credentials`` being its profile's.

    A parked run goes on from its engine session with the replies as the next user message, and with what else was ``said``;
    one whose attempt failed after it had done something is told to go on. The session of one that had done nothing is forgotten.
    Where it cannot go on from the newest files it is told again what the ones it goes on from do not know of what was ``heard``.
    """
    request = with_profile(StartRun.model_validate_json(run.request), run.profile)
    news = [*(as_message(asked, reply) for asked, reply in replies), *said]

    def say(known: int | None) -> list[Message]:
        again = [each.text for each in sorted(heard, key=_when) if known is None or each.attempt > known]
        if known is not None:
            return [Message(content="\n\n".join([*again, *news] or [GO_ON]))]
        return [*request.conversation(), *([Message(content="\n\n".join([*again, *news]))] if again or news else [])]

    options = {name: value for name, value in request.provider_options.items() if name not in NEVER_SENT}
    return StartProviderRun(
        run_id=run.run_id,
        attempt=run.attempt,
        provider=run.provider,
        model=run.model,
        messages=say(run.attempt if run.engine_session is not None else None),
        resume_session_id=run.engine_session or run.resume_session,
        engine_mode=request.engine_mode,
        tools=request.tools,
        provider_options=options,
        env=request.env,
        credential_env=dict(credentials),
        require_human_loop=request.require_human_loop,
        workspace=WorkspaceRef(key=run.workspace_key),
        timeouts=_timeouts(run, request),
        output_schema=request.provider_options.get("outputSchema"),
        after=standing.after(),
        otherwise=otherwise(run, standing, say),
    )


def _when(heard: Heard) -> datetime:
    return heard.at


def as_message(asked: InteractionRequested, reply: Reply) -> str:
    """A reply in words, for an engine session that no longer waits for it."""
    if reply.decision is not None:
        said = f"{reply.decision.value}" + (f": {reply.message}" if reply.message else "")
    else:
        said = reply.answer if isinstance(reply.answer, str) else str(reply.answer)
    return f"You asked: {asked.prompt}\nThe answer: {said}"


def _timeouts(run: DrivenRun, request: StartRun) -> Timeouts:
    """The run's remaining active time is shared by its attempts; the first attempt takes the rule the manager finds."""
    return limits_of(request.provider_options, run.active_ms_left, run.profile.timeout_ms if run.profile else None)
