"""What the control plane believes about providers is what the executor can do."""

from __future__ import annotations

import pytest

from executor.adapters import ADAPTERS
from shared.contracts.providers import ALIASES, CLOSED, CREDENTIAL_NAMES, DRIVEN, Provider, provider_named
from shared.errors import RunyardError


def test_a_provider_is_driven_if_and_only_if_it_has_an_adapter() -> None:
    assert frozenset(ADAPTERS) - CLOSED.keys() == DRIVEN


@pytest.mark.parametrize("provider", sorted(CLOSED))
def test_a_provider_that_nobody_can_run_any_more_says_why(provider: Provider) -> None:
    assert ADAPTERS[provider].install.closed == CLOSED[provider]


@pytest.mark.parametrize("provider", sorted(DRIVEN))
def test_no_request_may_set_what_an_adapter_takes_as_a_credential(provider: Provider) -> None:
    assert set(ADAPTERS[provider].credentials.names) <= CREDENTIAL_NAMES


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_is_translated_and_never_a_provider_itself(alias: str) -> None:
    assert alias not in set(Provider)
    assert provider_named(alias) is ALIASES[alias]


def test_an_unknown_provider_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RunyardError, match="codex-app-server"):
        provider_named("nobody")
