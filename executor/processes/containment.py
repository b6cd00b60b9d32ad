"""What an engine can reach: a view of this machine in which it writes to its own workspace only, and sees no other process.

Bubblewrap makes that view where it works. Nothing is weaker than asked in silence: ``required`` refuses to serve without it,
and ``attempt.started`` says what held.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog

from executor.processes.engine_process import Launch
from executor.workspaces.workspace import Workspace

PROBE_SECONDS = 10.0
BUBBLEWRAP = "bubblewrap"
Wanted = Literal["auto", "required", "none"]

# Where people keep what opens other doors. An engine's own credentials are in its own HOME.
_PRIVATE_IN_HOME = (
    ".aws", ".azure", ".bash_history", ".claude", ".claude.json", ".codex", ".config", ".docker", ".gemini", ".git-credentials",
    ".gnupg", ".iflow", ".kube", ".local/share/opencode", ".netrc", ".npmrc", ".pgpass", ".pypirc", ".qwen", ".ssh",
)  # fmt: skip
# Root keeps every capability in there unless told otherwise: with them it takes a mount away and sees what it hid. This one
# alone it needs, to be root in a sandbox of an engine's own within this one; whom its files could serve can do as much by setuid.
_CAPABILITIES = ("--cap-drop", "ALL", *(("--cap-add", "CAP_SETFCAP") if os.geteuid() == 0 else ()))
_FRESH = (
    *_CAPABILITIES, "--unshare-pid", "--unshare-ipc", "--die-with-parent",
    "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
)  # fmt: skip

log = structlog.get_logger("containment")


@dataclass(frozen=True, slots=True)
class Containment:
    """How engines are wrapped. ``program`` None: not at all. ``hidden``: what no engine sees; ``shown``: what each needs.

    What is there of both is looked up at each launch: a folder may be made later than the executor was started.
    """

    program: str | None
    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()

    @property
    def name(self) -> str | None:
        return BUBBLEWRAP if self.program else None

    def wrapped(self, what: Launch, workspace: Workspace) -> Launch:
        """The same launch inside; unchanged where nothing wraps."""
        if self.program is None:
            return what
        mounts = _in_order(_existing(self.hidden), _existing(self.shown), workspace)
        argv = (self.program, *_FRESH, *mounts, "--chdir", what.cwd, "--", *what.argv)
        return replace(what, argv=argv, is_wrapped=True)


def containment(wanted: Wanted, program: Path | None, private: Iterable[Path], needed: Iterable[Path]) -> Containment:
    """Try it out and say what holds. Raises ``ValueError`` where it is required and does not work."""
    if wanted == "none":
        return _without("EXECUTOR_CONTAINMENT=none")
    found = str(program) if program else shutil.which("bwrap")
    reason = "there is no bwrap on PATH" if found is None else _why_not(found)
    if found is None or reason is not None:
        if wanted == "required":
            raise ValueError(f"EXECUTOR_CONTAINMENT=required: {reason}")
        return _without(reason or "")
    home = Path.home()
    hidden = (*private, *(home / name for name in _PRIVATE_IN_HOME))
    shown = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2], *needed)
    return Containment(found, hidden, shown)


def _without(reason: str) -> Containment:
    if os.geteuid() == 0:
        log.warning("containment.none_and_root", reason=reason, means="an engine can read all of this machine, our secrets too")
    else:
        log.info("containment.none", reason=reason)
    return Containment(None)


def _why_not(program: str) -> str | None:
    """None when a process can be wrapped here."""
    try:
        tried = subprocess.run(
            (program, *_FRESH, "--", "true"), capture_output=True, timeout=PROBE_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} cannot be run: {error}"
    return None if tried.returncode == 0 else f"{program}: {tried.stderr.decode(errors='replace').strip()[:200]}"


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(path.resolve() for path in paths if path.exists()))


def _in_order(hidden: Iterable[Path], shown: Iterable[Path], workspace: Workspace) -> list[str]:
    """Mounts from the root down, so that what lies deeper stands over what hides it."""
    mounts: list[tuple[Path, tuple[str, ...]]] = [
        (Path("/tmp"), ("--bind", str(workspace.tmp), "/tmp")),
        (Path("/var/tmp"), ("--tmpfs", "/var/tmp")),
        *((path, _hiding(path)) for path in hidden),
        *((path, ("--ro-bind", str(path), str(path))) for path in shown),
        (workspace.base, ("--bind", str(workspace.base), str(workspace.base))),
        # a place where something is mounted cannot be moved away: no engine leaves a link for the next one's /tmp
        (workspace.tmp, ("--bind", str(workspace.tmp), str(workspace.tmp))),
    ]
    covers = {path for path, _mount in mounts[:-2]} - set(shown)
    needed = [each for each in mounts if each[0] not in shown or any(cover in each[0].parents for cover in covers)]
    return [word for _path, mount in sorted(needed, key=lambda each: len(each[0].parts)) for word in mount]


def _hiding(path: Path) -> tuple[str, ...]:
    return ("--tmpfs", str(path)) if path.is_dir() else ("--ro-bind", os.devnull, str(path))
