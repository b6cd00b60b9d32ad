"""Which cases an engine has, and how one is played to its end. Knows no engine by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

from executor.adapters import ADAPTERS
from shared.errors import ERRORS, ErrorCode
from tests.conformance.cases import CASES, WORD, Case
from tests.conformance.engines import Engine
from tests.conformance.failures import BOUND_SECONDS, FAILING
from tests.conformance.ground import Attempt, Ground
from tests.conformance.seen import Seen
from tests.loopback import unused_port

ALL_CASES = {each.name: each for each in (*CASES, *FAILING)}


def cases_of(engine: Engine) -> Iterator[Case]:
    """What it claims by its flags. What it does not claim has its own tests: see ``unable``."""
    can = ADAPTERS[engine.provider].capabilities
    for case in ALL_CASES.values():
        differs = engine.differs.get(case.name)
        is_claimed = all(getattr(can, need) for need in case.needs)
        has_words = engine.speaks == "marker" or case.script is not None
        if is_claimed and has_words and not (differs is not None and differs.ends is None):
            yield case


def judge(case: Case, seen: Seen, engine: Engine) -> None:
    """Raises ``AssertionError`` where what was shown is not what every engine must show."""
    differs = engine.differs.get(case.name)
    expected = differs.ends if differs is not None and differs.ends is not None else case.ends
    if expected == "success":
        assert (seen.outcome, seen.error_code) == ("success", None), seen.error_message
    elif expected == "canceled":
        assert (seen.outcome, seen.error_code) == ("canceled", "user_canceled"), seen.error_message
    elif expected != "any":
        assert (seen.outcome, seen.error_code) == ("error", expected), seen.error_message
        assert seen.error_message
        assert ERRORS[ErrorCode(expected)].hint
    if case.holds is not None and expected == case.ends:
        case.holds(seen)


async def play(case: Case, ground: Ground) -> None:
    """The case from its start to its judgement."""
    more = dict(case.asks)
    if case.after is not None:
        more["resumeSessionId"] = await _earlier_session(case, ground)
    if case.name == "fails: refused":
        more["options"] = {"baseUrl": f"http://127.0.0.1:{unused_port()}/v1"} if ground.engine.speaks == "marker" else {}
    attempt = await ground.start(_prompt(case, ground.engine), **more)
    if case.person is not None:
        await case.person(attempt)
    judge(case, await attempt.ended(), ground.engine)
    assert case not in FAILING or await attempt.seconds_in_session() < BOUND_SECONDS
    if case.proves is not None and ground.engine.speaks == "marker" and case.name not in ground.engine.differs:
        await case.proves(attempt)


def _prompt(case: Case, engine: Engine) -> str:
    return case.marker if engine.speaks == "marker" else json.dumps({"script": case.script})


async def _earlier_session(case: Case, ground: Ground) -> str:
    """The session of an attempt that ended as ``case.after`` says, in the middle of its words where it did not finish."""
    is_short = case.after == "ended"
    if ground.engine.speaks == "marker":
        prompt = f"remember the word {WORD}" + ("" if is_short else " [[slow:400]]")
    else:
        prompt = json.dumps({"script": [{"say": WORD}, *([] if is_short else [{"ticks": {"count": 600, "everyMs": 100}}])]})
    attempt = await ground.start(prompt)
    session = (await attempt.first("session.started"))["engineSession"]
    await _end(attempt, case)
    return session


async def _end(attempt: Attempt, case: Case) -> None:
    if case.after != "ended":
        await attempt.first("message.delta")
    if case.after == "stopped":
        await attempt.stop()
    elif case.after == "killed":
        attempt.kill()
    ended = await attempt.ended()
    assert ended.outcome == {"ended": "success", "stopped": "canceled", "killed": "error"}[case.after or ""], ended.error_message
