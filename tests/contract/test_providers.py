"""What every table says of providers: one engine, one row in each that needs one."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.session_state import SESSION_STATE
from executor.adapters.takes import TAKES
from executor.engines.command_profiles import load_command_profiles
from executor.processes.containment import _PRIVATE_IN_HOME
from runyard.cli import doctor
from scripts import lint_architecture
from scripts.home_credentials import SOURCES
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import ALIASES, CLOSED, DRIVEN, Provider, provider_named
from shared.errors import RunyardError

ENGINES = set(Provider) - {Provider.SCRIPTED}
LOGINS = {file.target for each in CREDENTIALS.values() for file in each.files}


def test_every_provider_has_an_adapter_also_one_that_nobody_can_run_any_more() -> None:
    assert set(ADAPTERS) == set(Provider)


@pytest.mark.parametrize("provider", sorted(CLOSED))
def test_a_provider_that_nobody_can_run_any_more_says_why(provider: Provider) -> None:
    assert ADAPTERS[provider].install.closed == CLOSED[provider]


@pytest.mark.parametrize("provider", sorted(Provider))
def test_every_adapter_signs_in_as_the_shared_table_says(provider: Provider) -> None:
    assert ADAPTERS[provider].credentials is CREDENTIALS[provider]


@pytest.mark.parametrize("provider", sorted(DRIVEN))
def test_a_snapshot_holds_the_sessions_of_every_engine_that_can_resume(provider: Provider) -> None:
    assert bool(SESSION_STATE[provider]) == ADAPTERS[provider].capabilities.resume


@pytest.mark.parametrize("provider", sorted(DRIVEN - {Provider.SCRIPTED}))
def test_what_every_engine_takes_is_told(provider: Provider) -> None:
    assert provider in TAKES


def test_every_engine_has_a_command_profile_that_an_operator_can_begin_with() -> None:
    assert set(load_command_profiles()) == ENGINES


def test_the_doctor_and_the_rules_of_the_code_know_every_engine() -> None:
    assert {provider_named(name) for name in doctor.ENGINES} == ENGINES
    assert {provider_named(name) for name in lint_architecture.PROVIDERS} == ENGINES


def test_the_bootstrap_finds_every_file_that_an_engine_signs_in_with() -> None:
    assert {source.copy_to for source in SOURCES if source.copy_to} == {
        file.source for each in CREDENTIALS.values() for file in each.files
    }


@pytest.mark.parametrize("path", sorted({*(source.path for source in SOURCES), *LOGINS}))
def test_no_contained_engine_sees_the_operators_own_login(path: str) -> None:
    assert any(PurePath(path).is_relative_to(hidden) for hidden in _PRIVATE_IN_HOME)


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_is_translated_and_never_a_provider_itself(alias: str) -> None:
    assert alias not in set(Provider)
    assert provider_named(alias) is ALIASES[alias]


def test_an_unknown_provider_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RunyardError, match="codex-app-server"):
        provider_named("nobody")
