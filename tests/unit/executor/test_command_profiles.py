"""Command profiles: read whole or refused by key, and below everything a caller says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executor.engines.command_profiles import CommandProfileError, load_command_profiles
from shared.contracts.precedence import PRECEDENCE, merged, picked
from shared.contracts.providers import Provider


def test_every_real_engine_has_a_profile_that_says_nothing_yet() -> None:
    shipped = load_command_profiles()
    assert set(shipped) == set(Provider) - {Provider.SCRIPTED}
    assert all(not profile.arguments and not profile.options for profile in shipped.values())


def test_a_file_replaces_the_providers_it_names_by_any_of_their_names(tmp_path: Path) -> None:
    override = tmp_path / "profiles.json"
    override.write_text(json.dumps({"codex": {"arguments": ["-c", "a=1"], "model": "m", "options": {"effort": "low"}}}))
    profile = load_command_profiles(override)[Provider.CODEX_APP_SERVER]
    assert (profile.arguments, profile.model, profile.options) == (("-c", "a=1"), "m", {"effort": "low"})
    assert Provider.OPENCODE in load_command_profiles(override)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"codex": {"argumnets": []}}, "codex.argumnets"),
        ({"codex": {"arguments": "-c"}}, "codex.arguments"),
        ({"codex": {"arguments": [1]}}, "codex.arguments.0"),
        ({"codex": {"options": []}}, "codex.options"),
        ({"nobody": {}}, "nobody"),
        ({"codex": {}, "codex-app-server": {}}, "has an entry already"),
        ([], "profiles.json"),
    ],
)
def test_what_cannot_be_used_is_refused_with_file_and_key(tmp_path: Path, content: Any, names: str) -> None:
    override = tmp_path / "profiles.json"
    override.write_text(json.dumps(content))
    with pytest.raises(CommandProfileError, match=r"profiles\.json") as refused:
        load_command_profiles(override)
    assert names in str(refused.value)


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandProfileError, match=r"missing\.json: cannot be read"):
        load_command_profiles(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(CommandProfileError, match=r"broken\.json"):
        load_command_profiles(tmp_path / "broken.json")


@pytest.mark.parametrize(("field", "order"), PRECEDENCE.items())
def test_the_first_in_a_row_that_says_something_wins(field: str, order: tuple[str, ...]) -> None:
    for silent in range(len(order)):
        says = dict.fromkeys(order[:silent]) | {who: who for who in order[silent:]}
        assert picked(field, **says) == order[silent]
    assert picked(field) is None
    assert merged(field, **{who: {"both": who, who: who} for who in order}) == {"both": order[0], **{who: who for who in order}}
