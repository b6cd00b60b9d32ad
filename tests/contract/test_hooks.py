"""The hooks before a commit: local, and made of what is there."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from scripts.generated_parts import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
HOOKS: dict[str, dict[str, Any]] = {hook["id"]: hook for repo in CONFIG["repos"] for hook in repo["hooks"]}


def test_no_hook_is_fetched_from_anywhere() -> None:
    assert {repo["repo"] for repo in CONFIG["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} <= {"system", "pygrep"}


@pytest.mark.parametrize("name", [name for name, hook in HOOKS.items() if hook["language"] == "system"])
def test_a_hook_runs_what_make_check_runs_or_a_test_that_is_there(name: str) -> None:
    entry: str = HOOKS[name]["entry"]
    assert entry.startswith(".venv/bin/")
    assert [path for path in re.findall(r"[\w/]+\.py", entry) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("text", [
    "-----BEGIN RSA PRIVATE KEY-----", "key = 'sk-" + "a1" * 20 + "'", "AKIA" + "Q" * 16, "ghp_" + "x" * 36,
])  # fmt: skip
def test_a_key_would_be_seen(text: str) -> None:
    assert re.search(HOOKS["secrets"]["entry"], text)


def test_a_word_about_keys_is_no_key() -> None:
    assert not re.search(
        HOOKS["secrets"]["entry"], "sk-test, OPENAI_API_KEY=…, a PRIVATE KEY, task-runner-with-a-long-name-of-words"
    )


def test_a_path_of_a_home_would_be_seen() -> None:
    assert re.search(HOOKS["home-paths"]["entry"], "see /" + "home/somebody/project")
