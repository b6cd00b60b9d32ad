"""A local stack whose services speak to each other through the test's proxies, some of them with wrong clocks.

``python -m tests.chaos.bent_stack`` takes the options of ``runyard up``, and from ``RUNYARD_BENDS`` what is bent. It tells where
the services really are as soon as it knows, for the proxies in front of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runyard.local_stack.ports import Ports, base_url
from runyard.local_stack.services import Service, Tier, service_table
from runyard.local_stack.stack import Secrets, StackOptions
from runyard.local_stack.supervisor import Supervisor, say_on_stderr
from tests.e2e.kit import Stack, running_stack
from tests.fault_proxy import Address, FaultProxy, faulty

BENDS = "RUNYARD_BENDS"
ROOT = Path(__file__).parents[2]
LINKS = ("postgres", "executor-manager", "executor-manager-2", "executor-1", "executor-2")


# ---- in the stack's process ----


def bent_table(state_dir: Path, ports: Ports, secrets: Secrets, database_url: str) -> list[Service]:
    """The table of ``runyard up``, with every address and every clock that is bent."""
    bends: dict[str, Any] = json.loads(os.environ[BENDS])
    table = service_table(state_dir, ports, secrets, database_url)
    places = {each.name: [urlsplit(each.url).hostname, urlsplit(each.url).port] for each in table}
    places["postgres"] = [parse_qs(urlsplit(database_url).query)["host"][0] + "/.s.PGSQL.5432"]
    Path(bends["places"]).write_text(json.dumps(places))
    proxied: Mapping[str, int] = bends["ports"]
    database = urlsplit(database_url)
    through = {
        Tier.CONTROL_PLANE: {
            "DATABASE_URL": database._replace(
                netloc=f"{database.username}:{database.password}@127.0.0.1:{proxied['postgres']}", query=""
            ).geturl(),
            "EXECUTOR_MANAGER_URLS": _urls(table, Tier.MANAGER, proxied),
        },
        Tier.MANAGER: {"EXECUTOR_MANAGER_EXECUTORS": _urls(table, Tier.EXECUTOR, proxied)},
    }
    return [_bent(each, through.get(each.tier, {}), bends["skew"].get(each.name)) for each in table]


def _urls(table: list[Service], tier: Tier, proxied: Mapping[str, int]) -> str:
    return ",".join(base_url(proxied[each.name]) for each in table if each.tier is tier)


def _bent(service: Service, through: Mapping[str, str], skew: float | None) -> Service:
    environment = {**service.environment, **through, "PYTHONPATH": str(ROOT)}
    if skew is None:
        return replace(service, environment=environment)
    command = (sys.executable, "-m", "tests.chaos.skewed", str(skew), service.command[-1])
    return replace(service, environment=environment, command=command)


# ---- in the test's ----


@contextmanager
def bent_stack(
    folder: Path, *options: str, skew: Mapping[str, float], environment: Mapping[str, str]
) -> Generator[tuple[Stack, dict[str, FaultProxy]]]:
    """A running stack, and the proxy in front of each of ``LINKS``."""
    places = folder / "places.json"

    def place_of(name: str) -> Address:
        try:
            place = json.loads(places.read_text())[name]
        except ValueError as error:
            raise OSError("nobody knows yet where that is") from error
        return Path(place[0]) if len(place) == 1 else (place[0], place[1])

    with ExitStack() as opened:
        proxies = {name: opened.enter_context(faulty(lambda name=name: place_of(name))) for name in LINKS}
        bends = {"places": str(places), "ports": {name: each.port for name, each in proxies.items()}, "skew": dict(skew)}
        given = {**environment, BENDS: json.dumps(bends)}
        stack = opened.enter_context(
            running_stack(folder / "state", *options, environment=given, program=(sys.executable, "-m", "tests.chaos.bent_stack"))
        )
        yield stack, proxies
        for each in proxies.values():
            each.heal()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.bent_stack")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    for name in ("--port", "--executors", "--control-planes", "--managers"):
        parser.add_argument(name, type=int, required=True)
    Supervisor(StackOptions(**vars(parser.parse_args())), say_on_stderr, lambda _: None, bent_table).run()


if __name__ == "__main__":
    main()
