"""What only qwen-code does, and nobody else who speaks ACP: its sub-agents tell what they say and do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.contracts.events import MessageCompleted, ToolCompleted, ToolStarted
from shared.contracts.providers import EngineMode
from tests.engines import gemini_opencode_qwen as rows
from tests.engines.gemini_opencode_qwen import ENGINES, ROWS, Engine
from tests.model_stub.server import ModelStub

pytestmark = pytest.mark.engine
stub = rows.stub


@pytest.fixture
def qwen(tmp_path: Path, stub: ModelStub) -> Engine:
    row = ROWS["qwen"]
    found = [path for pattern in row.adapter.install.globs for path in ENGINES.glob(pattern)]
    assert found, "qwen-code is not installed: python scripts/install_engines.py"
    return Engine(row, str(found[0]), tmp_path, stub)


async def test_what_a_sub_agent_says_and_does_is_marked_as_its_and_not_the_answer(qwen: Engine) -> None:
    task = {
        "description": "help",
        "prompt": "<<tool:touch sub.txt>>",
        "subagent_type": "general-purpose",
        "run_in_background": False,
    }
    async with qwen.running(f"[[call:agent {json.dumps(task)}]]", engine_mode=EngineMode.FULL) as driven:
        outcome = await driven.outcome()
    [agent, command] = driven.payloads(ToolStarted)
    assert [(each.name, each.parent_tool_id) for each in (agent, command)] == [("agent", None), ("shell", agent.tool_id)]
    assert [(each.tool_id, each.status) for each in driven.payloads(ToolCompleted)] == [
        (command.tool_id, "completed"), (agent.tool_id, "completed"),
    ]  # fmt: skip
    assert (qwen.workspace / "sub.txt").exists()
    [its, answer] = driven.payloads(MessageCompleted)
    assert (its.parent_tool_id, its.final) == (agent.tool_id, False)
    assert (answer.text, answer.final, answer.parent_tool_id) == (outcome.result, True, None)
    assert its.text in driven.payloads(ToolCompleted)[1].output
