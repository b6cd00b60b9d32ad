"""What two recordings of one case are compared by."""

from __future__ import annotations

import json

from tests.conformance.substance import differences, kind_of

KEPT = [
    {"id": 1, "result": {"session": "a"}},
    {"method": "item/started", "params": {"item": {"type": "message", "id": "1"}}},
    {"method": "delta", "params": {"text": "a"}},
    {"method": "done", "params": {"usage": {"in": 1}, "error": None}},
]


def lines(*messages: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in messages)


def test_other_words_ids_and_more_of_the_same_are_no_difference() -> None:
    again = [
        {"id": 7, "result": {"session": "b"}},
        {"method": "item/started", "params": {"item": {"type": "message", "id": "2"}}},
        {"method": "delta", "params": {"text": "b"}},
        {"method": "delta", "params": {"text": "c"}},
        {"method": "done", "params": {"usage": {"in": 2}, "error": {"code": 1}}},
    ]
    wrong, more = differences(lines(*KEPT), lines(*again))
    assert (wrong, more) == ([], ["done: params.error.code is new"])


def test_a_kind_that_came_or_went_is_one() -> None:
    wrong, _more = differences(lines(*KEPT), lines(*KEPT[:2], {"method": "chunk"}, KEPT[3]))
    assert wrong == ["no longer said: delta", "never said before: chunk"]


def test_another_order_is_told_and_is_none() -> None:
    wrong, more = differences(lines(*KEPT), lines(KEPT[0], KEPT[2], KEPT[1], KEPT[3]))
    assert (wrong, more) == ([], ["in another order: result(session), delta, item/started message, done"])


def test_a_field_that_went_or_is_of_another_type_is_one() -> None:
    wrong, _more = differences(lines(*KEPT), lines(*KEPT[:3], {"method": "done", "params": {"usage": "2", "error": None}}))
    assert wrong == ["done: params.usage.in is gone", "done: params.usage was object and is string"]


def test_what_is_no_object_is_a_kind_of_its_own() -> None:
    wrong, _more = differences(lines(*KEPT), b"Welcome!\n" + lines(*KEPT))
    assert wrong == ["never said before: (text)"]


def test_lines_of_every_protocol_have_a_kind() -> None:
    assert kind_of({"type": "system", "subtype": "init"}) == "system init"
    assert kind_of({"type": "stream_event", "event": {"type": "message_stop"}}) == "stream_event message_stop"
    update = {"sessionUpdate": "agent_message_chunk", "content": {}}
    assert kind_of({"method": "session/update", "params": {"update": update}}) == "session/update agent_message_chunk"
    assert kind_of({"id": 3, "error": {"code": -32000, "message": "no"}}) == "error(code,message)"


def test_what_comes_by_the_pace_of_a_machine_may_come_or_not() -> None:
    told_early = {"method": "item/commandExecution/outputDelta", "params": {"delta": "x"}}
    assert differences(lines(*KEPT), lines(*KEPT, told_early))[0] == []
    assert differences(lines(*KEPT, told_early), lines(*KEPT))[0] == []
