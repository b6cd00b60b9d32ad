"""``runyard harness`` with programs in the engines' stead: what happens around them, in a user's own shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
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
        return self._run([str(RUNYARD), "harness", *words], stdout)

    def limited(self, blocks: int) -> subprocess.CompletedProcess[str]:
        """Where no file may hold more than ``blocks`` KiB: a write beyond it fails as one to a full disk does."""
        return self.in_shell(f'ulimit -f {blocks}; trap "" XFSZ; exec')

    def in_shell(self, before: str) -> subprocess.CompletedProcess[str]:
        """``before`` stands before the command."""
        return self._run(["/bin/bash", "-c", f"{before} {RUNYARD} harness codex -- x"], subprocess.DEVNULL)

    def _run(self, command: Sequence[str], stdout: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.project, env=self.env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
            timeout=BOUND_SECONDS, check=False,
        )  # fmt: skip

    @property
    def kept(self) -> Path:
        """The folder of the only handle."""
        [folder] = self.state.iterdir()
        return folder

    def said(self, attempt: int = 1) -> str:
        """What the engine wrote to its stdout."""
        return (self.kept / f"attempt-{attempt}" / "stdout").read_text()

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


def test_a_reader_who_leaves_ends_the_engine_and_the_outcome_is_kept(place: Place) -> None:
    place.engine(PRINTS_FOR_EVER)
    read, write = os.pipe()
    os.close(read)
    ended = place.harness("codex", "--", "x", stdout=write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (143, "")
    assert place.outcome()["exitCode"] == -15


def test_an_engine_that_does_not_listen_when_its_reader_left_is_killed(place: Place) -> None:
    place.engine(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PRINTS_FOR_EVER}")
    read, write = os.pipe()
    os.close(read)
    assert place.harness("codex", "--", "x", stdout=write).returncode == 137
    os.close(write)
    assert place.outcome()["exitCode"] == -9


def test_a_disk_that_takes_no_more_ends_the_engine_and_is_told(place: Place) -> None:
    place.engine(PRINTS_FOR_EVER)
    ended = place.limited(64)
    assert ended.returncode == 143
    assert json.loads(ended.stderr)["code"] == "not_kept"
    assert place.outcome()["exitCode"] == -15


def test_why_an_engine_did_not_start_is_told_beside_what_could_not_be_shown(place: Place) -> None:
    place.engine("")
    (place.folder / "bin/codex").write_text("#!/nowhere\n")
    with open("/dev/full", "w") as full:
        ended = place.harness("codex", "--", "x", stdout=full.fileno())
    said = {each["code"]: each["detail"] for each in map(json.loads, ended.stderr.splitlines())}
    assert ended.returncode == 2
    assert said["not_kept"].endswith(": No space left on device")
    assert said["engine_start_failed"].endswith("No such file or directory")


def test_without_any_word_it_says_what_is_missing(place: Place) -> None:
    ended = place.harness()
    assert (ended.returncode, json.loads(ended.stderr)["code"]) == (2, "invalid_request")


def test_a_resumption_passes_over_an_attempt_that_was_killed_while_it_began(place: Place) -> None:
    place.engine(TELLS_A_SESSION)
    place.harness("codex", "--", "x")
    (place.kept / "attempt-2").mkdir()
    assert place.harness("resume", place.kept.name, "go on").returncode == 0
    assert place.outcome(3)["attempt"] == 3


def test_a_disk_that_takes_nothing_at_all_is_told_before_the_engine_runs(place: Place) -> None:
    place.engine("open('ran', 'w')")
    ended = place.limited(0)
    assert (ended.returncode, json.loads(ended.stderr)["code"]) == (2, "workspace_error")
    assert not (place.project / "ran").exists()


def test_a_resumption_is_offered_only_where_there_is_a_session_to_go_on_with(place: Place) -> None:
    place.engine("print('nothing of note')")
    assert "resume" not in place.harness("codex", "--", "x").stdout
    place.engine(TELLS_A_SESSION)
    assert "(runyard harness resume " in place.harness("codex", "--", "x").stdout


@pytest.mark.parametrize("name", ["EXECUTOR_ENGINES_DIR", "RUNYARD_ENGINES_DIR"])
def test_the_folder_of_engines_has_the_names_it_has_elsewhere(place: Place, name: str) -> None:
    place.engine("print('the pinned one')", "engines/node_modules/@openai/codex-linux-x64/vendor/any/bin/codex")
    place.env[name] = str(place.folder / "engines")
    assert "the pinned one" in place.harness("codex", "--", "x").stdout


@pytest.mark.parametrize("shell", ["PYTHONIOENCODING=latin-1 exec", "exec >&-; exec"], ids=["latin-1", "closed"])
def test_an_engine_whose_words_nobody_can_be_shown_is_read_to_its_end_and_its_outcome_kept(place: Place, shell: str) -> None:
    place.engine(f"{TELLS_A_SESSION}\nfor _ in range(400): os.write(1, '\\u2192'.encode() * 300 + b'\\n')")
    ended = place.in_shell(shell)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert place.outcome()["exitCode"] == 0


@pytest.mark.parametrize(
    "arguments", [[], ["--"], ["-x", "two words", "", "ünï ☃", "a\tb\nc", "--json", "'q\"", "$HOME", "*"], ["--help"]]
)
def test_arguments_reach_the_engine_byte_for_byte(place: Place, arguments: Sequence[str]) -> None:
    place.env["MINE"] = "passed on"
    place.engine("print(json.dumps(sys.argv[1:])); print(os.environ['MINE'], os.getcwd())")
    ended = place.harness("start", "codex", "--", *arguments)
    told, world = place.said().splitlines()
    assert json.loads(told) == list(arguments)
    assert world == f"passed on {place.project}"
    assert ended.returncode == 0


def test_no_command_profile_is_added(place: Place) -> None:
    place.engine("print(json.dumps(sys.argv[1:]))")
    (place.folder / "profiles.json").write_text('{"codex": {"arguments": ["--from-profile"]}}')
    place.env["EXECUTOR_COMMAND_PROFILES"] = str(place.folder / "profiles.json")
    place.harness("codex", "--", "mine")
    assert json.loads(place.said()) == ["mine"]


@pytest.mark.parametrize(("script", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_the_engines_own_status_is_the_harnesss(place: Place, script: str, status: int) -> None:
    place.engine(script)
    assert place.harness("codex", "--", "x").returncode == status


def test_the_run_dir_is_where_the_engine_works_also_when_resumed(place: Place) -> None:
    place.engine(f"{TELLS_A_SESSION}; print(os.getcwd(), sys.argv[1:])")
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    place.harness("codex", "--run-dir", str(elsewhere), "--", "x")
    place.harness("resume", place.kept.name, "more words")
    assert place.said(2).splitlines()[1] == f"{elsewhere} ['exec', 'resume', '--json', 't1', '--', 'more words']"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody", "--", "x"], "invalid_request"),
        (["codex"], "invalid_request"),
        (["codex", "more", "--", "x"], "invalid_request"),
        (["codex", "--run-dir", "/no/such/folder", "--", "x"], "invalid_request"),
        (["codex", "--surprise", "--", "x"], "invalid_request"),
        (["resume", "unknown", "hi"], "not_found"),
        (["resume", "../..", "hi"], "not_found"),
        (["resume", "one"], "invalid_request"),
        (["scripted", "--", "x"], "capability_unavailable"),
        (["iflow", "--", "x"], "capability_unavailable"),
    ],
)
def test_what_cannot_be_begun_is_told_as_json_with_status_2(place: Place, words: list[str], code: str) -> None:
    place.engine("print('begun')")
    ended = place.harness(*words)
    assert ended.returncode == 2
    assert json.loads(ended.stderr)["code"] == code
    assert not place.state.exists()


def test_a_session_that_was_never_told_cannot_be_resumed(place: Place) -> None:
    place.engine("print('nothing of note')")
    place.harness("codex", "--", "x")
    ended = place.harness("resume", place.kept.name, "hi")
    assert (ended.returncode, json.loads(ended.stderr)["code"]) == (2, "conflict")


def test_what_an_engine_leaves_behind_is_ended_with_it(place: Place) -> None:
    place.engine("import subprocess; p = subprocess.Popen(['sleep', '303'], start_new_session=True); print(p.pid)")
    ended = place.harness("codex", "--", "x")
    assert ended.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.said()), signal.SIGKILL)
