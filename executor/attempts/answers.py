"""Whether an answer has the form that was asked for. Engines trust their model: what is no JSON at all still ends in success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from executor.adapters.base import Outcome
from shared.contracts.events import AttemptOutcome
from shared.errors import ErrorCode, invalid
from shared.schemas import Schema

Fit = Callable[[Outcome], Outcome]


def as_it_is(outcome: Outcome) -> Outcome:
    return outcome


def fit_for(schema: Mapping[str, Any] | None) -> Fit:
    """What an engine's own outcome is worth under a schema: a success is one only if its JSON fits, else ``output_invalid``
    with the answer as it came. Raises ``invalid_request`` for a schema that is none."""
    if schema is None:
        return as_it_is
    try:
        asked = Schema(schema)
    except ValueError as error:
        raise invalid("outputSchema", str(error)) from error

    def fit(outcome: Outcome) -> Outcome:
        if outcome.outcome is not AttemptOutcome.SUCCESS:
            return outcome
        try:
            value = msgspec.json.decode(outcome.result) if isinstance(outcome.result, str) else outcome.result
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            return _invalid(outcome, f"the answer is not JSON: {error}")
        wrong = asked.misfit(value)
        return (
            replace(outcome, result=value) if wrong is None else _invalid(outcome, f"the answer does not fit its schema: {wrong}")
        )

    return fit


def _invalid(outcome: Outcome, why: str) -> Outcome:
    return replace(outcome, outcome=AttemptOutcome.ERROR, error_code=ErrorCode.OUTPUT_INVALID, error_message=why)
