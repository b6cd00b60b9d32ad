"""The full conversation with the real codex against the model stub, whose answers are chosen by the lines given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import make_folder
from tests.e2e.kit import running_stack
from tests.model_stub.server import serving
from tests.service.scripts.commands import run_script

pytestmark = pytest.mark.engine

ENGINES = Path(__file__).parent.parent.parent / "engines"
LINES = {
    "ask": {"prompt": "[[tool:printf remembered > word.txt; cat word.txt]]", "expect": "remembered"},
    "followUp": {"prompt": "[[text]]", "expect": "The answer is 42"},
    "resume": {"prompt": "[[reasoning]]", "expect": "After some thought"},
    "stop": {"prompt": "[[slow:2000]]"},
}


async def test_codex_has_a_whole_conversation(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text(json.dumps(LINES))
    environment = {"RUNYARD_ENGINES_DIR": str(ENGINES), "OPENAI_API_KEY": "sk-of-the-conversation-0123"}
    with make_folder() as folder, running_stack(folder / "state", environment=environment) as stack:
        async with stack.client, serving() as stub:
            ended = await run_script(
                "full_conversation", "--ready-file", str(stack.ready_file), "--provider", "codex", "--model", "gpt-5.5", "--json",
                "--provider-options", json.dumps({"baseUrl": stub.base_url}), "--lines", str(tmp_path / "lines.json"),
                "--timeout", "40",
            )  # fmt: skip
            report = json.loads(ended.stdout)
            assert (ended.status, report["passed"]) == (0, True), report
            assert "permission" in report["steps"][0]["detail"]
            earlier = json.dumps(stub.requests[-2]["body"])
            assert "[[tool:" in earlier, "the resumed session does not know what was said before"
