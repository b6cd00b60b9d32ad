"""The scripted adapter without its process: any split of the same bytes gives the same steps."""

from __future__ import annotations

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import Conversation, Emit, Send, StartRequest
from shared.contracts.events import AttemptOutcome
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from tests.unit.adapters.splits import cuts, steps_of

PRINTED = (
    '{"type":"session","id":"s1"}\n{"type":"delta","id":"m1","text":"hé"}\n'
    '{"type":"message","id":"m1","text":"h\\u00e9\\u2028!","final":false}\nplain ☃ text\r\n\n'
    '{"type":"ask","id":1,"prompt":"a?","options":[{"label":"b"}]}\n{"type":"usage","inputTokens":3}\n{"type":"odd"}\n'
    '{"type":"message","id":"m2","text":"end","final":true}\n{"type":"completed"}'
).encode()


def conversation() -> Conversation:
    request = StartRequest(run_id="run_1", attempt=3, executable="", home="/h", workspace="/w", messages=[Message(content="hi")])
    return ADAPTERS[Provider.SCRIPTED].start(request)


def test_any_split_of_the_bytes_gives_the_same_steps() -> None:
    whole = steps_of(conversation(), [PRINTED])
    assert steps_of(conversation(), [PRINTED[at : at + 1] for at in range(len(PRINTED))]) == whole
    for cut in cuts(PRINTED):
        assert steps_of(conversation(), [PRINTED[:cut], PRINTED[cut:]]) == whole


def test_every_span_leads_back_to_the_line_it_came_from() -> None:
    steps = [step for step in steps_of(conversation(), [PRINTED]) if isinstance(step, Emit)]
    kinds = {PRINTED[step.byte_from : step.byte_to].decode(): step.payload.KIND.value for step in steps}
    assert kinds['{"type":"session","id":"s1"}'] == "session.started"
    assert kinds["plain ☃ text\r"] == "raw.stdout"
    assert kinds['{"type":"odd"}'] == "diagnostic"


def test_prompts_travel_by_stdin_only() -> None:
    scripted = conversation()
    (start,) = scripted.opened()
    assert isinstance(start, Send)
    assert b'"prompt":"hi"' in start.data
    assert "hi" not in scripted.command.argv
    assert scripted.command.env == {}


def test_what_was_told_decides_and_the_exit_only_when_nothing_was() -> None:
    scripted = conversation()
    assert scripted.ended(None).error_code is ErrorCode.ENGINE_START_FAILED
    steps_of(scripted, [PRINTED])
    assert (scripted.ended(-9).outcome, scripted.ended(-9).result) == (AttemptOutcome.SUCCESS, "end")
    with pytest.raises(RunyardError, match="conflict"):
        scripted.message("late")
