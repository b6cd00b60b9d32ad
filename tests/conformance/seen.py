"""What one attempt showed, whichever way it came: followed live, or from a recording's ``events.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Data = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The events of an attempt as (kind, data), and how it ended."""

    events: Sequence[tuple[str, Data]]
    outcome: str
    error_code: str | None
    error_message: str | None
    result: Any
    usage: Data | None

    @classmethod
    def of_recording(cls, path: Path) -> Self:
        """What the adapter makes of a recorded case; tests/contract holds the file against the bytes."""
        told = json.loads(path.read_text())
        events = [(kind, data) for kind, data in told["events"]]
        return cls(events, told["outcome"], told["errorCode"], told["errorMessage"], told["result"], told["usage"])

    @classmethod
    def of_attempt(cls, events: Iterable[Data]) -> Self:
        """The executor's events of a whole attempt, without its raw output."""
        shown = [(event["kind"], event["data"]) for event in events if event["kind"] != "log"]
        kind, ended = shown[-1]
        assert kind == "attempt.ended", f"the stream ended with {kind}"
        rest = (ended.get(name) for name in ("errorCode", "errorMessage", "result", "usage"))
        return cls(shown[:-1], ended["outcome"], *rest)

    def golden(self) -> Data:
        """What stands in ``events.json``."""
        return {
            "events": [[kind, data] for kind, data in self.events], "outcome": self.outcome, "errorCode": self.error_code,
            "errorMessage": self.error_message, "result": self.result, "usage": self.usage,
        }  # fmt: skip

    def data(self, kind: str) -> list[Data]:
        return [data for each, data in self.events if each == kind]

    def said(self, kind: str) -> str:
        """The texts of all events of this kind, one after the other."""
        return "".join(data["text"] for data in self.data(kind))

    @property
    def finals(self) -> list[str]:
        """The messages that are the answer."""
        return [data["text"] for data in self.data("message.completed") if data.get("final")]

    @property
    def tools(self) -> list[tuple[str, str]]:
        """Name and status of every tool that ended."""
        return [(data["name"], data["status"]) for data in self.data("tool.completed")]
