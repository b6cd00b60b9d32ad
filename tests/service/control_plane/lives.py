"""Who acts in ``test_state_machine``: a driver that may be late, an executor's journal; and what the database says of a run.

They keep to the protocol as ``control_plane/runs`` does, and judge nothing but what is told to be a fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Move, News, Stop, Told
from control_plane.domain.placing import NextStep, next_step
from control_plane.domain.run import Lease
from control_plane.domain.standing import NO_WORK
from control_plane.storage.parking import ParkingStore
from control_plane.storage.run_log import Write
from shared.contracts.events import AttemptLost, InteractionResolved
from shared.contracts.runs import TERMINAL, RunStatus
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import PLACE, Stores, frame

ENDS = {
    "success": {"outcome": "success", "result": "done"},
    "error": {"outcome": "error", "errorCode": "engine_exit_nonzero"},
    "did not start": {"outcome": "error", "errorCode": "engine_start_failed"},
    "rate_limited": {"outcome": "error", "errorCode": "rate_limited"},
    "timeout": {"outcome": "timeout", "errorCode": "timeout"},
    "canceled": {"outcome": "canceled"},
    "lost": {"outcome": "lost", "errorCode": "executor_lost"},
}
PARKED = {"outcome": "parked"}


@dataclass
class Journal:
    """All attempts of one run as their executors wrote them. An attempt that ended, or was followed by another, says no more."""

    run_id: str
    attempts: dict[int, list[FromExecutor]] = field(default_factory=dict[int, list[FromExecutor]])
    asked: dict[str, int] = field(default_factory=dict[str, int])  # open in its engine: question → attempt
    questions: list[str] = field(default_factory=list[str])
    told: dict[int, list[str]] = field(default_factory=dict[int, list[str]])  # with the start of an attempt, replies to these
    answered: set[str] = field(default_factory=set[str])  # these in the engine that had asked

    @property
    def living(self) -> int | None:
        newest = max(self.attempts, default=0)
        frames = self.attempts.get(newest, [])
        return newest if newest and not (frames and frames[-1].kind == "attempt.ended") else None

    def begin(self, attempt: int, told: list[str] | None = None) -> None:
        """A start that is repeated begins nothing, and tells nothing. ``told`` None: there was none."""
        if attempt not in self.attempts and attempt > max(self.attempts, default=0):
            if told is not None:
                self.told[attempt] = told
            self.attempts[attempt] = []
            self.asked.clear()
            timeouts = {"runMs": 60_000, "idleMs": 60_000, "stopGraceMs": 5_000, "rule": "default"}
            self._write("attempt.started", {"executorId": "executor-1", "timeouts": timeouts})

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        if (attempt := self.living) is not None:
            frames = self.attempts[attempt]
            frames.append(frame(len(frames) + 1, kind, json.dumps(data), attempt))

    def tell(self, what: str, answered: Sequence[str]) -> None:
        attempt = self.living
        if attempt is None:
            return
        number = len(self.attempts[attempt]) + 1
        match what:
            case "says":
                self._write("message.completed", {"messageId": f"m{number}", "text": f"{attempt}.{number}"})
            case "calls_a_tool":
                self._write("tool.started", {"toolId": f"t{number}", "name": "shell", "input": {}})
            case "begins_a_session":
                self._write("session.started", {"engineSession": f"session-{attempt}"})
            case "asks":
                question = f"q{attempt}-{number}"
                self._write("interaction.requested", {"questionId": question, "type": "question", "prompt": "?"})
                self.asked[question] = attempt
                self.questions.append(question)
            case "withdraws_a_question":
                self._resolve(next(iter(self.asked), None), "withdrawn")
            case _:
                self._resolve(next((each for each in answered if each in self.asked), None), "answered")

    def _resolve(self, question: str | None, how: str) -> None:
        if question is not None:
            self._write("interaction.resolved", {"questionId": question, "how": how})
            del self.asked[question]
            if how == "answered":
                self.answered.add(question)

    def unheard(self, delivered: Sequence[str]) -> list[str]:
        """Replies that count as delivered although no engine has them: another attempt followed on one that did nothing, and was
        not told."""
        found: list[str] = []
        for question in delivered:
            last = max((attempt for attempt, told in self.told.items() if question in told), default=0)
            worked = any(each.kind not in NO_WORK for each in self.attempts.get(last, []))
            if question not in self.answered and not (last and (worked or last == max(self.told))):
                found.append(question)
        return found

    def end(self, how: str) -> None:
        self._end_with(ENDS[how])

    def park(self, attempt: int, waits_for: Sequence[str]) -> bool:
        """As its executor does it: only while its engine waits for exactly these."""
        parks = attempt == self.living and bool(waits_for) and set(waits_for) == set(self.asked)
        if parks:
            self._end_with(PARKED)
        return parks

    def _end_with(self, outcome: Mapping[str, str]) -> None:
        self._write("attempt.ended", {"activeMs": 1, **outcome})
        self.asked.clear()

    def after(self, attempt: int, cursor: int) -> list[FromExecutor]:
        return [each for each in self.attempts.get(attempt, []) if each.executor_cursor > cursor]

    def said_by_cursor(self, stored: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """What engines said, as far as it is stored: of every attempt a beginning, in order."""
        found: list[tuple[int, str]] = []
        for attempt, frames in sorted(self.attempts.items()):
            texts = [json.loads(each.data)["text"] for each in frames if each.kind == "message.completed"]
            of_it = [text for number, text in stored if number == attempt]
            found += [(attempt, text) for text in texts[: len(of_it)]]
        return found


@dataclass(frozen=True)
class Driver:
    """One claim, in the hands of the replica that made it. Every verb answers whether something was written."""

    stores: Stores
    lease: Lease
    journal: Journal

    async def _write(self, *news: News) -> bool:
        [change] = await self.stores.log.write([Write(self.lease.run_id, news, self.lease.token)])
        return change is not None

    async def take_up(self) -> bool:
        """What becomes of a run without a living attempt."""
        run = await self.stores.runs.driven(self.lease.run_id)
        if run.status in TERMINAL or run.attempt_living:
            return False
        match next_step(run):
            case NextStep.CANCEL:
                return await self._write(Move(Signal.STOPPED))
            case NextStep.GIVE_UP:
                return await self._write(Move(Signal.GIVEN_UP, ErrorCode.EXECUTOR_LOST))
            case NextStep.PLACE:
                return await self.stores.runs.next_attempt(self.lease, PLACE) is not None

    async def start(self) -> bool:
        """The executor takes the attempt, also from a driver that is late; that it began is written by the holder."""
        told = await self._begun()
        if told is None:
            return False
        run = await self.stores.runs.driven(self.lease.run_id)
        news: list[News] = [Move(Signal.ATTEMPT_ACCEPTED)]
        if told or run.status is RunStatus.WAITING_USER:
            news.append(Told(tuple(InteractionResolved(question_id=each, how="answered") for each in told)))
        return await self._write(*news)

    async def start_unheard(self) -> bool:
        """The executor takes the attempt, and its answer is lost, or the driver dies before it has written so."""
        await self._begun()
        return False

    async def _begun(self) -> list[str] | None:
        """The questions whose replies travel with the start; None where none is to be sent."""
        run = await self.stores.runs.driven(self.lease.run_id)
        if not run.attempt_living or run.attempt_started or run.status in TERMINAL:
            return None
        told = [each.question_id for each in await self.stores.interactions.carried(run.run_id, run.attempt)]
        self.journal.begin(run.attempt, told)
        return told

    async def ask_to_park(self) -> bool:
        """Any sweeper may, with a lease or without."""
        await ParkingStore(self.stores.pool).ask(0)
        return False

    async def park(self) -> bool:
        run, parking = await self.stores.runs.driven(self.lease.run_id), ParkingStore(self.stores.pool)
        if run.is_to_park and not await self.stores.interactions.answered(run.run_id):
            waits_for = await self.stores.interactions.open_ids(run.run_id)
            if run.status is not RunStatus.WAITING_USER or not self.journal.park(run.attempt, waits_for):
                await parking.refused(run.run_id, run.attempt, for_good=False)
        return False

    async def record(self, again: int = 0) -> bool:
        """Everything its executor told since the stored cursor, and ``again`` frames that are stored already."""
        run = await self.stores.runs.driven(self.lease.run_id)
        frames = self.journal.after(run.attempt, max(run.executor_cursor - again, 0))
        return run.attempt_started and bool(frames) and await self._write(*frames)

    async def record_again(self) -> bool:
        return await self.record(again=3)

    async def lose(self) -> bool:
        run = await self.stores.runs.driven(self.lease.run_id)
        if not run.attempt_living:
            return False
        written = await self._write(Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent")))
        if written:
            self.journal.begin(run.attempt)  # it may never have been started; now it never will be
            self.journal.end("lost")
        return written

    async def withdraw(self) -> bool:
        """A definite no: nothing runs there."""
        run = await self.stores.runs.driven(self.lease.run_id)
        if not run.attempt_living or run.attempt_started or run.attempt in self.journal.attempts:
            return False
        await self.stores.runs.withdraw_attempt(self.lease, run.attempt)
        return (await self.stores.runs.driven(self.lease.run_id)).attempt < run.attempt

    async def refuse(self) -> bool:
        """Its executor does not begin it, for a reason that can pass."""
        run = await self.stores.runs.driven(self.lease.run_id)
        if not run.attempt_living or run.attempt_started or run.attempt in self.journal.attempts:
            return False
        return await self._write(Move(Signal.START_REFUSED, ErrorCode.ENGINE_START_FAILED, "not now"))

    async def renew(self) -> bool:
        return bool(await self.stores.runs.renew([self.lease], 3600))

    async def let_go(self) -> bool:
        await self.stores.runs.let_go(self.lease)
        return False

    async def give_up(self) -> bool:
        run = await self.stores.runs.driven(self.lease.run_id)
        if run.attempt_living or run.status in TERMINAL:
            return False
        return await self._write(Move(Signal.START_REFUSED, ErrorCode.CAPABILITY_UNAVAILABLE, "cannot ask"))

    async def stop(self, run_id: str) -> None:
        await self.stop_at(self.stores, run_id)

    @staticmethod
    async def stop_at(stores: Stores, run_id: str) -> None:
        await stores.log.write([Write(run_id, [Stop()])])


_LOOK = """
SELECT run.status::text AS status, run.finished_at, head.last_cursor, head.attempt, head.lease_token, head.claim_after,
       (SELECT count(*) FROM attempts WHERE attempts.run_id = run.id AND ended_at IS NULL) AS living,
       ARRAY (SELECT question_id || ':' || status FROM interactions AS asked
              WHERE asked.run_id = run.id ORDER BY question_id) AS asked,
       (SELECT json_object_agg(question_id, answered_by) FROM interactions AS asked
        WHERE asked.run_id = run.id AND answer IS NOT NULL AND answered_by <> 'expiry') AS answers
FROM agent_runs AS run JOIN run_heads AS head ON head.run_id = run.id WHERE run.id = $1
"""


@dataclass(frozen=True)
class Seen:
    """A run as the database has it. Two of them are equal where nothing moved but leases."""

    status: RunStatus
    finished_at: Any
    last_cursor: int
    attempt: int
    living: int
    asked: tuple[str, ...]
    answers: dict[str, str]
    events: tuple[tuple[int, str, str], ...]
    said: list[tuple[int, str]]
    leased: bool = field(compare=False)
    resting: bool = field(compare=False)

    def faults(self) -> list[str]:
        over = self.status in TERMINAL
        ends = [cursor for cursor, kind, data in self.events if kind == "run.status" and json.loads(data)["status"] in TERMINAL]
        resolved = [json.loads(data)["questionId"] for _, kind, data in self.events if kind == "interaction.resolved"]
        open_questions = [each for each in self.asked if each.endswith((":pending", ":answered"))]
        left = [each for each in self.answers if f"{each}:withdrawn" in self.asked]
        diagnostics = [json.loads(data) for _, kind, data in self.events if kind == "diagnostic"]
        told = {each["message"].split(":")[0] for each in diagnostics if each["code"] == "reply_undeliverable"}
        waits_for_reply = self.status is RunStatus.WAITING_USER and any(each.endswith(":pending") for each in self.asked)
        claims = {
            "cursors are dense": [cursor for cursor, _, _ in self.events] == list(range(1, self.last_cursor + 1)),
            "one end, and nothing after it": ends == ([self.last_cursor] if over else []),
            "it ended when it was over": (self.finished_at is not None) == over,
            "at most one attempt lives": self.living <= (0 if over else 1),
            "a question is resolved once": len(resolved) == len(set(resolved)),
            "an accepted reply nobody took is told of": set(left) <= told,
            "nothing is open when it is over": not (over and (open_questions or self.leased or not self.resting)),
            "only who waits for a person rests": over or not self.resting or waits_for_reply,
        }
        return [claim for claim, holds in claims.items() if not holds]


async def look(connection: asyncpg.Connection, run_id: str) -> Seen:
    row = await connection.fetchrow(_LOOK, run_id)
    assert row is not None
    rows = await connection.fetch("SELECT cursor, attempt, kind, data FROM run_events WHERE run_id = $1 ORDER BY cursor", run_id)
    said = [(each["attempt"], json.loads(each["data"])["text"]) for each in rows if each["kind"] == "message.completed"]
    return Seen(
        status=RunStatus(row["status"]), finished_at=row["finished_at"], last_cursor=row["last_cursor"], attempt=row["attempt"],
        living=row["living"], asked=tuple(row["asked"]), answers=json.loads(row["answers"] or "{}"),
        events=tuple((each["cursor"], each["kind"], each["data"]) for each in rows), said=said,
        leased=row["lease_token"] is not None, resting=row["claim_after"] is None,
    )  # fmt: skip
