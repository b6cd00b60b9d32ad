"""The helpers Codex starts: each is a thread of its own, and what it says and does is told beside the call that started it.

A helper never answers: nothing it says is final, its plan is not the run's, its end ends nothing. Its tokens are the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from executor.adapters.base import Emit, Step
from executor.adapters.codex.events import TurnEvents
from executor.adapters.codex.protocol import FileDiff, ItemMoved, Named, TurnMoved, started_by
from executor.adapters.framing import Line
from executor.adapters.sub_agents import marked
from shared.contracts.events import PlanUpdated


@dataclass(slots=True)
class _Helper:
    tool_id: str
    events: TurnEvents = field(default_factory=TurnEvents)

    def told(self, steps: Sequence[Step]) -> list[Step]:
        return [
            replace(step, payload=marked(step.payload, self.tool_id))
            for step in steps
            if isinstance(step, Emit) and not isinstance(step.payload, PlanUpdated)
        ]


class Helpers:
    """By thread. A thread no call is known for is nobody's, and not told."""

    def __init__(self) -> None:
        self._by_thread: dict[str, _Helper] = {}

    def learn(self, note: Named) -> None:
        """Of whatever is told: who starts a helper, the engine itself or a helper of its."""
        started = started_by(note.item) if isinstance(note, ItemMoved) else None
        if started is not None:
            self._by_thread |= {each: _Helper(started.id) for each in started.threads if each not in self._by_thread}

    def read(self, thread: str, method: str, note: Named, line: Line) -> list[Step]:
        """The events of one notification of a helper's thread."""
        helper = self._by_thread.get(thread)
        if helper is None:
            return []
        if isinstance(note, TurnMoved):
            return helper.told(helper.events.release(final=False))
        return helper.told(helper.events.read(method, note, line))

    def stop(self) -> None:
        """Someone asked for the end of the run."""
        for helper in self._by_thread.values():
            helper.events.was_stopped = True

    def diffs_of(self, item_id: str) -> Sequence[FileDiff]:
        return [diff for helper in self._by_thread.values() for diff in helper.events.diffs_of(item_id)]

    def ended(self) -> list[Step]:
        """Nothing more will come."""
        return [step for helper in self._by_thread.values() for step in helper.told(helper.events.ended())]
