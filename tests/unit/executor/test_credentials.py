"""What an executor signs engines in with: its environment, its files, what comes with a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.engines.credentials import MAX_FILE_BYTES, CredentialStore
from executor.events.redaction import secrets_in
from shared.contracts.credentials import CREDENTIALS, Credentials
from shared.contracts.providers import Provider

CODEX = CREDENTIALS[Provider.CODEX_APP_SERVER]
KEY = "sk-in-a-file-0123456789"
LOGIN = f'{{"auth_mode": "apikey", "OPENAI_API_KEY": "{KEY}"}}'


def folder_with(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "codex" / "auth.json"
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


@pytest.mark.parametrize("provider", list(Provider))
def test_every_provider_says_how_it_signs_in_with_files_of_its_home(provider: Provider) -> None:
    assert all(not Path(file.target).is_absolute() and ".." not in file.target for file in CREDENTIALS[provider].files)


def test_a_credential_file_goes_to_where_its_engine_looks_and_its_values_are_secrets(tmp_path: Path) -> None:
    store = CredentialStore({}, folder_with(tmp_path, LOGIN))
    assert store.missing(CODEX) is None
    sign_in = store.sign_in(CODEX, {})
    assert (sign_in.env, sign_in.files) == ({}, {".codex/auth.json": LOGIN})
    assert KEY in secrets_in(sign_in.values())


def test_a_start_with_a_key_of_its_own_gets_no_file_of_the_executor(tmp_path: Path) -> None:
    sign_in = CredentialStore({}, folder_with(tmp_path, LOGIN)).sign_in(CODEX, {"OPENAI_API_KEY": "sk-of-an-app"})
    assert (sign_in.env, sign_in.files) == ({"OPENAI_API_KEY": "sk-of-an-app"}, {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{{not json {KEY}", "codex/auth.json is not JSON"),
        (b"\xff\xfe", "codex/auth.json is not JSON"),
        ("[" * 100_000, "codex/auth.json is not JSON"),
        ("{}", "codex/auth.json holds nothing"),
        (b" " * (MAX_FILE_BYTES + 1), "codex/auth.json is larger than"),
    ],
)
def test_a_file_of_no_use_is_named_and_never_shown_or_copied(tmp_path: Path, content: str | bytes, why: str) -> None:
    store = CredentialStore({}, folder_with(tmp_path, content))
    missing = store.missing(CODEX)
    assert missing is not None
    assert why in missing
    assert KEY not in missing
    assert store.sign_in(CODEX, {}).files == {}


def test_what_needs_no_credentials_misses_none() -> None:
    assert CredentialStore({}, None).missing(Credentials()) is None


def test_an_empty_variable_is_none() -> None:
    assert CredentialStore({"OPENAI_API_KEY": ""}, None).missing(CODEX) is not None
