"""How Codex is set up for an attempt."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from executor.adapters.base import StartRequest
from executor.adapters.codex.config import command_for, thread_settings
from executor.adapters.engine_modes import MODES
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode, RunyardError

KEY = {"OPENAI_API_KEY": "sk-secret"}
OWN = {"baseUrl": "http://127.0.0.1:1/v1"}


def request(**more: Any) -> StartRequest:
    fields: dict[str, Any] = {
        "run_id": "run_1", "attempt": 1, "executable": "/engines/codex", "home": "/h", "workspace": "/w",
        "messages": [Message(content="a prompt nobody else may see")], "credential_env": KEY,
    }  # fmt: skip
    return StartRequest(**(fields | more))


def config_of(asked: StartRequest) -> dict[str, Any]:
    return tomllib.loads(command_for(asked).files[0].content.decode())


def test_an_own_endpoint_is_a_provider_with_few_retries() -> None:
    config = config_of(request(provider_options=OWN))
    provider = config["model_providers"][config["model_provider"]]
    assert provider["base_url"] == OWN["baseUrl"]
    assert (provider["wire_api"], provider["env_key"]) == ("responses", "OPENAI_API_KEY")
    assert provider["request_max_retries"] <= 2
    assert provider["stream_max_retries"] <= 2


def test_an_own_endpoint_may_come_with_the_credentials() -> None:
    config = config_of(request(credential_env=KEY | {"OPENAI_BASE_URL": "https://gateway.test/v1"}))
    assert config["model_providers"]["runyard"]["base_url"] == "https://gateway.test/v1"


def test_nothing_calls_home_and_no_retry_is_endless() -> None:
    config = config_of(request())
    assert config["analytics"] == {"enabled": False}
    for feature in ("plugins", "apps", "unbounded_connection_retries"):
        assert config["features"][feature] is False


def test_the_built_in_provider_gets_a_login_file_only_we_can_read() -> None:
    command = command_for(request())
    auth = next(file for file in command.files if file.path == ".codex/auth.json")
    assert json.loads(auth.content) == {"auth_mode": "apikey", "OPENAI_API_KEY": "sk-secret"}
    assert auth.mode == 0o600
    assert tomllib.loads(command.files[0].content.decode())["model_provider"] == "openai"


def test_a_login_of_an_account_is_used_as_it_is() -> None:
    command = command_for(request(credential_env={"CODEX_AUTH_JSON": '{"tokens": 1}'}))
    assert command.files[1].content == b'{"tokens": 1}'


def test_a_login_file_serves_the_built_in_endpoint_as_it_is_and_another_one_by_its_key() -> None:
    login = '{"OPENAI_API_KEY": "sk-in-a-file"}'
    with_file = {"credential_env": {}, "credential_files": {".codex/auth.json": login}}
    assert command_for(request(**with_file)).files[1].content == login.encode()
    own = command_for(request(**with_file, provider_options=OWN))
    assert own.env["OPENAI_API_KEY"] == "sk-in-a-file"


def test_the_tokens_of_an_account_go_to_no_other_endpoint() -> None:
    account = {"credential_env": {}, "credential_files": {".codex/auth.json": '{"tokens": {"access_token": "t"}}'}}
    assert command_for(request(**account)).files
    with pytest.raises(RunyardError, match="auth_missing"):
        command_for(request(**account, provider_options=OWN))


@pytest.mark.parametrize("options", [{}, OWN])
def test_without_a_credential_nothing_is_started(options: dict[str, str]) -> None:
    with pytest.raises(RunyardError) as refused:
        command_for(request(credential_env={}, provider_options=options))
    assert refused.value.code is ErrorCode.AUTH_MISSING


@pytest.mark.parametrize("value", [3, "ftp://x", "127.0.0.1:80"])
def test_a_base_url_must_be_one(value: Any) -> None:
    with pytest.raises(RunyardError, match=r"providerOptions\.baseUrl"):
        command_for(request(provider_options={"baseUrl": value}))


def test_values_cannot_break_out_of_the_config() -> None:
    base_url = 'http://x/"\n[features]\nplugins = true\n#\x7f\\'
    assert config_of(request(provider_options={"baseUrl": base_url}))["model_providers"]["runyard"]["base_url"] == base_url


def test_prompt_and_key_are_not_in_argv() -> None:
    command = command_for(request(provider_options=OWN))
    assert command.argv == ("/engines/codex", "app-server")
    assert "prompt" not in str(command)
    assert command.env == {"CODEX_HOME": "/h/.codex", "OPENAI_API_KEY": "sk-secret"}


def test_commands_of_the_engine_do_not_see_its_credentials() -> None:
    assert set(config_of(request())["shell_environment_policy"]["exclude"]) >= {"OPENAI_API_KEY", "CODEX_AUTH_JSON"}


@pytest.mark.parametrize("mode", list(EngineMode))
def test_every_engine_mode_has_its_freedom(mode: EngineMode) -> None:
    settings = thread_settings(request(engine_mode=mode, model="m"))
    told = MODES[mode].codex
    assert (settings["sandbox"], settings["approvalPolicy"]) == (told.sandbox, told.approval_policy)
    assert settings["model"] == "m"


def test_tool_servers_stand_in_its_config() -> None:
    servers = {"own": {"command": "/bin/own", "args": ['"x"'], "env": {"A B": "1"}}, "far": {"url": "https://far.test"}}
    assert config_of(request(provider_options={"mcpServers": servers}))["mcp_servers"] == {
        "own": {"command": "/bin/own", "args": ['"x"'], "env": {"A B": "1"}},
        "far": {"url": "https://far.test", "http_headers": {}},
    }
    assert "mcp_servers" not in config_of(request())


@pytest.mark.parametrize(("server", "code"), [
    ({"a.b": {"command": "x"}}, ErrorCode.INVALID_REQUEST),
    ({"a": {"url": "https://x", "type": "sse"}}, ErrorCode.CAPABILITY_UNAVAILABLE),
])  # fmt: skip
def test_a_tool_server_codex_cannot_have_is_refused(server: dict[str, Any], code: ErrorCode) -> None:
    with pytest.raises(RunyardError) as refused:
        command_for(request(provider_options={"mcpServers": server}))
    assert refused.value.code is code


def test_only_the_web_search_can_be_switched_off() -> None:
    assert config_of(request(tools={"web_search": False, "shell": True}))["web_search"] == "disabled"
    with pytest.raises(RunyardError) as refused:
        command_for(request(tools={"shell": False}))
    assert refused.value.code is ErrorCode.CAPABILITY_UNAVAILABLE
