"""Where an attempt goes, as a table: a fleet, what is asked, who it is."""

from __future__ import annotations

from typing import Any

import pytest

from executor_manager.placement import best_known, propose, refusal
from shared.contracts.provider_runs import ExecutorState, FleetMember, Propose, WorkspaceRef
from shared.contracts.providers import Capabilities, Provider, ProviderReadiness, ReadinessCategory
from shared.errors import ErrorCode

READY = ReadinessCategory.READY


def provider(name: Provider = Provider.SCRIPTED, category: ReadinessCategory = READY) -> ProviderReadiness:
    reason = None if category is READY else "no key"
    return ProviderReadiness(
        provider=name, installed=True, readiness_category=category, blocking_reason=reason, capabilities=Capabilities()
    )


def member(executor_id: str, live: int = 0, slots: int = 4, *, reachable: bool = True, **state: Any) -> FleetMember:
    given: dict[str, Any] = {"providers": [provider()], **state}
    known = ExecutorState(executor_id=executor_id, instance=f"{executor_id}-1", clock_ms=5, slots=slots, live=live, **given)
    return FleetMember(url=f"http://{executor_id}", reachable=reachable, reason=None if reachable else "refused", state=known)


def asked(*avoid: str) -> Propose:
    return Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="w"), avoid=list(avoid))


def of_session(*avoid: str, movable: bool = False) -> Propose:
    return asked(*avoid).model_copy(update={"newest_at": "b", "movable": movable})


BROKEN = [provider(category=ReadinessCategory.RUNTIME_UNHEALTHY)]
UNSIGNED = [provider(category=ReadinessCategory.ENVIRONMENT_NOT_READY)]
ABSENT = [UNSIGNED[0].model_copy(update={"installed": False})]
OTHER = [provider(Provider.CLAUDE_CODE)]

TABLE = {
    "the least loaded one": ([member("a", 2), member("b", 1), member("c", 3)], asked(), "b"),
    "load is a share of the slots": ([member("a", 1, 2), member("b", 3, 10)], asked(), "b"),
    "ties go by id": ([member("b"), member("a")], asked(), "a"),
    "no one without a free slot": ([member("a", 4), member("b", 3)], asked(), "b"),
    "no one without slots at all": ([member("a", 0, 0), member("b", 3)], asked(), "b"),
    "no one that just refused": ([member("a"), member("b", 3)], asked("a"), "b"),
    "no one that drains": ([member("a", draining=True), member("b", 3)], asked(), "b"),
    "no one unreachable": ([member("a", reachable=False), member("b", 3)], asked(), "b"),
    "no one never seen": ([FleetMember(url="http://x", reachable=False), member("b", 3)], asked(), "b"),
    "no one without the provider": ([member("a", providers=OTHER), member("b", 3)], asked(), "b"),
    "no one whose provider is not ready": ([member("a", providers=BROKEN), member("b", 3)], asked(), "b"),
    "one without credentials: the start may bring them": ([member("a", providers=UNSIGNED)], asked(), "a"),
    "before it one that is ready": ([member("a", providers=UNSIGNED), member("b", 3)], asked(), "b"),
    "no one where it is not installed": ([member("a", providers=ABSENT)], asked(), None),
    "the holder of the workspace": ([member("a"), member("b", 3, workspaces=["v", "w"])], asked(), "b"),
    "the holder of it newest": ([member("a", workspaces=["v", "w"]), member("b", 3, workspaces=["w"])], asked(), "b"),
    "nobody instead of a holder that is full": ([member("a"), member("b", 4, workspaces=["w"])], asked(), None),
    "not a holder that just refused": ([member("a"), member("b", 4, workspaces=["w"])], asked("b"), "a"),
    "not a holder that drains": ([member("a"), member("b", workspaces=["w"], draining=True)], asked(), "a"),
    "not a holder that is gone": ([member("a"), member("b", workspaces=["w"], reachable=False)], asked(), "a"),
    "who has the newest files": ([member("a", workspaces=["w"]), member("b", 3)], of_session(), "b"),
    "nobody instead of who has them and is full": ([member("a"), member("b", 4)], of_session(), None),
    "who has them before one that could have them": ([member("a"), member("b", 3)], of_session(movable=True), "b"),
    "another that can have them when it is full": ([member("a"), member("b", 4)], of_session(movable=True), "a"),
    "nobody when all are full that could have them": ([member("a", 4), member("b", 4)], of_session(movable=True), None),
    "another that can have them when it drains": ([member("a", 3), member("b", draining=True)], of_session(movable=True), "a"),
    "another when it is gone": ([member("a"), member("b", reachable=False)], of_session(movable=True), "a"),
    "another when it just refused": ([member("a"), member("b")], of_session("b", movable=True), "a"),
    "the least loaded of others, whatever they held": (
        [member("a", 3, workspaces=["w"]), member("b", draining=True), member("c")],
        of_session(movable=True),
        "c",
    ),
    "one that shares its disk, for want of a snapshot": (
        [member("a", 3, workspaces=["w"]), member("b", draining=True), member("c")],
        of_session(),
        "a",
    ),
    "nobody when all are full": ([member("a", 4), member("b", 4)], asked(), None),
    "nobody in no fleet": ([], asked(), None),
}


@pytest.mark.parametrize(("fleet", "request_", "expected"), TABLE.values(), ids=TABLE.keys())
def test_an_attempt_goes_to(fleet: list[FleetMember], request_: Propose, expected: str | None) -> None:
    for members in (fleet, fleet[::-1]):
        found = propose(members, request_)
        assert (found.executor_id if found is not None else None) == expected


@pytest.mark.parametrize(("fleet", "request_", "executor_id"), [
    ([member("a"), member("b", 4)], of_session(), "b"),
    ([member("a", 4), member("b", 4)], of_session(), "b"),
    ([member("a"), member("b", 4, workspaces=["w"])], asked(), "b"),
    ([member("a", 4), member("b", 4)], of_session(movable=True), None),
    ([member("a", 4), member("b", 4)], of_session("b"), None),
    ([member("a", 4), member("b", draining=True)], of_session(), None),
])  # fmt: skip
def test_a_refusal_names_the_executor_whose_files_hold_the_attempt_there(fleet, request_, executor_id) -> None:
    assert propose(fleet, request_) is None
    error = refusal(fleet, request_)
    assert (error.code, error.extra.get("executorId")) == (ErrorCode.QUEUE_FULL, executor_id)


@pytest.mark.parametrize(
    ("fleet", "request_", "code", "detail"),
    [
        ([member("a", 4), member("b", draining=True)], asked(), ErrorCode.QUEUE_FULL, "every executor"),
        ([member("a")], asked("a"), ErrorCode.QUEUE_FULL, "every executor"),
        ([member("a", providers=BROKEN)], asked(), ErrorCode.PROVIDER_UNAVAILABLE, "a: runtime_unhealthy: no key"),
        ([member("a", draining=True)], asked(), ErrorCode.PROVIDER_UNAVAILABLE, "a: draining"),
        ([member("a", reachable=False)], asked(), ErrorCode.PROVIDER_UNAVAILABLE, "a: refused"),
        ([member("a", providers=OTHER)], asked(), ErrorCode.PROVIDER_UNAVAILABLE, "does not have scripted"),
        ([], asked(), ErrorCode.PROVIDER_UNAVAILABLE, "no executors"),
    ],
)
def test_a_refusal_says_whether_waiting_helps_and_why(fleet, request_, code, detail) -> None:
    error = refusal(fleet, request_)
    assert (error.code, error.extra["sent"]) == (code, False)
    assert detail in error.detail
    assert error.retry_after is not None


def at(executors: list[str], readiness: ProviderReadiness) -> ProviderReadiness:
    return readiness.model_copy(update={"executors": executors})


def test_a_provider_is_ready_when_it_is_ready_anywhere_that_answers_and_it_says_where() -> None:
    fleet = [member("a", providers=BROKEN), member("b"), member("c", reachable=False, providers=OTHER)]
    for members in (fleet, fleet[::-1]):
        assert best_known(members) == [at(["b"], provider())]
    assert best_known(fleet[:1]) == [at(["a"], BROKEN[0])]


def test_of_the_merged_providers_each_names_all_executors_that_are_as_near_to_running_it() -> None:
    fleet = [member("c"), member("a", providers=UNSIGNED), member("b", providers=[provider(), *OTHER])]
    assert best_known(fleet) == [at(["b"], OTHER[0]), at(["b", "c"], provider())]


def test_what_only_a_draining_executor_has_is_not_ready() -> None:
    [merged] = best_known([member("a", draining=True), member("b", providers=[], draining=True)])
    assert (merged.readiness_category, merged.blocking_reason, merged.executors) == (
        ReadinessCategory.RUNTIME_UNHEALTHY, "its executor is draining", ["a"]
    )  # fmt: skip
    assert best_known([member("a", draining=True), member("b")]) == [at(["b"], provider())]
    [merged] = best_known([member("a", draining=True), member("b", providers=UNSIGNED)])
    assert (merged.readiness_category, merged.executors) == (ReadinessCategory.ENVIRONMENT_NOT_READY, ["b"])


def test_what_is_on_its_way_to_an_executor_takes_a_slot_there() -> None:
    """``reserved`` is what was proposed since it was asked last."""

    def reserving(count: int, each: FleetMember) -> FleetMember:
        return each.model_copy(update={"reserved": count})

    found = propose([reserving(2, member("a", 1)), member("b", 2)], asked())
    assert found is not None
    assert found.executor_id == "b"
    assert propose([reserving(3, member("a", 1))], asked()) is None
    assert refusal([reserving(3, member("a", 1))], asked()).code is ErrorCode.QUEUE_FULL
