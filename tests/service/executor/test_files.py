"""The files of a run over HTTP: while it works, after it ended, after it was released; and what no file shows."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.executor.kit import Inside, executor_inside, until

SECRET = 'quo"ted-secret-of-an-app'
RUN = "/provider-runs/run_1"


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


@pytest.mark.parametrize("released", [False, True])
async def test_no_file_shows_what_an_attempt_was_signed_in_with(executor: Inside, released: bool) -> None:
    script = 'printf "a $OTHER z" > f; mkdir d; printf "$OTHER" | base64 -d > d/empty 2>/dev/null; echo done'
    await executor.begin(script, credentialEnv={"OTHER": SECRET})
    await executor.ended()
    params = {"workspace": "run_1"} if released else {}
    if released:
        assert (await executor.http.delete(RUN)).status_code == 204
        assert (await executor.http.get(f"{RUN}/files")).status_code == 404
    stars = f"a {'*' * len(SECRET)} z"
    one = await executor.http.get(f"{RUN}/files/f", params=params)
    assert (one.text, one.headers["content-length"]) == (stars, str(len(stars)))
    bundle = await executor.http.get(f"{RUN}/bundle", params=params)
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        assert sorted(archive.namelist()) == ["d/empty", "f"]
        assert archive.read("f").decode() == stars


@pytest.mark.parametrize(("key", "status"), [("nowhere", 404), ("..", 422), ("a/b", 422), ("", 422)])
@pytest.mark.parametrize("path", ["files", "files/f", "bundle"])
async def test_a_workspace_that_is_not_here_has_no_files(executor: Inside, key: str, status: int, path: str) -> None:
    assert (await executor.http.get(f"{RUN}/{path}", params={"workspace": key})).status_code == status


async def test_a_large_file_is_streamed_while_its_engine_works(executor: Inside, tmp_path: Path) -> None:
    await executor.begin("head -c 40000000 /dev/zero > big; echo say made; sleep 60")
    await executor.said("made")
    assert len((await executor.http.get(f"{RUN}/files/big")).content) == 40_000_000
    await executor.stop()
    await executor.ended()


async def test_a_head_is_answered_without_a_body_and_leaves_no_file_open(executor: Inside) -> None:
    await executor.begin("printf 12345 > f; echo done")
    await executor.ended()
    for _ in range(3):
        answer = await executor.http.head(f"{RUN}/files/f")
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "5", b"")
    assert not [path for path in open_files() if path.endswith("/work/f")]


def open_files() -> list[str]:
    return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]


async def test_the_secrets_of_a_session_do_not_grow_with_its_runs(executor: Inside) -> None:
    """Each attempt has a key of its own to its engine's door, and none outlives it."""
    runs = executor.app.runs
    for number in range(5):
        key, credentials = {"key": "session"}, {"SHELL_KEY": "a-secret-of-the-session"}
        await executor.begin("sleep 300", f"run_{number}", workspace=key, credentialEnv=credentials)
        assert len(runs.secrets_of("session")) == 2
        await executor.stop(f"run_{number}")
        await executor.ended(f"run_{number}")
        await until(lambda: runs.secrets_of("session") == ("a-secret-of-the-session",))


async def test_more_files_than_a_page_holds_are_all_listed(executor: Inside) -> None:
    await executor.begin("mkdir many; cd many; seq -w 10050 | xargs touch; echo done")
    await executor.ended()
    first = (await executor.http.get(f"{RUN}/files")).json()
    second = (await executor.http.get(f"{RUN}/files", params={"cursor": first["nextCursor"]})).json()
    assert second["nextCursor"] is None
    listed = [each["path"] for each in (*first["items"], *second["items"])]
    assert listed == [f"many/{number:05}" for number in range(1, 10_051)]
    assert (await executor.http.get(f"{RUN}/files?cursor=x")).status_code == 422
