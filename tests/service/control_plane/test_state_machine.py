"""The life of runs as hypothesis plays it: several replicas over one Postgres, in any order that drivers, people and executors
could act in, with leases that lapse and holders that do not know it. What must hold is looked at after every step.

``RUNYARD_STATE_MACHINE=200`` plays so many lives instead of the few of ``make test``.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from control_plane.interactions.expire import ExpireQuestions
from control_plane.storage.pool import make_pool
from shared.contracts.interactions import Reply
from shared.contracts.runs import TERMINAL, RunStatus
from tests.service.control_plane.conftest import Stores, new_run
from tests.service.control_plane.lives import ENDS, Driver, Journal, Seen, look

REPLICAS = 3
LIVES = int(os.environ.get("RUNYARD_STATE_MACHINE", "30"))
IS_SHORT = LIVES == 30
# A broken life of the short ones is shown as it was found: to make it smaller takes minutes.
PHASES = (Phase.generate,) if IS_SHORT else (Phase.generate, Phase.shrink)
STEPS = 40
# What a driver may do at once, as far as other replicas notice.
STEPS_OF = {
    "on": ("take_up", "start", "record"), "lose_and_on": ("lose", "take_up", "start", "record"), "lose": ("lose",),
    "renew": ("renew",), "let_go": ("let_go",), "withdraw": ("take_up", "withdraw"), "give_up": ("give_up",),
    "refuse": ("take_up", "refuse"), "start_unheard": ("take_up", "start_unheard"), "park": ("ask_to_park", "park", "record"),
}  # fmt: skip
ENGINES_DO = ("says", "calls_a_tool", "begins_a_session", "asks", "asks", "withdraws_a_question", *ENDS)
PEOPLE_DO = ("answer", "answer", "answer", "stop", "say nothing")
TIME_DOES = ("a lease lapses", "a lease lapses and is taken", "a wait passes")
# What becomes of the attempt that a reply has woken, before anybody knows that its engine heard of it.
WOKEN = ("its start is unheard", "it is refused", "it does nothing", "it is lost")
BEGINNINGS = ("works", "asks", "is answered", "is lost and waits", *WOKEN)
# Of all lives those that begin with each of them: chance may leave one out.
LIVES_OF: dict[tuple[str, ...], int] = {(how,): max(LIVES // 15, 1) for how in WOKEN}
LIVES_OF[BEGINNINGS] = max(LIVES - sum(LIVES_OF.values()), 1)
ACTORS = ("driver", "driver", "engine", "engine", "person", "time", "replica", "caller", "all")
Done = TypeVar("Done")
_numbers = count(1)


class Ground:
    """What all lives of a test share: a loop, the replicas' stores, and a connection that can move the clock."""

    def __init__(self, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self.replicas: list[Stores] = []
        self.clock = self.runner.run(self._opened(dsn))

    async def _opened(self, dsn: str) -> asyncpg.Connection:
        for _ in range(REPLICAS):
            self.replicas.append(Stores(await self._open.enter_async_context(make_pool(dsn, 3))))
        connection = await asyncpg.connect(dsn)
        self._open.push_async_callback(connection.close)
        return connection

    def close(self) -> None:
        self.runner.run(self._open.aclose())
        self.runner.close()


class Lives(RuleBasedStateMachine):
    """Everybody acts as code of ours would; drivers never learn that their lease is gone but from the answer to a write.

    There is one rule, with everything to choose from: of several, hypothesis would leave some out of every life.
    """

    ground: ClassVar[Ground]
    reached: ClassVar[Counter[str]]
    beginnings: ClassVar[tuple[str, ...]]
    replica = st.integers(0, REPLICAS - 1)
    which = st.integers(0, 5)  # of the newest runs or drivers

    def __init__(self) -> None:
        super().__init__()
        self.journals: dict[str, Journal] = {}
        self.drivers: list[Driver] = []  # the newest first; most of them are late
        self.seen: dict[str, Seen] = {}
        self.accepted: dict[tuple[str, str], str] = {}  # the replies that were taken, by question

    def do(self, work: Coroutine[Any, Any, Done]) -> Done:
        return self.ground.runner.run(work)

    def sql(self, statement: str, *values: Any) -> Any:
        return self.do(self.ground.clock.fetch(statement, *values))

    def run_of(self, which: int) -> str:
        runs = list(self.journals)
        return runs[which % len(runs)]

    @rule(who=st.sampled_from(ACTORS), what=st.integers(0, len(ENGINES_DO) - 1), which=which, other=which)
    def something_happens(self, who: str, what: int, which: int, other: int) -> None:
        match who:
            case "driver":
                self.drive(which, list(STEPS_OF)[what % len(STEPS_OF)])
            case "engine":
                self.engine(which, ENGINES_DO[what % len(ENGINES_DO)], is_heard=other > 1)
            case "person":
                self.people(which, PEOPLE_DO[what % len(PEOPLE_DO)], ["yes", "no"] if other % 2 else ["no", "yes"])
            case "time":
                self.time_passes(which, TIME_DOES[what % len(TIME_DOES)])
            case "replica":
                self.claim(which % REPLICAS)
            case "caller":
                self.create(which % REPLICAS, (None, 1, 3)[what % 3], leave=other % 2 == 0)
            case _:
                self.at_once(which, other, what)

    # ---- runs come, and drivers take them ----

    @initialize(at=replica, nth=st.integers(0, len(BEGINNINGS) - 1))
    def a_run_to_begin_with(self, at: int, nth: int) -> None:
        beginning = self.beginnings[nth % len(self.beginnings)]
        self.reached[beginning] += 1
        self.create(at, None, leave=beginning in ("asks", *WOKEN))
        self.claim(at)
        self.drive(0, "on")
        if beginning != "works":
            self.engine(0, "asks", True)
        if beginning == "is lost and waits":
            self.drive(0, "lose")
        if beginning == "is answered":
            self.two_answer_at_once(self.run_of(0), ["yes", "no"])
        if beginning in WOKEN:
            self._park_and_wake(at)
            self._woken(beginning)

    def _park_and_wake(self, at: int) -> None:
        """Two questions are open, and the reply to one of them has woken the run: its next attempt is to be started."""
        self.engine(0, "begins_a_session", True)
        self.engine(0, "asks", True)
        self.drive(0, "park")
        run = self.run_of(0)
        assert self._look(run).resting, "it was not parked"
        self.two_answer_at_once(run, ["yes", "no"], self.journals[run].questions[:1])
        self.claim(at)

    def _woken(self, how: str) -> None:
        """Then the other question is answered, and whoever comes next goes on."""
        match how:
            case "its start is unheard":
                self.drive(0, "start_unheard")
            case "it is refused":
                self.drive(0, "refuse")
            case "it does nothing":
                self.drive(0, "on")
                self.engine(0, "did not start", True)
            case _:
                self.drive(0, "on")
                self.drive(0, "lose")
        self.everything_promised_holds()
        self.two_answer_at_once(self.run_of(0), ["no", "yes"])
        self.time_passes(0, "a wait passes")
        self.time_passes(0, "a lease lapses and is taken")
        self.drive(0, "on")

    def create(self, at: int, attempts: int | None, leave: bool) -> None:
        if len(self.journals) < 3:
            run_id = f"run_life_{next(_numbers)}"
            made = new_run(run_id, max_attempts=attempts, retry_after_side_effects=leave)
            self.do(self.ground.replicas[at].runs.create(made, None))
            self.journals[run_id] = Journal(run_id)

    def claim(self, at: int) -> None:
        """A lease is given only for a run that nobody holds."""
        held = {row["run_id"] for row in self.sql("SELECT run_id FROM run_heads WHERE lease_until >= now()")}
        leases = self.do(self.ground.replicas[at].runs.claim(10, 3600))
        taken = {lease.run_id for lease in leases}
        assert not taken & held, f"{taken & held} had a holder"
        assert all(self.seen[run_id].status not in TERMINAL for run_id in taken if run_id in self.seen)
        self.drivers[:0] = [Driver(self.ground.replicas[at], lease, self.journals[lease.run_id]) for lease in leases]

    def time_passes(self, which: int, what: str) -> None:
        run = self.run_of(which)
        if what == "a wait passes":
            self.sql("UPDATE run_heads SET claim_after = now() WHERE run_id = $1 AND claim_after > now()", run)
        else:
            self.sql("UPDATE run_heads SET lease_until = now() - interval '1 s' WHERE run_id = $1 AND lease_until > now()", run)
        if what == "a lease lapses and is taken":
            self.claim(which % REPLICAS)

    # ---- what drivers do, also those who do not know that they are none any more ----

    def drive(self, which: int, step: str) -> None:
        if self.drivers:
            driver = self.drivers[which % len(self.drivers)]
            for each in STEPS_OF[step]:
                self._act(driver, each)

    def _act(self, driver: Driver, step: str) -> None:
        run_id = driver.lease.run_id
        [row] = self.sql("SELECT lease_token FROM run_heads WHERE run_id = $1", run_id)
        is_ours, before = row["lease_token"] == driver.lease.token, self._look(run_id)
        written = self.do(getattr(driver, step)())
        self.reached["a driver was late"] += not is_ours
        assert is_ours or not written, f"a {step} without the lease was written"
        assert is_ours or self._look(run_id) == before, f"a {step} without the lease changed something"

    def at_once(self, one: int, other: int, run: int) -> None:
        """Two drivers, a renewal and a stop, and nobody waits for anybody."""
        if not self.drivers:
            return
        first, second = (self.drivers[which % len(self.drivers)] for which in (one, other))

        async def all_at_once() -> None:
            await asyncio.gather(first.record(), second.record_again(), first.renew(), first.stop(self.run_of(run)))

        self.do(all_at_once())

    # ---- what engines do ----

    def engine(self, which: int, what: str, is_heard: bool) -> None:
        run = self.run_of(which)
        if what in ENDS:
            self.journals[run].end(what)
        else:
            answered = self.do(self.ground.replicas[0].interactions.answered(run))
            self.journals[run].tell(what, [each.question_id for each in answered])
        driver = next((each for each in self.drivers if each.lease.run_id == run), None)
        if is_heard and driver is not None:
            self._act(driver, "record")
            self._act(driver, "record_again")  # as after a commit nobody heard of

    # ---- what people do ----

    def people(self, which: int, what: str, words: list[str]) -> None:
        run, stores = self.run_of(which), self.ground.replicas[which % REPLICAS]
        match what:
            case "answer":
                self.two_answer_at_once(run, words)
                if words[0] == "yes":  # else nobody delivers it for now
                    self.engine(which, "is_told", True)
            case "stop":
                self.do(Driver.stop_at(stores, run))
            case _:
                self.sql("UPDATE interactions SET expires_at = now() - interval '1 s' WHERE run_id = $1", run)
                self.do(ExpireQuestions(stores.interactions, stores.log)())

    def two_answer_at_once(self, run: str, words: list[str], questions: Sequence[str] | None = None) -> None:
        """At most one of them is heard, and one that was heard before stays. ``questions`` None: all that were asked."""
        for question in self.journals[run].questions if questions is None else questions:

            async def both(question: str = question) -> list[bool]:
                replicas = self.ground.replicas
                return await asyncio.gather(
                    *(replicas[n].interactions.answer(run, question, Reply(answer=word), word) for n, word in enumerate(words))
                )

            taken = [word for word, was_taken in zip(words, self.do(both()), strict=True) if was_taken]
            assert len(taken) + ((run, question) in self.accepted) <= 1, f"{question} of {run} was answered twice"
            if taken:
                self.reached["a reply was taken"] += 1
                self.accepted[run, question] = taken[0]

    # ---- what must hold ----

    def _look(self, run_id: str) -> Seen:
        return self.do(look(self.ground.clock, run_id))

    @invariant()
    def everything_promised_holds(self) -> None:
        for run_id, journal in self.journals.items():
            now, before = self._look(run_id), self.seen.get(run_id)
            assert now.faults() == [], f"{run_id}: {now}"
            assert now.said == journal.said_by_cursor(now.said), f"{run_id}: its log says what no engine said, or twice"
            delivered = [each.removesuffix(":delivered") for each in now.asked if each.endswith(":delivered")]
            assert journal.unheard(delivered) == [], f"{run_id}: a reply counts as delivered that no engine has heard"
            if before is not None:
                assert now.events[: len(before.events)] == before.events, f"{run_id}: its past has changed"
            if before is not None and before.status in TERMINAL:
                assert now == before, f"{run_id} moved after its end"
            for question, word in now.answers.items():
                assert self.accepted.get((run_id, question)) == word, f"{question} of {run_id} has an answer nobody gave"
            self.seen[run_id] = now
            self.reached.update({now.status.value: 1, "parked": now.resting and now.status not in TERMINAL})
            self.reached["a further attempt"] += now.attempt > 1
            self.reached["a reply was delivered"] += any(each.endswith(":delivered") for each in now.asked)

    def teardown(self) -> None:
        """From wherever they are, runs whose drivers act come to their end; nobody is in the next life's way."""
        try:
            for run_id in self.journals:
                self._bring_to_its_end(run_id)
                self.everything_promised_holds()
        finally:
            self.sql("UPDATE run_heads SET claim_after = NULL, lease_token = NULL, lease_until = NULL")
            self.sql("UPDATE interactions SET status = 'withdrawn' WHERE status = 'pending'")

    def _bring_to_its_end(self, run_id: str) -> None:
        for _ in range(20):
            self.sql(
                "UPDATE run_heads SET lease_until = now() - interval '1 s' WHERE run_id = $1 AND lease_until > now()", run_id
            )
            self.sql("UPDATE run_heads SET claim_after = now() WHERE run_id = $1 AND claim_after > now()", run_id)
            self.two_answer_at_once(run_id, ["yes", "no"])
            self.do(self._one_drive(run_id))
            if self._look(run_id).status in TERMINAL:
                return
        raise AssertionError(f"{run_id} does not come to its end: {self._look(run_id)}")

    async def _one_drive(self, run_id: str) -> None:
        stores = self.ground.replicas[1]
        lease = next((each for each in await stores.runs.claim(10, 0.001) if each.run_id == run_id), None)
        if lease is None:
            assert (await look(self.ground.clock, run_id)).status in TERMINAL, f"{run_id} cannot be claimed"
            return
        driver = Driver(stores, lease, self.journals[run_id])
        for step in (driver.take_up, driver.start, driver.record):
            await step()
        self.journals[run_id].end("success")
        await driver.record()


@pytest.fixture
def ground(database: str) -> Iterator[Ground]:
    made = Ground(database)
    yield made
    made.close()


def test_whatever_drivers_people_and_engines_do_every_run_keeps_its_promises(ground: Ground) -> None:
    Lives.ground, Lives.reached = ground, Counter()
    for beginnings, lives in LIVES_OF.items():
        Lives.beginnings = beginnings
        bounds = settings(
            max_examples=lives, stateful_step_count=STEPS, deadline=None, database=None, derandomize=IS_SHORT,
            print_blob=False, phases=PHASES,
        )  # fmt: skip
        run_state_machine_as_test(Lives, settings=bounds)
    expected = {
        *RunStatus,
        "a driver was late",
        "a reply was taken",
        "a reply was delivered",
        "a further attempt",
        "parked",
        *WOKEN,
    }
    assert {what for what in expected if not Lives.reached[what]} == set(), dict(Lives.reached)
