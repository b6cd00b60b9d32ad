"""How long each death took: from kills that stood alone, by what the clients of that moment heard."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared.contracts.runs import TERMINAL
from tests.chaos.storm.clients import TICKING, Followed
from tests.chaos.storm.killer import ALONE_SECONDS, Kill

_NEWS_OF_LOSS = frozenset({b"attempt.lost", b"attempt.ended", b"attempt.started"})


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds, of all runs that a kind of kill touched: until the loss was told, and until the run's status was true again."""

    kills: int
    told: list[float]
    true: list[float]
    silences: list[float]  # the longest time that each ticking client heard nothing


def took(kills: Sequence[Kill], followed: Sequence[Followed]) -> dict[str, Took]:
    """By what was killed, and how."""
    found: dict[str, Took] = defaultdict(lambda: Took(0, [], [], []))
    for kill in kills:
        if not kill.alone:
            continue
        name = f"{kill.victim.rstrip('-0123456789')} {'frozen' if kill.how.name == 'SIGSTOP' else 'killed'}"
        before = found[name]
        told, true, silences = list(before.told), list(before.true), list(before.silences)
        for run in followed:
            if kill.victim.startswith("executor-") and kill.victim[-1].isdigit() and _lived_on(run, kill):
                told += _first(run, kill.at, _NEWS_OF_LOSS)
                true += _truth(run, kill.at)
            elif run.kind == TICKING:
                silences += _silence(run, kill.at)
        found[name] = Took(before.kills + 1, told, true, silences)
    return dict(sorted(found.items()))


def _lived_on(run: Followed, kill: Kill) -> bool:
    """Whether the run's newest attempt before the kill had begun there and had not ended."""
    executor: str | None = None
    for frame, at in zip(run.frames, run.at, strict=True):
        if at >= kill.at:
            break
        if frame.event == b"attempt.started":
            executor = json.loads(frame.data)["data"]["executorId"]
        elif frame.event in {b"attempt.ended", b"attempt.lost"}:
            executor = None
    return executor == kill.victim


def _first(run: Followed, since: float, kinds: frozenset[bytes]) -> Iterable[float]:
    return [at - since for frame, at in zip(run.frames, run.at, strict=True) if at >= since and frame.event in kinds][:1]


def _truth(run: Followed, since: float) -> Iterable[float]:
    """Its end, its next attempt, or that it waits for its person with nobody to drive it."""
    for frame, at in zip(run.frames, run.at, strict=True):
        if at < since:
            continue
        ended = frame.event == b"run.status" and json.loads(frame.data)["data"]["status"] in TERMINAL
        if ended or frame.event in {b"attempt.started", b"attempt.lost"}:
            return [at - since]
    return []


def _silence(run: Followed, since: float) -> Iterable[float]:
    until = since + ALONE_SECONDS
    if not run.at or run.at[0] > since or run.at[-1] < until:
        return []
    heard = [since, *(at for at in run.at if since <= at)]
    return [max(after - before for before, after in pairwise(heard) if before <= until)]


def table(found: dict[str, Took]) -> str:
    """Markdown: seconds, median and worst."""
    lines = [
        "| what died, alone | kills | loss told, s | true status, s | longest silence of a ticking client, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, each in found.items():
        lines.append(f"| {name} | {each.kills} | {_both(each.told)} | {_both(each.true)} | {_both(each.silences)} |")
    return "\n".join(lines)


def _both(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f} (worst {ordered[-1]:.1f}, n = {len(ordered)})"


def joined(storms: Iterable[dict[str, Took]]) -> dict[str, Took]:
    """The same of several storms."""
    found: dict[str, Took] = {}
    for storm in storms:
        for name, each in storm.items():
            before = found.get(name, Took(0, [], [], []))
            found[name] = Took(
                before.kills + each.kills, before.told + each.told, before.true + each.true, before.silences + each.silences
            )
    return dict(sorted(found.items()))
