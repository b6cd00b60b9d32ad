"""What gemini-cli forgot because it was stopped is told to it again before it goes on: real files, a real shell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from executor.adapters.base import StartRequest
from executor.adapters.gemini.adapter import GeminiAdapter
from shared.contracts.provider_runs import Message

SESSION = "8f22a1c6-db0b-4917-8bb7-ed808357ee8c"


def said(who: str, id: str, text: str = "x") -> str:
    return json.dumps(
        {"id": id, "timestamp": "2026-11-21T10:00:00.734Z", "type": who, "content": [{"text": text}]}, separators=(",", ":")
    )


def list_is(*ids: str) -> str:
    return json.dumps({"$set": {"messages": [{"id": each} for each in ids], "lastUpdated": "…"}}, separators=(",", ":"))


HEAD = json.dumps({"sessionId": SESSION, "kind": "main"}, separators=(",", ":"))
TOUCHED = json.dumps({"$set": {"lastUpdated": "…"}}, separators=(",", ":"))
BEGUN = [HEAD, list_is("context"), HEAD, list_is("context")]
ASKED = [said("user", "u1", 'say "kumquat"\\n'), TOUCHED]
DONE = [*BEGUN, *ASKED, said("gemini", "a1"), TOUCHED]


def resumed(home: Path, lines: list[str]) -> list[str]:
    """What stands in the session's file when the engine starts."""
    chats = home / ".gemini" / "tmp" / "workspace" / "chats"
    chats.mkdir(parents=True, exist_ok=True)
    (chats / f"session-2026-11-21T10-00-{SESSION[:8]}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/bin/true", home=str(home), workspace=str(home),
        messages=[Message(content="hi")], credential_env={"GEMINI_API_KEY": "sk-g"},
    )  # fmt: skip
    command = GeminiAdapter().resume(request, SESSION).command
    subprocess.run(command.argv, env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, check=True, timeout=60)
    return (chats / f"session-kept-{SESSION[:8]}.jsonl").read_text().splitlines()


@pytest.mark.parametrize(("lines", "told_again"), [
    pytest.param([*BEGUN, *ASKED, list_is("context")], [ASKED[0]], id="stopped in its first turn"),
    pytest.param([*BEGUN, *ASKED, said("gemini", "a1"), list_is("context")], [ASKED[0]], id="stopped in a tool"),
    pytest.param([*DONE, said("user", "u2"), list_is("context", "u1", "a1"), TOUCHED], [said("user", "u2")], id="in its second"),
    pytest.param(DONE, [], id="finished"),
    pytest.param(BEGUN, [], id="nothing asked"),
    pytest.param([*BEGUN, *ASKED], [], id="killed"),
    pytest.param([*DONE, list_is("summary"), said("user", "u2"), list_is("summary")], [said("user", "u2")], id="made shorter"),
    pytest.param([*DONE, list_is("summary"), said("user", "u2"), said("gemini", "a2")], [], id="made shorter, and finished"),
    pytest.param([*BEGUN, *ASKED, list_is("context", "u1")], [], id="not taken back"),
])  # fmt: skip
def test_only_what_was_taken_back_is_told_again(tmp_path: Path, lines: list[str], told_again: list[str]) -> None:
    assert resumed(tmp_path, lines) == [*lines, *told_again]


def test_it_is_told_again_once(tmp_path: Path) -> None:
    once = resumed(tmp_path, [*BEGUN, *ASKED, list_is("context")])
    assert resumed(tmp_path, once) == once
