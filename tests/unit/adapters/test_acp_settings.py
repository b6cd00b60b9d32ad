"""How the ACP engines are set up: files, environment, what is refused before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, Command, Emit, Send, StartRequest
from shared.contracts.events import Diagnostic
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

KEYS = {Provider.GEMINI_CLI: "GEMINI_API_KEY", Provider.OPENCODE: "OPENAI_API_KEY", Provider.QWEN_CODE: "OPENAI_API_KEY"}
ENGINES = sorted(KEYS)


def command_of(provider: Provider, session: str | None = None, **more: Any) -> Command:
    fields: dict[str, Any] = {
        "run_id": "run_1", "attempt": 1, "executable": "/engines/engine", "home": "/home/agent", "workspace": "/workspace",
        "messages": [Message(content="the prompt")], "credential_env": {KEYS.get(provider, "IFLOW_API_KEY"): "sk-secret"},
    }  # fmt: skip
    request = StartRequest(**(fields | more))
    adapter = ADAPTERS[provider]
    return (adapter.start(request) if session is None else adapter.resume(request, session)).command


def settings_of(command: Command) -> dict[str, Any]:
    if command.files:
        return json.loads(command.files[0].content)
    return json.loads(command.env["OPENCODE_CONFIG_CONTENT"])


def refused(provider: Provider, **more: Any) -> ErrorCode:
    with pytest.raises(RunyardError) as error:
        command_of(provider, **more)
    return error.value.code


@pytest.mark.parametrize("provider", ENGINES)
def test_neither_prompt_nor_key_travels_in_arguments_or_files(provider: Provider) -> None:
    command = command_of(provider, session="12345678-0000", model="m", provider_options={"baseUrl": "http://127.0.0.1:1/v1"})
    shown = [*command.argv, *(file.content.decode() for file in command.files), command.env.get("OPENCODE_CONFIG_CONTENT", "")]
    assert not [text for text in shown if "sk-secret" in text or "the prompt" in text]
    assert command.argv[0].startswith("/")


@pytest.mark.parametrize("provider", [*ENGINES, Provider.IFLOW_CLI])
def test_without_credentials_nothing_is_launched(provider: Provider) -> None:
    assert refused(provider, credential_env={}) is ErrorCode.AUTH_MISSING


@pytest.mark.parametrize("provider", ENGINES)
def test_what_an_engine_cannot_do_is_refused(provider: Provider) -> None:
    assert refused(provider, output_schema={"type": "object"}) is ErrorCode.CAPABILITY_UNAVAILABLE
    assert refused(provider, tools={"teleport": False}) is ErrorCode.CAPABILITY_UNAVAILABLE
    assert command_of(provider, tools={"teleport": True})


@pytest.mark.parametrize("provider", ENGINES)
@pytest.mark.parametrize("options", [
    {"baseUrl": "ftp://x"}, {"baseUrl": 1}, {"mcpServers": []}, {"mcpServers": {"a": {}}}, {"mcpServers": {"a": {"url": 1}}},
    {"mcpServers": {"a": {"command": "x", "env": []}}}, {"skills": "pruning"}, {"skills": ["../up"]},
])  # fmt: skip
def test_an_option_of_a_wrong_kind_is_refused(provider: Provider, options: dict[str, Any]) -> None:
    assert refused(provider, provider_options=options) is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("provider", ENGINES)
def test_mcp_servers_are_told_when_the_session_is_opened(provider: Provider) -> None:
    servers = {
        "files": {"command": "/bin/files", "args": ["-x"], "env": {"A": "1"}},
        "web": {"type": "sse", "url": "http://127.0.0.1:1/", "headers": {"B": "2"}},
    }
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/e", home="/h", workspace="/w", messages=[Message(content="hi")],
        credential_env={KEYS[provider]: "k"}, provider_options={"mcpServers": servers},
    )  # fmt: skip
    conversation = ADAPTERS[provider].start(request)
    conversation.opened()
    [step] = conversation.feed("stdout", b'{"jsonrpc":"2.0","id":1,"result":{}}\n')  # pyright: ignore[reportArgumentType]
    assert json.loads(step.data)["params"]["mcpServers"] == [  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
        {"name": "files", "command": "/bin/files", "args": ["-x"], "env": [{"name": "A", "value": "1"}]},
        {"type": "sse", "name": "web", "url": "http://127.0.0.1:1/", "headers": [{"name": "B", "value": "2"}]},
    ]


@pytest.mark.parametrize("provider", ENGINES)
def test_the_skills_to_use_are_named_in_the_prompt_and_what_is_ignored_is_told(provider: Provider) -> None:
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/e", home="/h", workspace="/w", messages=[Message(content="hi")],
        credential_env={KEYS[provider]: "k"}, provider_options={"skills": ["pruning"], "colour": "red"},
    )  # fmt: skip
    conversation = ADAPTERS[provider].start(request)
    [ignored] = [step.payload for step in conversation.opened() if isinstance(step, Emit)]
    assert isinstance(ignored, Diagnostic)
    assert (ignored.code, "colour" in ignored.message) == ("option_ignored", True)
    for id, result in ((1, {}), (2, {"sessionId": "s"}), (3, {})):
        answer = json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode()
        steps = conversation.feed(STDOUT, answer + b"\n")
    [prompt] = [json.loads(step.data) for step in steps if isinstance(step, Send)]
    assert prompt["params"]["prompt"] == [{"type": "text", "text": "hi\n\nUse these skills: pruning."}]


def test_opencode_never_has_another_provider_than_the_one_asked_for() -> None:
    own = settings_of(command_of(Provider.OPENCODE, model="m", provider_options={"baseUrl": "http://127.0.0.1:1/v1"}))
    assert (own["enabled_providers"], own["model"]) == (["runyard"], "runyard/m")
    assert own["provider"]["runyard"]["npm"] == "@ai-sdk/openai-compatible"
    named = settings_of(command_of(Provider.OPENCODE, model="anthropic/x", credential_env={"ANTHROPIC_API_KEY": "k"}))
    assert (named["enabled_providers"], named["model"]) == (["anthropic"], "anthropic/x")
    assert settings_of(command_of(Provider.OPENCODE))["enabled_providers"] == ["openai"]


@pytest.mark.parametrize(("wire_api", "library"), [("responses", "@ai-sdk/openai"), ("anthropic", "@ai-sdk/anthropic")])
def test_opencode_speaks_the_dialect_it_is_told(wire_api: str, library: str) -> None:
    options = {"baseUrl": "http://127.0.0.1:1/v1", "wireApi": wire_api}
    keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
    config = settings_of(command_of(Provider.OPENCODE, provider_options=options, credential_env=keys))
    assert config["provider"]["runyard"]["npm"] == library
    assert refused(Provider.OPENCODE, provider_options={"wireApi": "smoke"}) is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("mode", list(EngineMode))
def test_opencode_is_told_every_permission(mode: EngineMode) -> None:
    permission = settings_of(command_of(Provider.OPENCODE, engine_mode=mode, tools={"shell": False}))["permission"]
    assert next(iter(permission)) == "*"
    assert permission["bash"] == "deny"


@pytest.mark.parametrize(("provider", "more", "auth"), [
    (Provider.GEMINI_CLI, {}, "gemini-api-key"),
    (Provider.GEMINI_CLI, {"credential_env": {}, "credential_files": {".gemini/oauth_creds.json": "{}"}}, "oauth-personal"),
    (Provider.QWEN_CODE, {}, "openai"),
    (Provider.QWEN_CODE, {"credential_env": {}, "credential_files": {".qwen/oauth_creds.json": "{}"}}, "qwen-oauth"),
])  # fmt: skip
def test_the_way_of_signing_in_is_written_down(provider: Provider, more: dict[str, Any], auth: str) -> None:
    assert settings_of(command_of(provider, **more))["security"]["auth"]["selectedType"] == auth
