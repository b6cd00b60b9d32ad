"""What callers and apps say of further attempts at a run that failed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.contracts.wire import WHOLE, Request

MAX_ATTEMPTS = 10


class RetryPolicy(Request):
    """When a failed attempt may be followed by another of the same run. What is left out is the profile's, else Runyard's."""

    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS), WHOLE] | None = Field(
        default=None,
        description="Attempts in all, for every failure that can pass; 1: never another. Left out: by the failure's class.",
    )
    after_side_effects: bool | None = Field(
        default=None,
        description="Also after an attempt that started a tool, asked a person, or was lost while it worked: the next one goes "
        "on with the engine's session where there is one, else from the beginning. Where the profile says a word too, both must "
        "allow it.",
    )
