"""The table of services of a local stack: how each is started, reached and known. Data only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import urlsplit

from runyard.local_stack.environment import handed_down, secret
from runyard.local_stack.ports import HOST, Ports, base_url
from runyard.local_stack.stack import Secrets
from shared.contracts.environment import CREDENTIAL_NAMES
from shared.engine_programs import engines_dir


class Tier(IntEnum):
    """What stands on what: started from the lowest, stopped from the highest, within a tier all at once."""

    EXECUTOR = 1
    MANAGER = 2
    CONTROL_PLANE = 3


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running.

    ``pid_file``: where the pid worth telling stands when the process we start is only its guard. ``guarded``: that guard
    sees to hangs of its own; we look after the guard. ``stop_signal``: whoever stops a stack does not wait for its runs.
    """

    name: str
    tier: Tier
    url: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    pid_file: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def guarded(self) -> bool:
        return self.pid_file is not None


def service_table(state_dir: Path, ports: Ports, secrets: Secrets, database_url: str) -> list[Service]:
    """All services, in the order in which the ready file names them."""
    token = {"RUNYARD_SERVICE_TOKEN": secrets.service_token}
    return [
        *_control_planes(ports, {**token, "RUNYARD_ADMIN_KEY": secrets.admin_key, **_database(database_url)}),
        *_managers(ports, token),
        *_executors(state_dir, ports, token),
    ]


def _database(url: str) -> dict[str, str]:
    """The embedded one's address holds its password: what else is set is another database's."""
    password = None if urlsplit(url).password else secret("DATABASE_PASSWORD")
    return {"DATABASE_URL": url, **({"DATABASE_PASSWORD": password} if password else {})}


def _control_planes(ports: Ports, given: Mapping[str, str]) -> list[Service]:
    managers = ",".join(map(base_url, ports.managers))
    return [
        Service(
            _numbered("control-plane", index), Tier.CONTROL_PLANE, base_url(port), _module("control_plane"),
            {**handed_down(["CONTROL_PLANE_"]), **given, "CONTROL_PLANE_HOST": HOST, "CONTROL_PLANE_PORT": str(port),
             "EXECUTOR_MANAGER_URLS": managers},
        )
        for index, port in enumerate(ports.control_planes)
    ]  # fmt: skip


def _managers(ports: Ports, given: Mapping[str, str]) -> list[Service]:
    executors = ",".join(map(base_url, ports.executors))
    return [
        Service(
            _numbered("executor-manager", index), Tier.MANAGER, base_url(port), _module("executor_manager"),
            {**handed_down(["EXECUTOR_MANAGER_", "EXECUTOR_RUN_TIMEOUT_"]), **given,
             **_whole("EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE"), "EXECUTOR_MANAGER_HOST": HOST,
             "EXECUTOR_MANAGER_PORT": str(port), "EXECUTOR_MANAGER_EXECUTORS": executors},
        )
        for index, port in enumerate(ports.managers)
    ]  # fmt: skip


def _executors(state_dir: Path, ports: Ports, given: Mapping[str, str]) -> list[Service]:
    prefixes = ["EXECUTOR_", *(["AWS_"] if os.environ.get("EXECUTOR_SNAPSHOT_STORE", "").startswith("s3:") else [])]
    shared = {**handed_down(prefixes, CREDENTIAL_NAMES, without="EXECUTOR_MANAGER_"), **given, **_folders(state_dir)}
    made: list[Service] = []
    for index, port in enumerate(ports.executors):
        name = f"executor-{index + 1}"
        own = {
            "EXECUTOR_HOST": HOST, "EXECUTOR_PORT": str(port), "EXECUTOR_ID": name,
            "EXECUTOR_STATE_DIR": str(state_dir / name),
        }  # fmt: skip
        pid_file = state_dir / name / "executor.pid"
        made.append(Service(name, Tier.EXECUTOR, base_url(port), _module("executor"), {**shared, **own}, pid_file, signal.SIGINT))
    return made


def _folders(state_dir: Path) -> dict[str, str]:
    """Those an operator set stay, whole: executors work in another folder than the one they are meant from."""
    root, hidden, engines = os.environ.get("EXECUTOR_WORKSPACE_ROOT"), os.environ.get("EXECUTOR_PRIVATE_PATHS", ""), engines_dir()
    private = [os.path.abspath(each.strip()) for each in hidden.split(",") if each.strip()]
    return {
        "EXECUTOR_WORKSPACE_ROOT": os.path.abspath(root) if root else str(state_dir / "workspaces"),
        "EXECUTOR_PRIVATE_PATHS": ",".join([*private, str(state_dir)]),
        **_whole("EXECUTOR_CREDENTIALS_DIR", "EXECUTOR_COMMAND_PROFILES", "EXECUTOR_PRICES"),
        **({"EXECUTOR_ENGINES_DIR": str(engines)} if engines else {}),
    }


def _whole(*names: str) -> dict[str, str]:
    """Paths as they are meant where the stack is started: its services work in another folder."""
    return {name: os.path.abspath(os.environ[name]) for name in names if os.environ.get(name)}


def _numbered(name: str, index: int) -> str:
    """The first of a kind has no number: most stacks have one."""
    return name if index == 0 else f"{name}-{index + 1}"


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name)  # nothing of the folder it is started in is ours to import
