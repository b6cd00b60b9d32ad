"""One service's process: its own session, its log file, its signals, its health. It ends with the supervisor."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import httpx

from runyard.local_stack.death_signal import dies_with_parent
from runyard.local_stack.processes import kill_tree
from runyard.local_stack.services import Service

PROBE_SECONDS = 2.0
MAX_LOG_BYTES = 16 * 1024 * 1024
LAST_WORDS_BYTES = 2000


class ServiceProcess:
    """A ``Kept`` (see ``keeper``) that also knows how to be stopped and what the ready file says about it."""

    def __init__(self, service: Service, state_dir: Path, client: httpx.AsyncClient) -> None:
        self.name = service.name
        self.service = service
        self.log = state_dir / "logs" / f"{service.name}.log"
        self._state_dir = state_dir
        self._client = client
        self._process: subprocess.Popen[bytes] | None = None
        self._shown_pid: int | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        self.bound_log()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.service.command, env=dict(self.service.environment), cwd=self._state_dir,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=dies_with_parent(signal.SIGTERM),
            )  # fmt: skip

    def ask_to_end(self) -> None:
        if self._process is not None and self.is_alive:
            self._process.send_signal(self.service.stop_signal)
            self._process.send_signal(signal.SIGCONT)  # a stopped process hears nothing else

    def kill(self) -> None:
        if self._process is not None and self.is_alive:
            self._process.kill()

    def kill_tree(self) -> None:
        """Also what it guards, and waits for the process itself."""
        if self._process is not None and self.is_alive:
            kill_tree(self._process.pid)
            self._process.wait()

    async def is_ready(self) -> bool:
        return await self._get("/readyz") == 200

    async def answers(self) -> bool:
        return self.service.guarded or await self._get("/livez") is not None

    def shown_pid(self) -> int | None:
        """The pid to tell: the guarded process's own where there is a guard; the last known one while it is away."""
        if self.service.pid_file is None:
            self._shown_pid = self.pid
        elif (inner := _pid_in(self.service.pid_file)) is not None:
            self._shown_pid = inner
        return self._shown_pid

    def last_words(self) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def bound_log(self) -> None:
        """Keeps the last ``MAX_LOG_BYTES`` beside it and begins anew; the process appends, so it need not know."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            with self.log.open("r+b") as log:
                log.truncate(0)

    async def _get(self, path: str) -> int | None:
        """The status, or None when there was no answer."""
        try:
            return (await self._client.get(self.service.url + path, timeout=PROBE_SECONDS)).status_code
        except httpx.HTTPError:
            return None


def _pid_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
