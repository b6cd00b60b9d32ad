"""What a control plane counts. No run and no app is a label: their number has no bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import Counter, Gauge

from control_plane.domain.recording import Change

EVENTS = Counter("runyard_events_total", "Events stored by this replica.")
WINDOWS = Counter("runyard_windows_total", "Transactions that stored events; events per window tell how well they are shared.")
ENDED = Counter("runyard_runs_ended_total", "Runs whose end this replica wrote.", ("status", "error_code"))
DRIVEN = Gauge("runyard_runs_driven", "Runs this replica drives.")
READERS = Gauge("runyard_sse_readers", "Event streams this replica has open.")


def count(changes: Sequence[Change]) -> None:
    """A window was committed."""
    WINDOWS.inc()
    EVENTS.inc(sum(len(change.events) for change in changes))
    for change in changes:
        if change.ending is not None:
            ENDED.labels(change.status.value, change.ending.error_code or "").inc()


def watch(driven: Callable[[], float], readers: Callable[[], float]) -> None:
    """Ask these whenever somebody asks us."""
    DRIVEN.set_function(driven)
    READERS.set_function(readers)
