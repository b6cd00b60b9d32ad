"""``runyard harness`` with programs in the engines' stead: what happens around them, in a user's own shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNYARD = Path(sys.executable).with_name("runyard")
BOUND_SECONDS = 60
TELLS_A_SESSION = 'print(json.dumps({"type": "thread.started", "thread_id": "t1"}), flush=True)'
PRINTS_FOR_EVER = "while True: print('x' * 1000, flush=True)"


class Place:
    """A user's project and home; ``codex`` on the PATH is the program in ``script``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state" / "runyard" / "harness"
        self.project = folder / "project"
        self.project.mkdir()
        self.env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}

    def engine(self, script: str, program: str = "bin/codex") -> None:
        file = self.folder / program
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!{sys.executable} -P\nimport json, os, signal, sys\n{script}\n")
        file.chmod(0o755)

    def harness(self, *words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RUNYARD, "harness", *words], cwd=self.project, env=self.env, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.PIPE, text=True, timeout=BOUND_SECONDS, check=False,
        )  # fmt: skip

    @property
    def kept(self) -> Path:
        """The folder of the only handle."""
        [folder] = self.state.iterdir()
        return folder

    def outcome(self, attempt: int = 1) -> dict[str, Any]:
        return json.loads((self.kept / f"attempt-{attempt}" / "outcome.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nothing_of_the_project_it_is_started_in_is_taken_for_its_own(place: Place) -> None:
    (place.project / "secrets.py").write_text("raise SystemExit('the project was run')")
    (place.project / "shared").mkdir()
    (place.project / "shared" / "__init__.py").write_text("raise SystemExit('the project was run')")
    place.engine("print('hello')")
    ended = place.harness("codex", "--", "x")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "hello" in ended.stdout
