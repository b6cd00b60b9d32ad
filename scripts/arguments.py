"""What the command lines of operator scripts share: a usage error that looks like no verdict, and where a stack is found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from runyard.local_stack.ready_file import read_ready_file, stack_up_in
from runyard.local_stack.stack import default_state_dir

USAGE = 64  # sysexits' EX_USAGE: 1 and 2 are verdicts
MANAGER_URL = "http://127.0.0.1:3010"


class Parser(argparse.ArgumentParser):
    """Help keeps its line breaks."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(USAGE, f"{self.prog}: {message}\n")


@dataclass(frozen=True, slots=True)
class Addresses:
    """A stack's addresses and secrets; None where nothing says so."""

    api_url: str | None
    api_key: str | None
    manager_url: str
    service_token: str | None


def add_stack_arguments(parser: argparse.ArgumentParser) -> None:
    """A key is better given by environment or ready file: the command line is seen by everyone on the machine."""
    parser.add_argument("--base-url", help="the control plane; default: RUNYARD_URL, else the local stack's")
    parser.add_argument("--api-key", help="default and better: RUNYARD_API_KEY, else the local stack's")
    parser.add_argument("--ready-file", type=Path, help="of `runyard up`; default: the one in its default place")


def addresses(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Addresses:
    """The command line, then the environment, then the ready file. A local stack's key goes to the local stack only."""
    asked = arguments.ready_file
    local: Mapping[str, Any] = (read_ready_file(asked) if asked else stack_up_in(default_state_dir())) or {}
    managers = [each["url"] for each in local.get("services", []) if str(each["name"]).startswith("executor-manager")]
    own_url, own_manager = local.get("apiUrl"), managers[0] if managers else None
    if arguments.ready_file is not None:  # asked for by name, it stands above the environment
        environment = {}
    api_url = arguments.base_url or environment.get("RUNYARD_URL") or own_url
    manager_url = getattr(arguments, "manager_url", None) or environment.get("EXECUTOR_MANAGER_URLS", "").split(",")[0].strip()
    manager_url = (manager_url or own_manager or MANAGER_URL).rstrip("/")
    api_key = arguments.api_key or environment.get("RUNYARD_API_KEY") or (local.get("apiKey") if api_url == own_url else None)
    token = environment.get("RUNYARD_SERVICE_TOKEN") or (local.get("serviceToken") if manager_url == own_manager else None)
    return Addresses(api_url.rstrip("/") if api_url else None, api_key, manager_url, token)
