"""What engines print is read even where strict JSON would not have it: half a surrogate pair, a nest too deep to follow."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from executor.adapters.base import STDOUT, Emit, Step
from executor.adapters.engine_json import Decoder
from shared.contracts.events import InteractionRequested, RawStdout, ToolStarted
from shared.contracts.interactions import Decision
from shared.contracts.providers import Provider
from tests.unit.adapters import claude_lines, codex_lines
from tests.unit.adapters import test_opencode_asks as opencode
from tests.unit.adapters.test_acp_conversation import Peer

TEXT = Decoder(str)


@pytest.mark.parametrize(("printed", "read"), [
    (rb'"a\ud83d"', "a\ufffd"), (rb'"\uDE00b"', "\ufffdb"), (rb'"\ud83dx\ude00"', "\ufffdx\ufffd"),
    (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"), (rb'"\ud83d\u0041"', "\ufffdA"), (rb'"\ud83d\n\"\\"', '\ufffd\n"\\'),
    (rb'"\ud83d \\ud83d \\\ud83d"', "\ufffd \\ud83d \\\ufffd"), (rb'"\ud83d\\\\ude00"', "\ufffd\\\\ude00"),
])  # fmt: skip
def test_half_a_surrogate_pair_is_one_character_nobody_knows_and_all_else_stays(printed: bytes, read: str) -> None:
    assert TEXT.decode(printed) == read


def test_what_is_whole_is_read_as_it_stands() -> None:
    assert TEXT.decode(rb'"\ud83d\ude00 \\ud83d"') == "\U0001f600 \\ud83d"


@pytest.mark.parametrize(
    "printed", [b'"', b'"\\ud8"', b"{", b"7", b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000]
)
def test_what_is_no_such_object_is_told_by_one_error(printed: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        TEXT.decode(printed)
    with pytest.raises(msgspec.DecodeError):
        Decoder(dict[str, msgspec.Raw]).decode(printed)


def test_a_long_line_is_mended_in_time() -> None:
    begun = time.monotonic()
    assert len(TEXT.decode(b'"\\ud83d' + b"\\n\\\\" * 1_000_000 + b'"')) == 2_000_001
    assert time.monotonic() - begun < 5


# ---- the engines ----


def cut(line: dict[str, Any]) -> bytes:
    """The line, with half a pair where it says QQ."""
    return json.dumps(line).replace("QQ", r"\ud83d").encode() + b"\n"


def kinds(steps: list[Step]) -> set[type]:
    return {type(step.payload) for step in steps if isinstance(step, Emit)}


@pytest.mark.parametrize("provider", [Provider.GEMINI_CLI, Provider.OPENCODE, Provider.QWEN_CODE])
def test_a_permission_with_half_a_character_reaches_a_person(provider: Provider) -> None:
    peer = Peer(provider).prompted()
    tool = {"toolCallId": "t1", "kind": "execute", "title": "echo QQ", "rawInput": {"command": "echo QQ"}}
    ask = {"id": 7, "method": "session/request_permission", "params": {"toolCall": tool, "options": []}}
    assert kinds(peer.conversation.feed(STDOUT, cut(ask))) == {ToolStarted, InteractionRequested}


def test_an_answer_cut_inside_a_character_is_told() -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "so far QQ"}}
    peer.conversation.feed(STDOUT, cut({"method": "session/update", "params": {"sessionId": "s1", "update": chunk}}))
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.ended(0).result == "so far \ufffd"


def test_claude_code_ends_and_asks_with_half_a_character() -> None:
    claude = claude_lines.working()
    assert InteractionRequested in kinds(claude.feed(STDOUT, cut(claude_lines.asks("Bash", {"command": "echo QQ"}))))
    claude.feed(STDOUT, cut(claude_lines.result("so far QQ")))
    assert claude.ended(0).result == "so far \ufffd"


def test_codex_says_half_a_character() -> None:
    codex = codex_lines.working()
    told = codex.feed(STDOUT, cut(codex_lines.agent_message("so far QQ")))
    assert RawStdout not in kinds(told)
    codex_lines.feed(codex, codex_lines.turn_completed())
    assert codex.ended(0).result == "so far \ufffd"


def test_what_opencodes_server_tells_may_be_cut_inside_a_character() -> None:
    peer = opencode.Peer()
    peer.asks(json.loads(json.dumps(opencode.OF_A_HELPER).replace("ls", "echo \\ud83d")), board="per")
    [asked] = peer.told(InteractionRequested)
    assert asked.tool.input == {"command": "echo \ufffd"}
    peer.replied(asked.question_id, decision=Decision.ACCEPT)
    opencode.ends_task(peer)
    told = peer.serves(json.loads(json.dumps(opencode.SESSION).replace("Done", "Done \\ud83d")))
    assert "Done \ufffd" in str(told)


@pytest.mark.parametrize("nest", [100, 900, 960, 3000])
def test_a_deep_nest_ends_no_attempt(nest: int) -> None:
    """Whatever stands in the way of the one line, the conversation goes on."""
    deep = "[" * nest + "]" * nest
    for provider in (Provider.GEMINI_CLI, Provider.OPENCODE, Provider.QWEN_CODE):
        peer = Peer(provider).prompted()
        call = {"sessionUpdate": "tool_call", "toolCallId": "t1", "status": "in_progress", "rawInput": {"x": "QQ"}}
        line = json.dumps({"method": "session/update", "params": {"sessionId": "s1", "update": call}}).replace('"QQ"', deep)
        assert peer.conversation.feed(STDOUT, line.encode() + b"\n") != []
        peer.says_text("Well.")
        peer.answers("session/prompt", {"stopReason": "end_turn"})
        assert peer.conversation.ended(0).error_code is None
    claude = claude_lines.working()
    line = json.dumps(claude_lines.called("t1", "Bash", {"a": "QQ"})).replace('"QQ"', deep)
    assert claude.feed(STDOUT, line.encode() + b"\n") != []
