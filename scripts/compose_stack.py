"""A stack of ``docker-compose.yml``: brought up, looked at from outside, struck, taken down. Decides nothing about what is right.

Everything goes through the ``docker`` and ``docker-compose`` programs, so that whatever engine they reach is the one used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).resolve().parent.parent
BASES = ("python:3.11-slim-bookworm", "node:24-bookworm-slim", "postgres:18-bookworm")
LOCAL_ENGINE = ROOT / "deploy" / "local-engine.sh"
CALL_SECONDS = 120.0
BUILD_SECONDS = 1800.0
ANSWER_SECONDS = 10.0
UP_SECONDS = 240.0
DOWN_SECONDS = 60.0


class StackError(Exception):
    """Docker said no, or something did not happen in time; the message is for a person."""


def run(*command: str, seconds: float = CALL_SECONDS, environment: dict[str, str] | None = None) -> str:
    """What it prints. Raises ``StackError`` with the end of what it said when it fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT,
            stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"{' '.join(command[:4])}: {error}") from error
    if done.returncode != 0:
        raise StackError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


@contextmanager
def engine() -> Generator[str]:
    """An engine that answers: the one ``docker`` reaches, else one of our own, which ends with the block. Says which."""
    try:
        yield f"Docker {run('docker', 'version', '--format', '{{.Server.Version}}', seconds=30).strip()}"
        return
    except StackError:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            raise
    os.environ["DOCKER_HOST"] = run(str(LOCAL_ENGINE), "up").strip().partition("=")[2]
    try:
        yield "an engine of our own"
    finally:
        run(str(LOCAL_ENGINE), "down")


def need_base_images() -> str:
    """Have what the Dockerfiles start from: from a registry where one can be reached, else made here. Says which."""
    missing = [image for image in BASES if not _succeeds("docker", "image", "inspect", image)]
    if all(_succeeds("docker", "pull", "--quiet", image, seconds=600) for image in missing):
        return "there already" if not missing else "pulled"
    run(str(LOCAL_ENGINE), "bases", seconds=BUILD_SECONDS)
    return "made here"


def _succeeds(*command: str, seconds: float = CALL_SECONDS) -> bool:
    try:
        run(*command, seconds=seconds)
    except StackError:
        return False
    return True


@dataclass(frozen=True)
class Container:
    """One container, as it was when it was looked at."""

    id: str
    service: str
    image: str
    status: str
    health: str | None
    exit_code: int
    restarts: int
    addresses: tuple[str, ...]
    ports: tuple[int, ...]

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Container:
        state, networks = shown["State"], shown["NetworkSettings"]
        published: dict[str, list[dict[str, str]] | None] = networks["Ports"] or {}
        bindings = [each for some in published.values() for each in some or ()]
        return cls(
            shown["Id"], shown["Config"]["Labels"]["com.docker.compose.service"],
            shown["Config"]["Image"], state["Status"],
            state.get("Health", {}).get("Status"), state["ExitCode"], shown["RestartCount"],
            tuple(each["IPAddress"] for each in networks["Networks"].values() if each["IPAddress"]),
            tuple(sorted({int(each["HostPort"]) for each in bindings})),
        )  # fmt: skip

    @property
    def is_well(self) -> bool:
        return self.status == "running" and self.health == "healthy"


@dataclass
class ComposeStack:
    """``folder`` holds ``secrets/`` and ``provider.env``; every port is one the system picks."""

    project: str
    folder: Path
    _compose: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._compose = ("docker", "compose") if _succeeds("docker", "compose", "version") else ("docker-compose",)

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def compose(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        told = {
            "RUNYARD_SECRETS_DIR": str(self.folder / "secrets"), "RUNYARD_PORTS": "", "RUNYARD_MANAGER_PORT": "",
            "RUNYARD_PROVIDER_ENV": os.environ.get("RUNYARD_PROVIDER_ENV", str(self.folder / "provider.env")),
            "RUNYARD_BUILD_NETWORK": os.environ.get("RUNYARD_BUILD_NETWORK", _build_network()),
        }  # fmt: skip
        return run(*self._compose, "-p", self.project, *arguments, seconds=seconds, environment=told)

    def build(self) -> None:
        self.compose("build", seconds=BUILD_SECONDS)

    def up(self, *options: str) -> None:
        """Returns when everything is healthy."""
        self.compose("up", "-d", *options, seconds=UP_SECONDS)
        self.all_well()

    def down(self) -> None:
        """Until nothing is left. An engine may hold a network for a container that is gone: it is told to let go."""
        deadline = time.monotonic() + DOWN_SECONDS
        while True:
            try:
                self.compose("down", "-v", "--remove-orphans")
                return
            except StackError:
                if time.monotonic() > deadline:
                    raise
            self._free_networks()
            time.sleep(0.1)  # polling with a bound

    def _free_networks(self) -> None:
        for network in run(
            "docker", "network", "ls", "-q", "--filter", f"label=com.docker.compose.project={self.project}"
        ).split():
            [shown] = json.loads(run("docker", "network", "inspect", network))
            for held in shown["Containers"].values():
                _succeeds("docker", "network", "disconnect", "--force", network, held["Name"])

    def containers(self, *services: str) -> list[Container]:
        """Of these services, or all; also those that are stopped."""
        found = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").split()
        shown: list[dict[str, Any]] = json.loads(run("docker", "inspect", *found)) if found else []
        return [each for each in map(Container.of, shown) if not services or each.service in services]

    def all_well(self, within: float = UP_SECONDS) -> None:
        self._wait(lambda: all(each.is_well for each in self.containers()), "every container is healthy", within)

    def urls(self) -> list[str]:
        """Of the control planes that run."""
        return [f"http://127.0.0.1:{port}" for each in self.containers("control-plane") for port in each.ports]

    def manager_url(self) -> str:
        [manager] = self.containers("executor-manager")
        return f"http://127.0.0.1:{manager.ports[0]}"

    def kill(self, container: Container) -> None:
        run("docker", "kill", container.id)

    def start(self, container: Container) -> None:
        run("docker", "start", container.id)

    def crash(self, container: Container) -> None:
        """End every process in it but its init, from inside: unlike a ``docker kill``, nobody asked for this."""
        _succeeds("docker", "exec", container.id, "sh", "-c", "kill -9 -1")

    def until_restarted(self, before: list[Container], within: float = UP_SECONDS) -> None:
        """Until the engine has started each of these anew and all are healthy."""
        counts = {each.id: each.restarts for each in before}

        def anew() -> bool:
            return all(each.is_well and each.restarts > counts[each.id] for each in self.containers())

        self._wait(anew, "every container was restarted and is healthy", within)

    @contextmanager
    def beside(self, name: str, code: str) -> Generator[None]:
        """Python running ``code`` in a container of that name, which executors reach by it; our ``tests`` are there."""
        [image, *_] = [each.image for each in self.containers("executor")]
        container = run(
            "docker", "run", "-d", "--rm", "--init", "--network", f"{self.project}_runyard", "--network-alias", name,
            "--volume", f"{ROOT / 'tests'}:/srv/tests:ro", "--workdir", "/srv", "--no-healthcheck", image, "python", "-c", code,
        ).strip()  # fmt: skip
        try:
            yield
        finally:
            run("docker", "kill", container)

    def fleet(self) -> list[dict[str, Any]]:
        """``GET /api/executors`` of the manager."""
        asked = Request(
            f"{self.manager_url()}/api/executors", headers={"authorization": f"Bearer {self.secret('service_token')}"}
        )
        try:
            with build_opener(ProxyHandler({})).open(asked, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)["items"]
        except OSError as error:
            raise StackError(f"the manager does not say who its executors are: {error}") from error

    def at(self, url: str) -> Container:
        """The container of the executor at this URL of the fleet."""
        return next(each for each in self.containers("executor") if any(f"//{ip}:" in url for ip in each.addresses))

    def until_fleet(self, executors: int, within: float = 60.0) -> list[dict[str, Any]]:
        """The fleet, once it is exactly this many executors and all can be reached."""

        def whole() -> bool:
            fleet = self.fleet()
            return len(fleet) == executors and all(each["reachable"] for each in fleet)

        self._wait(whole, f"{executors} executors are in the fleet", within)
        return self.fleet()

    def logs(self, lines: int = 40) -> str:
        return self.compose("logs", "--no-color", f"--tail={lines}")

    def _wait(self, condition: Callable[[], bool], what: str, within: float) -> None:
        deadline = time.monotonic() + within
        while not _holds(condition):
            if time.monotonic() > deadline:
                states = [f"{each.service}: {each.status} {each.health}" for each in self.containers()]
                raise StackError(f"not within {within:.0f} s: {what}\n" + "\n".join(states))
            time.sleep(0.1)  # polling a condition with a bound


def _holds(condition: Callable[[], bool]) -> bool:
    """False also while a container we ask is not up."""
    try:
        return condition()
    except StackError:
        return False


def _build_network() -> str:
    """An engine without a default bridge builds on the host's network."""
    return "default" if _succeeds("docker", "network", "inspect", "bridge") else "host"


def files_of(image: str) -> Iterable[tuple[str, bool]]:
    """Every path of an image, and whether it is a program: a file somebody may execute."""
    container = run("docker", "create", image).strip()
    try:
        with subprocess.Popen(("docker", "export", container), stdout=subprocess.PIPE, cwd=ROOT) as export:
            yield from _members(export.stdout)
    finally:
        run("docker", "rm", "--volumes", container)


def _members(stream: Any) -> Iterable[tuple[str, bool]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            yield f"/{member.name}", member.isfile() and bool(member.mode & 0o111)
