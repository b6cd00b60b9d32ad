"""The table of timeouts as a real manager answers it, and the files it refuses to start with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.loopback import unused_port
from tests.service.executor_manager.kit import Manager, manager_process, refused_to_start

DAY_MS = 86_400_000
# provider, model, milliseconds, the rule's end. Every value of the shipped table, and what is near it.
SHIPPED = [
    ("codex-app-server", None, 240_000, "template: codex-app-server default"),
    ("codex-app-server", "gpt-5", 240_000, "template: codex-app-server default"),
    ("codex-app-server", "gpt-5.1-codex-max", 420_000, "template: codex-app-server includes gpt-5.1-codex-max"),
    ("codex-app-server", "gpt-5.1-codex-mini", 180_000, "template: codex-app-server includes gpt-5.1-codex-mini"),
    ("codex-app-server", "gpt-5.1-codex", 300_000, "template: codex-app-server includes gpt-5.1-codex"),
    ("codex-app-server", "openai/gpt-5.1-codex-high", 300_000, "template: codex-app-server includes gpt-5.1-codex"),
    ("codex-cli", "gpt-5.1-codex-mini", 180_000, "template: codex-app-server includes gpt-5.1-codex-mini"),
    ("codex-cli", None, 240_000, "template: codex-app-server default"),
    ("claude-code", None, 300_000, "template: claude-code default"),
    ("claude-code", "claude-opus-4-5", 420_000, "template: claude-code includes opus"),
    ("claude-code", "claude-sonnet-4-5", 300_000, "template: claude-code includes sonnet"),
    ("claude-code", "claude-haiku-4-5", 180_000, "template: claude-code includes haiku"),
    ("opencode", None, 300_000, "template: opencode default"),
    ("opencode", "openai/gpt-5.1-codex-max", 420_000, "template: opencode exact openai/gpt-5.1-codex-max"),
    ("opencode", "openai/gpt-5.1-codex-max-2", 300_000, "template: opencode includes openai/gpt-5.1-codex"),
    ("opencode", "openai/gpt-5.1-codex", 300_000, "template: opencode includes openai/gpt-5.1-codex"),
    ("opencode", "anthropic/claude-opus-4", 420_000, "template: opencode includes anthropic/claude-opus"),
    ("opencode", "anthropic/claude-sonnet-4", 300_000, "template: opencode includes anthropic/claude-sonnet"),
    ("gemini-cli", "gemini-3-pro", 1_234_567, "EXECUTOR_RUN_TIMEOUT_MS"),
    ("scripted", None, 1_234_567, "EXECUTOR_RUN_TIMEOUT_MS"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shipped() -> AsyncIterator[Manager]:
    async with manager_process("", unused_port(), EXECUTOR_RUN_TIMEOUT_MS="1234567") as here:
        yield here


async def asked(here: Manager, **query: str | int | None) -> httpx.Response:
    return await here.http.get("/api/timeouts", params={name: value for name, value in query.items() if value is not None})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("provider", "model", "run_ms", "rule"), SHIPPED)
async def test_each_value_of_the_table_is_answered_with_its_rule(
    shipped: Manager, provider: str, model: str | None, run_ms: int, rule: str
) -> None:
    answer = (await asked(shipped, provider=provider, model=model)).json()
    assert (answer["runMs"], answer["rule"]) == (run_ms, rule)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("app_ms", "run_ms", "rule"), [(1, 1, "app"), (DAY_MS, DAY_MS, "app"), (None, 420_000, "template: ")])
async def test_an_apps_timeout_stands_above_the_table(shipped: Manager, app_ms: int | None, run_ms: int, rule: str) -> None:
    answer = (await asked(shipped, provider="claude-code", model="opus", appMs=app_ms)).json()
    assert answer["runMs"] == run_ms
    assert answer["rule"].startswith(rule)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"provider": "nobody"}, "query.provider"),
        ({}, "query.provider"),
        ({"provider": "codex", "appMs": 0}, "query.appMs"),
        ({"provider": "codex", "appMs": DAY_MS + 1}, "query.appMs"),
        ({"provider": "codex", "color": "red"}, "query.color"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_by_the_name_of_its_part(
    shipped: Manager, query: dict[str, str | int], field: str
) -> None:
    answer = await asked(shipped, **query)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_setting_the_last_resort_is_half_an_hour(tmp_path: Path) -> None:
    async with manager_process("", unused_port()) as here:
        answer = (await asked(here, provider="qwen-code")).json()
        assert (answer["runMs"], answer["rule"]) == (1_800_000, "EXECUTOR_RUN_TIMEOUT_MS")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_replaces_what_it_names_and_adds_what_the_table_lacks(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[claude]\ndefault_timeout_ms = 5\n"
        'model_rules = [{ pattern = "(?i)^OPUS", timeout_ms = 6, mode = "regex" }, { pattern = "opus", timeout_ms = 7 }]\n'
        "[gemini-cli]\ndefault_timeout_ms = 8\n",
        "utf-8",
    )
    async with manager_process("", unused_port(), EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE=str(file)) as here:
        cases = [
            ("claude-code", "opus-4", 6, "template: claude-code regex (?i)^OPUS"),
            ("claude-code", "the opus", 7, "template: claude-code includes opus"),
            ("claude-code", "haiku", 5, "template: claude-code default"),
            ("gemini", None, 8, "template: gemini-cli default"),
            ("codex", None, 240_000, "template: codex-app-server default"),
        ]
        for provider, model, run_ms, rule in cases:
            answer = (await asked(here, provider=provider, model=model)).json()
            assert (answer["runMs"], answer["rule"]) == (run_ms, rule)


GOOD = "[claude-code]\ndefault_timeout_ms = 1\n"
RULE = "[opencode]\ndefault_timeout_ms = 1\nmodel_rules = [{{ {} }}]"
BAD = {
    "no default": ("[claude-code]\nmodel_rules = []", "claude-code.default_timeout_ms: "),
    "default of nothing": ("[claude-code]\ndefault_timeout_ms = 0", "claude-code.default_timeout_ms: "),
    "default above a day": (f"[claude-code]\ndefault_timeout_ms = {DAY_MS + 1}", "claude-code.default_timeout_ms: "),
    "default in words": ('[claude-code]\ndefault_timeout_ms = "soon"', "claude-code.default_timeout_ms: "),
    "a key nobody knows": (GOOD + "defaultTimeoutMs = 2", "claude-code.defaultTimeoutMs: "),
    "a rule without its time": (RULE.format('pattern = "a"'), "opencode.model_rules.0.timeout_ms: "),
    "a rule without its pattern": (RULE.format("timeout_ms = 1"), "opencode.model_rules.0.pattern: "),
    "a rule with an empty pattern": (RULE.format('pattern = "", timeout_ms = 1'), "opencode.model_rules.0.pattern: "),
    "a rule above a day": (RULE.format(f'pattern = "a", timeout_ms = {DAY_MS + 1}'), "opencode.model_rules.0.timeout_ms: "),
    "a mode nobody knows": (RULE.format('pattern = "a", timeout_ms = 1, mode = "glob"'), "opencode.model_rules.0.mode: "),
    "flags": (RULE.format('pattern = "a", timeout_ms = 1, flags = "i"'), "opencode.model_rules.0.flags: "),
    "no regular expression": (RULE.format('pattern = "(", timeout_ms = 1, mode = "regex"'), "opencode.model_rules.0: "),
    "a provider nobody knows": ("[nobody]\ndefault_timeout_ms = 1", "nobody"),
    "a provider twice": (GOOD + "[claude]\ndefault_timeout_ms = 1", "claude: "),
    "a value for a provider": ("claude-code = 5", "claude-code: "),
    "broken TOML": ("[claude-code]\ndefault_timeout_ms = = 1\n", "line 2"),
    "JSON": (json.dumps({"claude-code": {"defaultTimeoutMs": 5}}), "line 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_ends_the_manager_at_its_start_with_file_and_key(tmp_path: Path, kind: str) -> None:
    text, key = BAD[kind]
    file = tmp_path / "mine.toml"
    file.write_text(text, "utf-8")
    said = refused_to_start(RUNYARD_AUTH="off", EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE=str(file))
    assert said.startswith(f"executor-manager: {file}: ")
    assert key in said


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "binary.toml", tmp_path, tmp_path / "gone.toml"):
        said = refused_to_start(RUNYARD_AUTH="off", EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE=str(path))
        assert f"{path}: cannot be read" in said
