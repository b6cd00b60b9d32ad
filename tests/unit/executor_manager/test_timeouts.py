"""Which timeout applies and who said so; and that a table with a mistake stops the manager from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor_manager.timeouts import TimeoutTableError, load_timeouts
from shared.contracts.events import MAX_TIMEOUT_MS, Timeouts
from shared.contracts.provider_runs import Message, StartProviderRun, WorkspaceRef
from shared.contracts.providers import Provider
from shared.errors import RunyardError

CODEX, CLAUDE, OPENCODE = Provider.CODEX_APP_SERVER, Provider.CLAUDE_CODE, Provider.OPENCODE
SHIPPED = load_timeouts(1_800_000)


@pytest.mark.parametrize(
    ("provider", "model", "run_ms"),
    [
        (CODEX, None, 240_000),
        (CODEX, "gpt-5", 240_000),
        (CODEX, "gpt-5.1-codex-max", 420_000),
        (CODEX, "gpt-5.1-codex-mini", 180_000),
        (CODEX, "openai/gpt-5.1-codex", 300_000),
        (CLAUDE, None, 300_000),
        (CLAUDE, "claude-opus-4-5", 420_000),
        (CLAUDE, "claude-sonnet-4-5", 300_000),
        (CLAUDE, "claude-haiku-4-5", 180_000),
        (OPENCODE, "openai/gpt-5.1-codex-max", 420_000),
        (OPENCODE, "openai/gpt-5.1-codex-max-preview", 300_000),
        (OPENCODE, "anthropic/claude-opus-4", 420_000),
        (OPENCODE, "anthropic/claude-sonnet-4", 300_000),
        (Provider.SCRIPTED, "any", 1_800_000),
    ],
)
def test_the_shipped_table_has_the_values_its_users_know(provider: Provider, model: str | None, run_ms: int) -> None:
    assert SHIPPED.resolve(provider, model, {}).run_ms == run_ms


@pytest.mark.parametrize(
    ("options", "model", "provider", "run_ms", "rule"),
    [
        ({"timeoutMs": 7, "runTimeoutMs": 8}, "opus", CLAUDE, 7, "providerOptions.timeoutMs"),
        ({"runTimeoutMs": 8}, "opus", CLAUDE, 8, "providerOptions.runTimeoutMs"),
        ({"timeoutMs": None}, "opus", CLAUDE, 420_000, "template: claude-code includes opus"),
        ({}, "other", CLAUDE, 300_000, "template: claude-code default"),
        ({}, None, Provider.QWEN_CODE, 1_800_000, "EXECUTOR_RUN_TIMEOUT_MS"),
    ],
)
def test_the_first_rule_that_has_a_value_wins_and_is_named(options, model, provider, run_ms, rule) -> None:
    found = SHIPPED.resolve(provider, model, options)
    assert (found.run_ms, found.rule) == (run_ms, rule)


@pytest.mark.parametrize("given", [0, -1, MAX_TIMEOUT_MS + 1, "60000", 1.5, True])
def test_a_callers_value_must_be_milliseconds_up_to_a_day(given: object) -> None:
    with pytest.raises(RunyardError, match=r"providerOptions\.timeoutMs"):
        SHIPPED.resolve(CLAUDE, None, {"timeoutMs": given})


@pytest.mark.parametrize(
    ("options", "app_ms", "run_ms", "rule"),
    [
        ({"timeoutMs": 7}, 9, 7, "providerOptions.timeoutMs"),
        ({"runTimeoutMs": 8}, 9, 8, "providerOptions.runTimeoutMs"),
        ({}, 9, 9, "app"),
        ({"timeoutMs": None}, 9, 9, "app"),
        ({}, None, 420_000, "template: claude-code includes opus"),
    ],
)
def test_an_apps_timeout_stands_between_the_requests_and_the_tables(options, app_ms, run_ms, rule) -> None:
    settled = SHIPPED.settle(started(Timeouts(app_ms=app_ms), **options)).timeouts
    assert (settled.run_ms, settled.rule, settled.app_ms) == (run_ms, rule, None)


def test_a_value_that_cannot_be_is_refused_also_where_another_stands_above_it() -> None:
    with pytest.raises(RunyardError, match=r"providerOptions\.runTimeoutMs"):
        SHIPPED.resolve(CLAUDE, None, {"timeoutMs": 5, "runTimeoutMs": 0})
    with pytest.raises(RunyardError, match=r"providerOptions\.timeoutMs"):
        SHIPPED.settle(started(Timeouts(run_ms=9, rule="remaining"), timeoutMs=0))


def started(timeouts: Timeouts, **options: object) -> StartProviderRun:
    return StartProviderRun(
        provider_options=options,
        run_id="r",
        provider=CLAUDE,
        model="opus",
        messages=[Message(content="hi")],
        workspace=WorkspaceRef(key="w"),
        timeouts=timeouts,
    )


def test_a_start_gets_its_timeout_once_and_keeps_what_is_left_of_it_later() -> None:
    first = SHIPPED.settle(started(Timeouts(idle_ms=9, stop_grace_ms=8)))
    assert first.timeouts == Timeouts(run_ms=420_000, idle_ms=9, stop_grace_ms=8, rule="template: claude-code includes opus")
    left = started(first.timeouts.model_copy(update={"run_ms": 1234}))
    assert SHIPPED.settle(left).timeouts.run_ms == 1234


def test_a_file_replaces_the_providers_it_names_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[claude]\ndefault_timeout_ms = 5\nmodel_rules = [{ pattern = "^o.*s$", timeout_ms = 6, mode = "regex" }]\n', "utf-8"
    )
    table = load_timeouts(99, file)
    assert table.resolve(CLAUDE, "opus", {}).run_ms == 6
    assert table.resolve(CLAUDE, "sonnet", {}).run_ms == 5
    assert table.resolve(CODEX, None, {}).run_ms == 240_000


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[claude-code]\nmodel_rules = []", "claude-code.default_timeout_ms"),
        ("[claude-code]\ndefault_timeout_ms = 0", "claude-code.default_timeout_ms"),
        ("[claude-code]\ndefault_timeout_ms = 1\ndefaultTimeout = 2", "claude-code.defaultTimeout"),
        (
            '[opencode]\ndefault_timeout_ms = 1\nmodel_rules = [{ pattern = "(", timeout_ms = 1, mode = "regex" }]',
            "opencode.model_rules.0",
        ),
        (
            '[opencode]\ndefault_timeout_ms = 1\nmodel_rules = [{ pattern = "a", timeout_ms = 1, mode = "glob" }]',
            "opencode.model_rules.0.mode",
        ),
        ("[nobody]\ndefault_timeout_ms = 1", "nobody"),
        ("[claude]\ndefault_timeout_ms = 1\n[claude-code]\ndefault_timeout_ms = 1", "claude-code"),
        ("claude-code = 5", "claude-code"),
        ("[claude-code", "mine.toml"),
    ],
)
def test_a_bad_table_names_its_key(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(TimeoutTableError) as caught:
        load_timeouts(1, file)
    assert key in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TimeoutTableError, match=r"gone\.toml: cannot be read"):
        load_timeouts(1, tmp_path / "gone.toml")
