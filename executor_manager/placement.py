"""Where may an attempt run? Pure: a fleet and a request in, a member or the reason why not out."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.provider_runs import ExecutorState, FleetMember, Propose
from shared.contracts.providers import Provider, ProviderReadiness, ReadinessCategory
from shared.errors import ErrorCode, RunyardError

RETRY_SECONDS = 2
_BEST_FIRST = (ReadinessCategory.READY, ReadinessCategory.ENVIRONMENT_NOT_READY, ReadinessCategory.RUNTIME_UNHEALTHY)


def propose(members: Sequence[FleetMember], request: Propose) -> ExecutorState | None:
    """The executor that has the workspace's newest files, if it can run this; else the least loaded one with a free slot.

    None also where that one is full and the files cannot be had elsewhere: going elsewhere would lose them, and whether to wait
    is not for us to say. A caller that will not wait names it in ``avoid``.
    """
    able = [(state, taken) for state, taken in _able(members, request.provider) if state.executor_id not in request.avoid]
    free = [(not _is_ready(state, request), taken / state.slots, state.executor_id, state)
            for state, taken in able if taken < state.slots]  # fmt: skip
    best = min(free, key=lambda each: each[:3])[3] if free else None
    owner = _owner(members, request)
    if any(state is owner for *_, state in free):
        return owner
    return best if owner is None or request.movable else None


def _owner(members: Sequence[FleetMember], request: Propose) -> ExecutorState | None:
    """Where the newest files are; who does not know that takes whoever worked there last. Full or not."""
    able = [state for state, _ in _able(members, request.provider) if state.executor_id not in request.avoid]
    named = [state for state in able if state.executor_id == request.newest_at]
    if named or request.movable:
        return named[0] if named else None
    key = request.workspace.key
    holders = [state for state in able if key in state.workspaces]
    return min(holders, key=lambda state: (state.workspaces.index(key), state.executor_id)) if holders else None


def refusal(members: Sequence[FleetMember], request: Propose) -> RunyardError:
    """Why ``propose`` found none: who has the files is full (``executorId``), everyone is (or just refused), or nobody can."""
    if _able(members, request.provider):
        owner = None if request.movable else _owner(members, request)
        who = f"every executor that can run {request.provider}" if owner is None else f"{owner.executor_id}, which has the files,"
        extra = {"sent": False} if owner is None else {"sent": False, "executorId": owner.executor_id}
        return RunyardError(ErrorCode.QUEUE_FULL, f"{who} is full", retry_after=RETRY_SECONDS, extra=extra)
    detail = "; ".join(f"{_name(member)}: {_why_unable(member, request.provider)}" for member in members)
    return RunyardError(
        ErrorCode.PROVIDER_UNAVAILABLE,
        detail or "there are no executors (EXECUTOR_MANAGER_EXECUTORS)",
        retry_after=RETRY_SECONDS,
        extra={"sent": False},
    )


def best_known(members: Sequence[FleetMember]) -> list[ProviderReadiness]:
    """Each provider as the executors see it that come nearest to running it, and who they are: one that is ready is enough.

    One that drains takes no new run, whatever it has.
    """
    best: dict[Provider, ProviderReadiness] = {}
    for member in members:
        for each in _offered(member.state) if member.reachable and member.state is not None else ():
            known = best.get(each.provider)
            if known is None or _rank(each) < _rank(known):
                best[each.provider] = each
            elif _rank(each) == _rank(known):
                together = sorted({*(known.executors or ()), *(each.executors or ())})
                best[each.provider] = known.model_copy(update={"executors": together})
    return [best[provider] for provider in Provider if provider in best]


def _offered(state: ExecutorState) -> list[ProviderReadiness]:
    said = {"executors": [state.executor_id]}
    if state.draining:
        said |= {"readiness_category": ReadinessCategory.RUNTIME_UNHEALTHY, "blocking_reason": "its executor is draining"}
    return [each.model_copy(update=said) for each in state.providers]


def _rank(readiness: ProviderReadiness) -> int:
    return _BEST_FIRST.index(readiness.readiness_category)


def _able(members: Sequence[FleetMember], provider: Provider) -> list[tuple[ExecutorState, int]]:
    """Who could run it, and how many slots are taken there or about to be."""
    return [
        (member.state, member.state.live + member.reserved)
        for member in members
        if member.state is not None and _why_unable(member, provider) is None
    ]


def _why_unable(member: FleetMember, provider: Provider) -> str | None:
    if not member.reachable or member.state is None:
        return member.reason or "unreachable"
    if member.state.draining:
        return "draining"
    for each in member.state.providers:
        if each.provider is provider:
            if each.readiness_category is ReadinessCategory.READY or _lacks_credentials_only(each):
                return None
            return f"{each.readiness_category}: {each.blocking_reason or 'no reason given'}"
    return f"does not have {provider}"


def _is_ready(state: ExecutorState, request: Propose) -> bool:
    return any(
        each.provider is request.provider and each.readiness_category is ReadinessCategory.READY for each in state.providers
    )


def _lacks_credentials_only(readiness: ProviderReadiness) -> bool:
    """The start may bring them; if it does not, the executor refuses it before anything is launched."""
    return readiness.installed and readiness.readiness_category is ReadinessCategory.ENVIRONMENT_NOT_READY


def _name(member: FleetMember) -> str:
    return member.state.executor_id if member.state is not None else member.url
