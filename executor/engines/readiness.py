"""Which engines are installed here, in which version, whether they start at all and can sign in.

Engines are asked in the background, once where they answer: one that was too slow to, on a machine that does other work, is asked
again and again, ever less often. Credentials are looked at whenever somebody asks.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from executor.adapters.base import Adapter
from executor.engines.credentials import CredentialStore
from executor.engines.environment import engine_environment
from executor.processes.answering import Printed, answer_of
from executor.processes.engine_process import Launch
from executor.processes.process_tree import Forest
from executor.state_dir import MARK, RUN_MARK
from shared.contracts.installs import Install
from shared.contracts.providers import Provider, ProviderReadiness, ReadinessCategory
from shared.engine_programs import executable_of

VERSION_SECONDS = 10.0
PATIENT_SECONDS = 30.0  # for one that was too slow before
AGAIN_SECONDS = 15.0
LONGEST_AGAIN_SECONDS = 600.0
MAX_VERSION_BYTES = 64 * 1024
# What the machine lacks for a moment, and an engine that is being installed: no word on the engine itself.
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})


def growing_waits() -> Iterator[float]:
    """Seconds before an engine that did not answer is asked again: doubled each time, up to the longest; for ever."""
    wait = AGAIN_SECONDS
    while True:
        yield wait
        wait = min(wait * 2, LONGEST_AGAIN_SECONDS)


class Readiness:
    """Per provider: the executable, its version, and why it cannot be used."""

    def __init__(
        self, adapters: Mapping[Provider, Adapter], engines_dir: Path | None, store: CredentialStore, forest: Forest, mark: str
    ) -> None:
        self._adapters = adapters
        self._engines_dir = engines_dir
        self._store = store
        self._forest = forest
        self._mark = mark
        self._versions: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._silent: set[str] = set()  # failures that say nothing of the engine itself

    def executable(self, provider: Provider) -> str | None:
        """Absolute path of the engine's program; None when it is not installed. This Python for what is built in."""
        install = self._adapters[provider].install
        return executable_of(install, self._engines_dir) if install.globs or install.command else sys.executable

    def version(self, provider: Provider) -> str | None:
        executable = self.executable(provider)
        return self._versions.get(executable) if executable else None

    def of(self, provider: Provider) -> ProviderReadiness:
        """Installed but not in the right environment means: it has no credentials here. A start may bring its own."""
        adapter = self._adapters[provider]
        executable = self.executable(provider)
        category, reason = ReadinessCategory.READY, None
        if executable is None:
            category = ReadinessCategory.ENVIRONMENT_NOT_READY
            reason = adapter.install.closed or f"{adapter.install.command or provider} is not installed"
        elif executable in self._failures:
            category, reason = ReadinessCategory.RUNTIME_UNHEALTHY, self._failures[executable]
        elif (missing := self._store.missing(adapter.credentials)) is not None:
            category, reason = ReadinessCategory.ENVIRONMENT_NOT_READY, missing
        return ProviderReadiness(
            provider=provider,
            installed=executable is not None,
            version=self.version(provider),
            pinned_version=adapter.install.pinned,
            readiness_category=category,
            blocking_reason=reason,
            capabilities=adapter.capabilities,
        )

    def all(self) -> list[ProviderReadiness]:
        return [self.of(provider) for provider in self._adapters]

    async def keep_finding(self, home: Path) -> None:
        """Until every installed engine has answered, with its version or with a failure of its own."""
        for wait in growing_waits():
            if not await self.find_versions(home):
                return
            await asyncio.sleep(wait)

    async def find_versions(self, home: Path) -> bool:
        """Ask every installed engine that did not answer yet, one after the other; whether one has still to be asked again.

        ``home`` exists and is where they may write.
        """
        for provider, adapter in self._adapters.items():
            executable = self.executable(provider)
            if executable is None or not self._is_unknown(executable):
                continue
            install = adapter.install
            if not install.globs and not install.command:
                self._versions[executable] = ".".join(str(part) for part in sys.version_info[:3])
                continue
            seconds = PATIENT_SECONDS if executable in self._silent else VERSION_SECONDS
            answer = await self._ask((executable, *install.version_argv), home, f"version.{provider}", seconds)
            self._learn(executable, install, answer)
        return bool(self._silent)

    def _is_unknown(self, executable: str) -> bool:
        return executable in self._silent or not (executable in self._versions or executable in self._failures)

    def _learn(self, executable: str, install: Install, answer: Printed | str) -> None:
        name = install.command or Path(executable).name
        self._silent.discard(executable)
        self._failures.pop(executable, None)
        if isinstance(answer, str):
            self._silent.add(executable)
            self._failures[executable] = f"{name} {answer}; it is asked again"
        elif (found := re.search(install.version_pattern, answer.text)) is not None and answer.exit_code == 0:
            self._versions[executable] = found[1]
        else:
            self._failures[executable] = f"{name} did not say its version (exit status {answer.exit_code})"

    async def _ask(self, argv: tuple[str, ...], home: Path, run_mark: str, seconds: float) -> Printed | str:
        """A text: why nothing was learned of the engine itself. Its process tree is gone afterwards."""
        places = {"HOME": str(home), "TMPDIR": str(home)}
        env = engine_environment(os.environ, places, {}, {}, {}, {MARK: self._mark, RUN_MARK: run_mark})
        try:
            return await answer_of(self._forest, Launch(argv, env, str(home)), run_mark, seconds, max_bytes=MAX_VERSION_BYTES)
        except TimeoutError:
            return f"did not answer in {seconds:g} s when asked for its version"
        except OSError as error:
            # what does not pass: it cannot be run
            return f"could not be started: {error.strerror}" if error.errno in PASSING else Printed(0)
