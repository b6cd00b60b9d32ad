"""The model stub as its own process: what a test may rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.model_stub.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent.parent
SECRET = "sk-do-not-keep"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.model_stub", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().removeprefix('listening ').strip()}"
        process.terminate()
        assert process.wait(10) == 0


def ask(url: str, text: str, *after: dict[str, Any]) -> httpx.Response:
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    body = {"model": "m", "stream": True, "input": [user, *after], "tools": [{"type": "web_search"}]}
    return httpx.post(f"{url}/v1/responses", json=body, headers={"authorization": f"Bearer {SECRET}"}, timeout=30)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line.startswith("data: ")]


def text_of(response: httpx.Response) -> str:
    return "".join(event.get("delta", "") for event in events(response) if event["type"] == "response.output_text.delta")


def test_a_prompt_without_a_marker_is_echoed(url: str) -> None:
    response = ask(url, "hello [[nonsense]]")
    assert text_of(response) == "You said: hello [[nonsense]]"
    assert [event["type"] for event in events(response)][:: len(events(response)) - 1] == [
        "response.created",
        "response.completed",
    ]


def test_a_tools_output_is_told(url: str) -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "7 files"}
    assert text_of(ask(url, "[[tool:ls]]", output)) == "Done. The tool said 7 files"


def test_a_tool_is_called_again_where_the_marker_says_twice(url: str) -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "7 files"}
    assert text_of(ask(url, "[[twice:ls]]", output)) == ""
    assert text_of(ask(url, "[[twice:ls]]", output, output)) == "Done. The tool said 7 files"


def test_a_tool_is_called_with_the_markers_command(url: str) -> None:
    (call,) = [event["item"] for event in events(ask(url, "[[tool:ls -l | wc]]")) if event["type"] == "response.output_item.done"]
    assert (call["name"], json.loads(call["arguments"])) == ("exec_command", {"cmd": "ls -l | wc"})


@pytest.mark.parametrize(
    ("scenario", "status"), [("401", 401), ("403", 403), ("404", 404), ("429", 429), ("quota", 429), ("500", 500)]
)
def test_a_refusal_has_its_status_and_a_reason(url: str, scenario: str, status: int) -> None:
    response = ask(url, f"[[{scenario}]]")
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_a_cut_answer_breaks_off(url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(url, "[[cut]]")


def test_requests_are_recorded_without_their_credentials(url: str) -> None:
    ask(url, "look at me")
    recorded = httpx.get(f"{url}/requests").json()
    assert recorded[-1]["userText"] == "look at me"
    assert recorded[-1]["headers"]["authorization"] == "present"
    assert SECRET not in json.dumps(recorded)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS.keys() - {"cut", "cutonce", "slow"}))
def test_every_scenario_answers(url: str, scenario: str) -> None:
    response = ask(url, f"[[{scenario}]]")
    ends = {"failed": "response.failed", "limit": "response.incomplete"}
    assert response.status_code != 200 or events(response)[-1]["type"] == ends.get(scenario, "response.completed")


def ask_anthropic(url: str, text: str, stream: bool) -> httpx.Response:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    return httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": SECRET}, timeout=30)


def test_the_anthropic_dialect_says_the_same_streamed_and_whole(url: str) -> None:
    streamed = events(ask_anthropic(url, "[[text]]", stream=True))
    said = "".join(each["delta"]["text"] for each in streamed if each["type"] == "content_block_delta")
    assert (streamed[0]["type"], streamed[-1]["type"]) == ("message_start", "message_stop")
    whole = ask_anthropic(url, "[[text]]", stream=False).json()
    assert whole["content"] == [{"type": "text", "text": said}]
    assert said == "Hello from the model stub. The answer is 42."


def test_a_refusal_of_the_anthropic_dialect_has_its_type(url: str) -> None:
    refused = ask_anthropic(url, "[[529]]", stream=True)
    assert (refused.status_code, refused.json()["error"]["type"]) == (529, "overloaded_error")
