"""Codex signed in by nothing but the login file that the bootstrap found in a home."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, processes_with, running_stack
from tests.model_stub.server import ModelStub, serving
from tests.service.scripts.commands import run_script

pytestmark = pytest.mark.engine

ENGINES = Path(__file__).parent.parent.parent / "engines"
KEY = "sk-only-in-a-file-0123456789"
PROVIDER = Provider.CODEX_APP_SERVER


@asynccontextmanager
async def signed_in_by(folder: Path, login: str) -> AsyncGenerator[tuple[Stack, ModelStub]]:
    """A stack whose executor has what the bootstrap made of a home with this ``auth.json``, and no variable."""
    (folder / "home" / ".codex").mkdir(parents=True)
    (folder / "home" / ".codex" / "auth.json").write_text(login)
    files = folder / "credentials"
    places = ("--home", str(folder / "home"), "--env-file", str(folder / "provider.env"), "--credentials-dir", str(files))
    ended = await run_script("bootstrap_local_provider_env", *places)
    assert (ended.status, KEY in ended.stdout) == (0, False)
    environment = {"RUNYARD_ENGINES_DIR": str(ENGINES), "EXECUTOR_CREDENTIALS_DIR": str(files)}
    environment |= dict.fromkeys(CREDENTIALS[PROVIDER].names, "")
    with running_stack(folder / "state", environment=environment) as stack:
        async with stack.client, serving() as stub:
            yield stack, stub


async def test_codex_with_only_an_injected_login_file_ends_in_success_and_its_key_is_not_shown() -> None:
    with make_folder() as folder:
        async with signed_in_by(folder, json.dumps({"OPENAI_API_KEY": KEY})) as (stack, stub):
            options = {"baseUrl": stub.base_url}
            show_it = "[[tool:cat $HOME/.codex/auth.json]]"
            prompts = {"hi [[text]]": "Hello from the model stub. The answer is 42.", show_it: None}
            for prompt, result in prompts.items():
                run_id = await stack.start(prompt, provider=PROVIDER, model="gpt-5.5", engineMode="full", providerOptions=options)
                shown = await stack.until(run_id)
                assert shown["status"] == "success", shown
                assert result is None or shown["result"] == result
                assert KEY not in json.dumps([shown, await stack.events(run_id)])
                await stack.check(run_id)
            assert stub.requests[0]["headers"]["authorization"] == "present"
            assert KEY in str(stub.requests[-1]["body"]), "the command did not find the file, so this proves nothing"
            copies = list(folder.glob("state/workspaces/*/home/.codex/auth.json"))
            assert [copy.stat().st_mode & 0o777 for copy in copies] == [0o600, 0o600]
            assert not processes_with("OPENAI_API_KEY", KEY)
        assert KEY not in (folder / "state.log").read_text()


async def test_the_login_of_an_account_is_sent_to_no_other_endpoint() -> None:
    with make_folder() as folder:
        login = json.dumps({"tokens": {"access_token": KEY, "refresh_token": KEY, "id_token": KEY}})
        async with signed_in_by(folder, login) as (stack, stub):
            run_id = await stack.start("hi [[text]]", provider=PROVIDER, providerOptions={"baseUrl": stub.base_url})
            shown = await stack.until(run_id)
            assert (shown["status"], shown["errorCode"]) == ("error", "auth_missing")
            assert not stub.requests
