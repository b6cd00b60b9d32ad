"""What an executor counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from shared.contracts.events import AttemptOutcome

LIVE = Gauge("runyard_executor_attempts_live", "Attempts that have not ended.")
ENDED = Counter("runyard_executor_attempts_ended_total", "Attempts by provider and outcome.", ("provider", "outcome"))
DURATION = Histogram(
    "runyard_executor_attempt_seconds",
    "From the start of an attempt until its process tree was gone.",
    ("provider",),
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600),
)


def count_end(provider: str, outcome: AttemptOutcome, seconds: float) -> None:
    ENDED.labels(provider, outcome.value).inc()
    DURATION.labels(provider).observe(seconds)
