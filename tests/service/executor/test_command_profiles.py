"""A command profile at the executor: it reaches the engine, below the request, and a bad one keeps the executor from starting."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.service.executor.kit import BOUND, ROOT, executor_inside


def profiles(folder: Path, **profile: object) -> Path:
    file = folder / "profiles.json"
    file.write_text(json.dumps({"scripted": profile}))
    return file


async def test_its_arguments_follow_the_adapters_own(tmp_path: Path) -> None:
    file = profiles(tmp_path, arguments=["one", "two words"])
    async with executor_inside(tmp_path / "state", command_profiles=file) as executor:
        await executor.begin('for each in "$@"; do echo "say $each"; done; echo done')
        said = [each["data"]["text"] for each in await executor.events() if each["kind"] == "message.completed"]
    assert said == ["one", "two words"]


async def test_its_options_stand_below_the_requests(tmp_path: Path) -> None:
    file = profiles(tmp_path, options={"argv": ["/bin/sh", "-c", "echo say profile; echo done"]})
    async with executor_inside(tmp_path / "state", command_profiles=file) as executor:
        await executor.begin("", "run_profile")
        asked = {"argv": ["/bin/sh", "-c", "echo say request; echo done"]}
        await executor.begin("", "run_request", providerOptions=asked)
        assert await executor.said("", "run_profile") == "profile"
        assert await executor.said("", "run_request") == "request"


async def test_an_executor_does_not_start_with_a_profile_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "profiles.json").write_text('{"scripted": {"argumnets": []}}')
    env = {**os.environ, "EXECUTOR_STATE_DIR": str(tmp_path / "state"), "EXECUTOR_PORT": "0", "RUNYARD_AUTH": "off",
           "EXECUTOR_COMMAND_PROFILES": str(tmp_path / "profiles.json")}  # fmt: skip
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "executor"], cwd=ROOT, env=env, capture_output=True, timeout=BOUND, check=False
    )
    assert ended.returncode != 0
    assert b"profiles.json: scripted.argumnets" in ended.stderr
    assert b"Traceback" not in ended.stderr
