"""Prints the life of a run, as a diagram and as a table, from the one table that decides it. See ``docs/lifecycle.md``."""

from __future__ import annotations

import sys
from collections import defaultdict

from control_plane.domain.lifecycle import TRANSITIONS, Signal
from scripts.generated_parts import Part, print_or_write, table
from shared.contracts.runs import TERMINAL, RunStatus

LIVING = tuple(status for status in RunStatus if status not in TERMINAL)


def diagram() -> str:
    """Mermaid. Signals that leave a status as it is are in the table only."""
    moves: defaultdict[tuple[RunStatus, RunStatus], list[str]] = defaultdict(list)
    for (before, signal), after in TRANSITIONS.items():
        if before is not after:
            moves[before, after].append(signal)
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {RunStatus.QUEUED}"]
    lines += [f"    {before} --> {after}: {', '.join(signals)}" for (before, after), signals in moves.items()]
    lines += [f"    {status} --> [*]" for status in RunStatus if status in TERMINAL]
    return "\n".join(["```mermaid", *lines, "```"])


def every_signal() -> str:
    """Each signal in each living status: the next status, · where nothing changes, – where it cannot be."""
    rows = [(f"`{signal}`", *(_next(status, signal) for status in LIVING)) for signal in Signal]
    return table(("signal", *LIVING), rows)


def _next(status: RunStatus, signal: Signal) -> str:
    after = TRANSITIONS.get((status, signal))
    if after is None:
        return "–"
    return "·" if after is status else str(after)


PARTS = {"diagram": Part("docs/lifecycle.md", diagram), "signals": Part("docs/lifecycle.md", every_signal)}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
