"""Sessions of the real engines go on at another executor, from a snapshot: with their files, and with what was said before.

Both executors keep workspaces at the same path. What the first one has is taken away before the other one begins, as if each had
a disk of its own; so only the snapshot can tell the engine what it is to go on with.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import Engine
from tests.conformance.ground import ENGINES_DIR, KEYS
from tests.conformance.test_client_script import LIVING, stack, stub
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack
from tests.engines.test_codex_through_services import of_kind
from tests.model_stub.server import ModelStub

pytestmark = pytest.mark.engine
__all__ = ["stack", "stub"]  # the fixtures

WORD = "kumquat"
FOUND = "6001"  # what only a command can say that reads the file
SHELL_ONLY = {"engineMode": "full"}


@pytest.fixture(scope="module")
def store() -> Generator[Path]:
    with make_folder() as folder:
        yield folder / "store"


@pytest.fixture(scope="module")
def engine_stack(store: Path) -> Generator[Stack]:
    given = {"RUNYARD_ENGINES_DIR": str(ENGINES_DIR), "EXECUTOR_SNAPSHOT_STORE": f"file://{store}", **KEYS}
    with make_folder() as folder, running_stack(folder / "state", "--executors", "2", environment=given) as stack:
        yield stack


def everything_in(store: Path) -> bytes:
    return b"".join(gzip.decompress(blob.read_bytes()) for blob in store.glob("*/*"))


async def drained(stack: Stack, executor_id: str, method: str) -> None:
    url = next(each["url"] for each in stack.facts["services"] if each["name"] == "executor-manager")
    headers = {"authorization": f"Bearer {stack.facts['serviceToken']}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as manager:
        (await manager.request(method, f"/api/executors/{executor_id}/drain")).raise_for_status()


@pytest.mark.parametrize("engine", LIVING, ids=lambda engine: engine.provider)
async def test_a_session_goes_on_at_another_executor(stack: Stack, stub: ModelStub, store: Path, engine: Engine) -> None:
    async def run(prompt: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        given = {"provider": engine.provider, "model": engine.model, "providerOptions": {"baseUrl": stub.base_url}}
        run_id = await stack.start(prompt, sessionId=engine.provider, **given, **SHELL_ONLY)
        shown = await stack.until(run_id)
        assert shown["status"] == "success", shown
        return shown, await stack.check(run_id)

    _, first = await run(f"remember {WORD} [[tool:printf 2001 > made.txt]]")
    home = of_kind(first, "attempt.started")[0]["executorId"]
    await drained(stack, home, "POST")
    try:
        for path in (stack.state_dir / "workspaces").glob("*"):
            shutil.rmtree(path)
        _, second = await run("[[tool:sed s/2/6/ made.txt]]")
    finally:
        await drained(stack, home, "DELETE")
    [started] = of_kind(second, "attempt.started")
    assert started["executorId"] != home
    assert (started["resumed"], started["restored"]["executorId"]) == (True, home)
    told = str(stub.requests[-1]["body"])
    assert WORD in told, "the engine does not remember the session"
    assert "No such file" not in told
    assert FOUND in told, "the command did not find the file"
    assert (kept := everything_in(store))
    assert not [name for name, key in KEYS.items() if key.encode() in kept], "a credential stands in a snapshot"
