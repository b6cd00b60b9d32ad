"""How Claude Code is set up for an attempt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters.base import Command, StartRequest
from executor.adapters.claude.config import MCP_FILE, SETTINGS_FILE, command_for
from executor.adapters.engine_modes import MODES
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode, RunyardError

KEY = {"ANTHROPIC_API_KEY": "sk-secret"}
LOGIN = {".claude/.credentials.json": '{"claudeAiOauth": {}}'}
OWN = {"baseUrl": "http://127.0.0.1:1"}


def request(**more: Any) -> StartRequest:
    fields: dict[str, Any] = {
        "run_id": "run_1", "attempt": 1, "executable": "/engines/claude", "home": "/h", "workspace": "/w",
        "messages": [Message(content="a prompt nobody else may see")], "credential_env": KEY,
    }  # fmt: skip
    return StartRequest(**(fields | more))


def command(session: str | None = None, **more: Any) -> Command:
    return command_for(request(**more), session)


def settings_of(made: Command) -> dict[str, Any]:
    return file_of(made, SETTINGS_FILE)


def file_of(made: Command, path: str) -> dict[str, Any]:
    [content] = [file.content for file in made.files if file.path == path]
    return json.loads(content)


def value_of(made: Command, name: str) -> str:
    return made.argv[made.argv.index(name) + 1]


def test_prompt_and_key_are_not_in_argv() -> None:
    made = command(provider_options=OWN)
    assert made.argv[0] == "/engines/claude"
    assert "prompt" not in " ".join(made.argv).replace("--permission-prompt-tool", "")
    assert "sk-secret" not in str(made.argv)
    assert "sk-secret" not in str(made.files)
    assert made.env["ANTHROPIC_API_KEY"] == "sk-secret"


@pytest.mark.parametrize("given", ["http://gw.test", "http://gw.test/", "http://gw.test/v1", "http://gw.test/v1/"])
def test_an_endpoint_is_the_same_with_and_without_its_version(given: str) -> None:
    made = command(provider_options={"baseUrl": given})
    assert made.env["ANTHROPIC_BASE_URL"] == "http://gw.test"
    assert settings_of(made)["env"]["ANTHROPIC_BASE_URL"] == "http://gw.test"


def test_an_endpoint_may_come_with_the_credentials_and_one_of_the_request_stands_above_it() -> None:
    credentials = KEY | {"ANTHROPIC_BASE_URL": "https://gateway.test"}
    assert settings_of(command(credential_env=credentials))["env"]["ANTHROPIC_BASE_URL"] == "https://gateway.test"
    both = command(credential_env=credentials, provider_options=OWN)
    assert settings_of(both)["env"]["ANTHROPIC_BASE_URL"] == OWN["baseUrl"]


def test_the_vendors_endpoint_is_left_alone() -> None:
    made = command()
    assert "ANTHROPIC_BASE_URL" not in made.env
    assert settings_of(made)["env"] == {}


@pytest.mark.parametrize("value", [3, "ftp://x", "127.0.0.1:80"])
def test_a_base_url_must_be_one(value: Any) -> None:
    with pytest.raises(RunyardError, match=r"providerOptions\.baseUrl"):
        command(provider_options={"baseUrl": value})


@pytest.mark.parametrize(
    "signed_in",
    [
        {"credential_env": KEY},
        {"credential_env": {"ANTHROPIC_AUTH_TOKEN": "t"}},
        {"credential_env": {"CLAUDE_CODE_OAUTH_TOKEN": "t"}},
        {"credential_env": {}, "credential_files": LOGIN},
    ],
)
def test_a_key_a_token_an_accounts_token_and_an_accounts_login_will_do(signed_in: dict[str, Any]) -> None:
    env = command(**signed_in).env
    assert signed_in["credential_env"].items() <= env.items()


@pytest.mark.parametrize(
    "signed_in",
    [{"credential_env": {"CLAUDE_CODE_OAUTH_TOKEN": "t"}}, {"credential_env": {}, "credential_files": LOGIN}],
)
def test_the_tokens_of_an_account_go_to_no_other_endpoint(signed_in: dict[str, Any]) -> None:
    with pytest.raises(RunyardError, match="auth_missing"):
        command(**signed_in, provider_options=OWN)
    beside_a_key = command(credential_env=KEY | {"CLAUDE_CODE_OAUTH_TOKEN": "t"}, provider_options=OWN)
    assert settings_of(beside_a_key)["env"]["CLAUDE_CODE_OAUTH_TOKEN"] == ""


@pytest.mark.parametrize("options", [{}, OWN])
def test_without_a_credential_nothing_is_started(options: dict[str, str]) -> None:
    with pytest.raises(RunyardError) as refused:
        command(credential_env={}, provider_options=options)
    assert refused.value.code is ErrorCode.AUTH_MISSING


def test_nothing_calls_home_stays_behind_or_retries_for_ever() -> None:
    env = command().env
    for name in ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"):
        assert env[name] == "1"
    assert int(env["CLAUDE_CODE_MAX_RETRIES"]) <= 2


def test_only_the_home_configures_the_engine() -> None:
    made = command()
    assert value_of(made, "--setting-sources") == "user"
    assert "--strict-mcp-config" in made.argv
    assert made.env["CLAUDE_CONFIG_DIR"] == "/h/.claude"
    assert settings_of(made)["disableAllHooks"] is True
    assert {file.root for file in made.files} == {"home"}
    assert {file.mode for file in made.files} == {0o600}


@pytest.mark.parametrize("mode", list(EngineMode))
def test_every_engine_mode_has_its_freedom_and_none_the_engines_own_way_past_all_questions(mode: EngineMode) -> None:
    made = command(engine_mode=mode)
    assert value_of(made, "--permission-mode") == MODES[mode].claude != "bypassPermissions"
    assert not any("dangerously" in part for part in made.argv)


def test_a_model_and_an_effort_may_be_chosen() -> None:
    made = command(model="sonnet", provider_options={"reasoningEffort": "high"})
    assert (value_of(made, "--model"), value_of(made, "--effort")) == ("sonnet", "high")
    assert "--model" not in command().argv


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"model": "--dangerously-skip-permissions"}, "model"),
        ({"provider_options": {"reasoningEffort": "bogus"}}, "reasoningEffort"),
        ({"tools": {"--mcp-config": False}}, "tools"),
        ({"provider_options": {"mcpServers": []}}, "mcpServers"),
        ({"provider_options": {"mcpServers": {"own": {"args": []}}}}, "mcpServers"),
    ],
)
def test_a_value_the_engine_would_misread_is_refused(more: dict[str, Any], field: str) -> None:
    with pytest.raises(RunyardError, match=field) as refused:
        command(**more)
    assert refused.value.code is ErrorCode.INVALID_REQUEST


def test_tools_are_switched_off_by_the_names_all_engines_share_or_by_the_engines_own() -> None:
    made = command(tools={"edit": False, "Skill": False, "shell": True})
    assert value_of(made, "--disallowedTools") == "Edit,Write,NotebookEdit,Skill"
    assert "--disallowedTools" not in command(tools={"shell": True}).argv


def test_the_skills_that_are_asked_for_get_a_name_where_it_looks() -> None:
    plain, made = command(), command(provider_options={"skills": ["pruning", "peeling"]})
    shell, _, _, name, first, second, end, *rest = made.argv
    assert (shell, name, [first, second], end) == ("/bin/sh", "claude-code", ["pruning", "peeling"], "--")
    assert tuple(rest) == plain.argv


@pytest.mark.parametrize("names", ["pruning", [1], ["../up"], ["--"], [""], ["x"] * 33])
def test_what_is_no_skills_name_is_refused(names: Any) -> None:
    with pytest.raises(RunyardError) as refused:
        command(provider_options={"skills": names})
    assert refused.value.code is ErrorCode.INVALID_REQUEST


def test_instructions_for_every_engine_are_imported() -> None:
    [imported] = [file for file in command().files if file.path == ".claude/CLAUDE.md"]
    assert imported.content == b"@/w/AGENTS.md\n"


def test_tool_servers_stand_in_a_file_and_not_in_argv() -> None:
    servers = {"own": {"command": "/bin/own", "env": {"TOKEN": "secret"}}, "far": {"type": "http", "url": "https://far.test"}}
    made = command(provider_options={"mcpServers": servers})
    assert value_of(made, "--mcp-config") == f"/h/{MCP_FILE}"
    own = {"type": "stdio", "command": "/bin/own", "args": [], "env": {"TOKEN": "secret"}}
    assert file_of(made, MCP_FILE) == {
        "mcpServers": {"own": own, "far": {"type": "http", "url": "https://far.test", "headers": {}}}
    }
    assert "secret" not in str(made.argv)
    assert file_of(command(), MCP_FILE) == {"mcpServers": {}}


def test_a_session_is_resumed_by_its_name() -> None:
    assert value_of(command("abc"), "--resume") == "abc"
    assert "--resume" not in command().argv


def test_commands_of_the_engine_do_not_see_its_credentials() -> None:
    made = command()
    path = made.env["CLAUDE_ENV_FILE"].removeprefix("/h/")
    [unset] = [file.content.decode().split() for file in made.files if file.path == path]
    assert set(unset) >= {"unset", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"}
