"""What differs between engines that speak ACP: one row of flags each, no subclass.

The rows stand with their engines. Nothing here may know one of them by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from executor.adapters.acp.protocol import RpcError
from executor.adapters.options import EVERYWHERE
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode


class UsageFrom(StrEnum):
    """Where an engine tells its tokens."""

    QUOTA = "quota"  # of the whole prompt, in its answer's _meta
    LAST_CALL = "last_call"  # in the prompt's answer, but of the last model call only
    CHUNKS = "chunks"  # of each model call, on an empty chunk


class LogLine(StrEnum):
    """What a line of an engine's own log means to us."""

    NOISE = "noise"
    STEP = "step"  # a new model call is prepared
    CALL = "call"  # the model is called: the first call of a step, or the same again after a failure
    FAILED = "failed"  # a call failed; the first group of the match is the reason
    AGAIN = "again"  # a call that said nothing is made again; groups: attempt, and wait in ms where the model named one
    BROKEN = "broken"  # an answer that was not whole is asked for again; groups: attempt, reason


@dataclass(frozen=True, slots=True)
class AcpProfile:
    """One engine's row.

    ``modes``: the id for ``session/set_mode`` by engine mode. ``error_code``: what a refusal of the model is.
    ``options``: those of a request that it knows.
    ``ends_turn_on_no``: after a person's «no» the engine stops instead of telling the model.
    ``says_again``: a broken stream is streamed again from its first word, and nothing announces it, or a line of its log that may
    come late: it is another pipe.
    ``needs_model_usage``: a prompt that «ended» without having counted any model call has failed.
    ``caches_apart``: cached tokens are not in the input's, thoughts not in the output's.
    ``log``: the lines of its own log on stderr, the first that matches; ``max_calls``: of one step, where calls are told.
    """

    engine: str
    modes: Mapping[EngineMode, str]
    usage: UsageFrom
    error_code: Callable[[RpcError], ErrorCode]
    options: Set[str] = EVERYWHERE
    ends_turn_on_no: bool = False
    says_again: bool = False
    needs_model_usage: bool = False
    caches_apart: bool = False
    own_remarks: re.Pattern[str] | None = None
    log: tuple[tuple[re.Pattern[str], LogLine], ...] = ()
    max_calls: int = 3
