"""The credential bootstrap over prepared homes: complete, partial, malformed. No value is ever printed."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from executor.engines.credentials import CredentialStore
from executor.events.redaction import secrets_in
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider
from tests.service.scripts.commands import Ended, run_script

SECRET = "5ecret-never-printed"
COMPLETE = {
    ".codex/auth.json": json.dumps({"OPENAI_API_KEY": f"{SECRET}-codex"}),
    ".codex/config.toml": 'model_provider = "own"\n[model_providers.own]\nbase_url = "https://codex.test/v1"\n',
    ".claude/settings.json": json.dumps({"env": {"ANTHROPIC_AUTH_TOKEN": f"{SECRET} $HOME #claude", "OTHER": SECRET}}),
    ".claude/.credentials.json": json.dumps({"claudeAiOauth": {"accessToken": f"{SECRET}-oauth"}}),
    ".local/share/opencode/auth.json": json.dumps({"x": {"type": "api", "key": f"{SECRET}-opencode"}}),
    ".config/opencode/opencode.json": json.dumps({"provider": {"x": {"options": {"apiKey": "{env:X_KEY}"}}}}),
    ".gemini/.env": f"# a comment\nexport GEMINI_API_KEY='{SECRET}-gemini' # mine\nOTHER=1\n",
    ".gemini/settings.json": json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}}),
    ".gemini/oauth_creds.json": json.dumps({"refresh_token": f"{SECRET}-gemini-oauth"}),
    ".qwen/settings.json": json.dumps({"env": {"DASHSCOPE_API_KEY": f"{SECRET}-qwen"}}),
    ".qwen/oauth_creds.json": json.dumps({"access_token": f"{SECRET}-qwen-oauth"}),
}


def home_with(tmp_path: Path, files: dict[str, str]) -> Path:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    return home


async def bootstrap(tmp_path: Path, files: dict[str, str]) -> tuple[Ended, dict[str, dict[str, Any]]]:
    """How it ended, and its report by engine. What it printed holds no secret."""
    places = ("--home", str(home_with(tmp_path, files)), "--env-file", str(tmp_path / "out" / "provider.env"))
    ended = await run_script(
        "bootstrap_local_provider_env", *places, "--credentials-dir", str(tmp_path / "out" / "files"), "--json"
    )
    words = await run_script("bootstrap_local_provider_env", *places, "--credentials-dir", str(tmp_path / "out" / "files"))
    assert words.status == ended.status
    assert SECRET not in ended.stdout + ended.stderr + words.stdout + words.stderr
    return ended, {each["engine"]: each for each in json.loads(ended.stdout)["engines"]}


async def as_a_shell_reads_it(env_file: Path, name: str) -> str:
    script = f'set -a; . "{env_file}"; set +a; printf %s "${name}"'
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_complete_home_is_prepared_whole_private_and_named(tmp_path: Path) -> None:
    ended, engines = await bootstrap(tmp_path, COMPLETE)
    assert ended.status == 0
    assert {engine: each["status"] for engine, each in engines.items()} == dict.fromkeys(engines, "complete")
    assert engines["codex"]["files"] == [{"name": "codex/auth.json", "source": "~/.codex/auth.json"}]
    assert engines["claude"]["variables"] == [{"name": "ANTHROPIC_AUTH_TOKEN", "source": "~/.claude/settings.json"}]
    assert engines["opencode"]["problems"] == ["opencode_env_X_KEY_missing"]
    env_file, files = tmp_path / "out" / "provider.env", tmp_path / "out" / "files"
    assert [mode(env_file), mode(files), mode(files / "codex"), mode(files / "codex" / "auth.json")] == [
        0o600,
        0o700,
        0o700,
        0o600,
    ]
    assert env_file.read_text().splitlines() == [
        f"ANTHROPIC_AUTH_TOKEN='{SECRET} $HOME #claude'", f"DASHSCOPE_API_KEY={SECRET}-qwen", f"GEMINI_API_KEY={SECRET}-gemini",
        "OPENAI_BASE_URL=https://codex.test/v1",
    ]  # fmt: skip
    assert await as_a_shell_reads_it(env_file, "ANTHROPIC_AUTH_TOKEN") == f"{SECRET} $HOME #claude"
    for name in ("codex/auth.json", "claude/.credentials.json", "opencode/auth.json", "gemini/oauth_creds.json"):
        assert SECRET in (files / name).read_text()


async def test_what_was_prepared_is_what_an_executor_takes_and_redacts(tmp_path: Path) -> None:
    await bootstrap(tmp_path, COMPLETE)
    store = CredentialStore({}, tmp_path / "out" / "files")
    for provider in (Provider.CODEX_APP_SERVER, Provider.CLAUDE_CODE, Provider.OPENCODE, Provider.GEMINI_CLI, Provider.QWEN_CODE):
        assert store.missing(CREDENTIALS[provider]) is None
        assert any(secret.startswith(SECRET) for secret in secrets_in(store.sign_in(CREDENTIALS[provider], {}).values()))


async def test_a_partial_home_gives_what_it_has_and_names_what_it_lacks(tmp_path: Path) -> None:
    ended, engines = await bootstrap(tmp_path, {name: COMPLETE[name] for name in (".codex/auth.json", ".gemini/.env")})
    assert ended.status == 0
    assert {engine for engine, each in engines.items() if each["status"] == "complete"} == {"codex", "gemini"}
    assert engines["codex"]["problems"] == ["codex_config_missing"]
    assert engines["claude"]["problems"] == ["claude_settings_missing", "claude_credentials_missing"]


async def test_an_empty_home_is_nothing_to_sign_in_with(tmp_path: Path) -> None:
    ended, engines = await bootstrap(tmp_path, {})
    assert ended.status == 2
    assert {each["status"] for each in engines.values()} == {"missing"}
    assert (tmp_path / "out" / "provider.env").read_text() == ""


async def test_what_a_home_no_longer_has_is_taken_away(tmp_path: Path) -> None:
    await bootstrap(tmp_path, COMPLETE)
    (tmp_path / "home" / ".codex" / "auth.json").unlink()
    await bootstrap(tmp_path, {})
    assert not (tmp_path / "out" / "files" / "codex" / "auth.json").exists()
    assert (tmp_path / "out" / "files" / "claude" / ".credentials.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (".codex/auth.json", f'{{"OPENAI_API_KEY": "{SECRET}"', "codex_auth_invalid_json"),
        (".codex/auth.json", f'["{SECRET}"]', "codex_auth_invalid_json"),
        (".codex/auth.json", '{"OPENAI_API_KEY": null}', "codex_auth_empty"),
        (".codex/config.toml", f"key = {SECRET}", "codex_config_invalid_toml"),
        (".codex/config.toml", f'model_providers = "{SECRET}"', "codex_config_invalid_model_providers"),
        (".claude/settings.json", f'{{"env": "{SECRET}"}}', "claude_settings_invalid_env"),
        (".claude/settings.json", '{"env": {"ANTHROPIC_API_KEY": 5}}', "claude_settings_value_is_no_text"),
        (".claude/.credentials.json", "{}", "claude_credentials_empty"),
        (".gemini/.env", f'GEMINI_API_KEY="{SECRET}', "gemini_env_invalid_quotes"),
        (".gemini/.env", f'GEMINI_API_KEY="{SECRET}\\nsecond"', "gemini_GEMINI_API_KEY_cannot_be_carried"),
        (
            ".qwen/settings.json",
            json.dumps({"env": {"DASHSCOPE_API_KEY": f"{SECRET}'"}}),
            "qwen_DASHSCOPE_API_KEY_cannot_be_carried",
        ),
        (".qwen/oauth_creds.json", " " * 1_100_000, "qwen_oauth_creds_too_large"),
    ],
)
async def test_what_is_malformed_is_named_and_everything_else_is_prepared(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    other = {".local/share/opencode/auth.json": COMPLETE[".local/share/opencode/auth.json"]}
    ended, engines = await bootstrap(tmp_path, other | {name: content})
    assert ended.status == 1
    engine = engines[problem.split("_", maxsplit=1)[0]]
    assert engine["status"] == "malformed"
    assert problem in engine["problems"]
    assert engines["opencode"]["status"] == "complete"
    assert SECRET not in (tmp_path / "out" / "provider.env").read_text()


async def test_one_engines_endpoint_never_becomes_anothers(tmp_path: Path) -> None:
    qwen = {"env": {"OPENAI_API_KEY": f"{SECRET}-qwen", "OPENAI_BASE_URL": "https://qwen.test/v1"}}
    both = {".codex/auth.json": COMPLETE[".codex/auth.json"], ".qwen/settings.json": json.dumps(qwen)}
    ended, engines = await bootstrap(tmp_path, both)
    assert ended.status == 1
    assert "qwen_variables_belong_to_codex" in engines["qwen"]["problems"]
    assert (tmp_path / "out" / "provider.env").read_text() == ""
    (tmp_path / "home" / ".codex" / "auth.json").unlink()
    ended, _engines = await bootstrap(tmp_path, {})
    assert ended.status == 0
    assert "OPENAI_BASE_URL=https://qwen.test/v1" in (tmp_path / "out" / "provider.env").read_text()


async def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = await run_script("bootstrap_local_provider_env", "--home", str(tmp_path), "--env-file", str(tmp_path / "file" / "x"))
    assert ended.status == 64
    assert "Traceback" not in ended.stderr
