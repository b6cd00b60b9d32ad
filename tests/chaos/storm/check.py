"""The one checker: what a storm left in the database, held against what its clients saw and were promised."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg

from shared.contracts.runs import TERMINAL
from tests.chaos.storm.clients import TICKING, Followed
from tests.e2e.kit import processes_with, soon

# How runs of a storm may end: well, or because the executor under them was killed after they had done something.
TRUE_ENDS = frozenset({("success", None), ("error", "executor_lost")})
# Or because that happened to it again and again, which says that it is itself what is wrong: by chance, in a storm. A start that
# was sent and never confirmed counts: its executor may have died of it.
POISON, POISON_ATTEMPTS = ("error", "poison_run"), 3

# What a run that asked and ended well has said: in one attempt, or parked and woken by its reply.
ASKING_STORIES = (
    re.compile(r"spawned \d+\nup\nreply: \S+\nafter"),
    re.compile(r"spawned \d+\nup\nturns: \d+\nYou asked: which colour\?\nThe answer: \S+"),
)

_LOGS = """
SELECT run_id, count(*) AS events, min(cursor) AS first, max(cursor) AS last,
       count(DISTINCT attempt) FILTER (WHERE kind = 'attempt.started'
           OR kind = 'attempt.lost' AND data::json ->> 'reason' NOT LIKE 'its executor never began it%') AS maybe_begun,
       array_agg(cursor) FILTER (WHERE kind = 'run.status' AND data::json ->> 'status' = ANY ($1)) AS ends
FROM run_events GROUP BY run_id
"""
_RUNS = """
SELECT run.id, run.status::text AS status, run.error_code, head.last_cursor, head.lease_token, head.claim_after,
       (SELECT count(*) FROM attempts WHERE attempts.run_id = run.id AND attempts.ended_at IS NULL) AS living,
       (SELECT count(*) FROM interactions AS asked
        WHERE asked.run_id = run.id AND asked.status IN ('pending', 'answered')) AS open
FROM agent_runs AS run JOIN run_heads AS head ON head.run_id = run.id
"""


async def violations(dsn: str, followed: Sequence[Followed]) -> list[str]:
    """Everything that does not hold, in words; empty when all is well. The storm is over and every run has ended."""
    connection = await asyncpg.connect(dsn)
    try:
        logs = {row["run_id"]: row for row in await connection.fetch(_LOGS, [status.value for status in TERMINAL])}
        found: list[str] = []
        stories = {run.run_id: _story(run) for run in followed}
        for row in await connection.fetch(_RUNS):
            found += [fault + stories.get(row["id"], "") for fault in faults_of_run(row, logs.get(row["id"]))]
        for run in followed:
            stored = await connection.fetch(
                "SELECT cursor, kind, data FROM run_events WHERE run_id = $1 ORDER BY cursor", run.run_id
            )
            found += faults_of_client(run, stored)
        known = {row["id"] for row in await connection.fetch("SELECT id FROM agent_runs")}
    finally:
        await connection.close()
    missing = {run.run_id for run in followed} - known
    started_twice = len(known) - len(followed)
    found += [f"{run_id} was started and is not there" for run_id in missing]
    found += [f"{started_twice} runs nobody asked for"] if started_twice > 0 else []
    ours = tuple(f"{run_id}." for run_id in known)
    if not soon(lambda: not _left(ours), 10):
        found.append(f"processes without a run: {_left(ours)}")
    return found


def _left(marks: tuple[str, ...]) -> list[int]:
    """Processes that carry the mark of one of our runs."""
    return [pid for pid in processes_with("RUNYARD_RUN", "run_") if _mark_of(pid).startswith(marks)]


def _mark_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except OSError:
        return ""
    return next((line[12:].decode() for line in environ.split(b"\0") if line.startswith(b"RUNYARD_RUN=")), "")


def faults_of_run(row: Any, log: Any | None) -> list[str]:
    """Cursors dense from 1, one end and nothing after it, no lease, attempt or question left."""
    run_id = row["id"]
    if log is None:
        return [f"{run_id} has no events"]
    end = (row["status"], row["error_code"])
    claims = {
        "is over": row["status"] in TERMINAL,
        "has dense cursors": (log["first"], log["last"]) == (1, log["events"]),
        "knows its last cursor": row["last_cursor"] == log["last"],
        "has one end, and nothing after it": log["ends"] == [log["last"]],
        "ended for a true reason": end in TRUE_ENDS or (end == POISON and log["maybe_begun"] >= POISON_ATTEMPTS),
        "is leased to nobody": row["lease_token"] is None and row["claim_after"] is None,
        "has no living attempt": row["living"] == 0,
        "has no open question": row["open"] == 0,
    }
    said = f"{row['status']}/{row['error_code']}, cursors {log['first']}..{log['last']} of {log['events']}, ends {log['ends']}"
    return [f"not so: {run_id} {claim} ({said})" for claim, holds in claims.items() if not holds]


def faults_of_client(run: Followed, stored: Sequence[Any]) -> list[str]:
    """The client's list is the stored one; what was promised to it was kept once."""
    found: list[str] = []
    seen = [(int(frame.id), frame.event.decode(), json.loads(frame.data)["data"]) for frame in run.frames]
    if seen != [(row["cursor"], row["kind"], json.loads(row["data"])) for row in stored]:
        found.append(f"{run.run_id}: its client saw {len(seen)} events, not the {len(stored)} that are stored")
    said = [data["text"] for _, kind, data in seen if kind == "message.completed"]
    resolved = Counter(data["questionId"] for _, kind, data in seen if kind == "interaction.resolved")
    found += [f"{run.run_id}: question {id} was resolved {times} times" for id, times in resolved.items() if times > 1]
    for question, answer in run.promised.items():
        times = sum(answer in text for text in said)
        if times > 1 or (times == 0 and run.ended == "success"):
            found.append(f"{run.run_id}: the answer to {question} was told {times} times: {_story(run)}")
    if run.kind == TICKING:
        found += said_faults(run.run_id, said, run.ticks, is_whole=run.ended == "success")
    elif run.ended == "success" and not any(story.fullmatch("\n".join(said)) for story in ASKING_STORIES):
        found.append(f"{run.run_id} said something else than its script: {said}")
    return found


def said_faults(run_id: str, texts: Sequence[str], ticks: int, *, is_whole: bool = True) -> list[str]:
    """Whether a run's messages are what its script says, exactly and in order; as far as they go where it did not end well."""
    wanted = [f"tick {number}" for number in range(1, ticks + 1)]
    if list(texts) == (wanted if is_whole else wanted[: len(texts)]):
        return []
    missing = [each for each in wanted if each not in set(texts)]
    return [f"{run_id} said {len(texts)} messages, not {ticks}: missing {missing[:5]}, first {list(texts[:3])}"]


def _story(run: Followed) -> str:
    """What happened to it, without what it said."""
    told = [(frame.event.decode(), frame.data.decode()) for frame in run.frames if frame.event != b"message.delta"]
    return "".join(f"\n    {kind} {data}" for kind, data in told)
