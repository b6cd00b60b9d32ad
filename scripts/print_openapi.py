"""Prints the OpenAPI 3.1 document of each service, as its app serves it at ``/openapi.json``. See ``docs/openapi``.

The apps are built and never started: nothing is connected, and nothing is written but a temporary folder.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from control_plane.app import build_app as build_control_plane
from control_plane.settings import Settings as ControlPlaneSettings
from executor.app import build_app as build_executor
from executor.settings import ExecutorSettings
from executor_manager.app import build_app as build_manager
from executor_manager.settings import Settings as ManagerSettings
from scripts.generated_parts import Printed, print_or_write

SECRETS = {"RUNYARD_SERVICE_TOKEN": "not-a-token", "RUNYARD_ADMIN_KEY": "not-a-key"}


def control_plane(_folder: Path) -> Starlette:
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    return build_control_plane(ControlPlaneSettings.model_validate({**SECRETS, **nowhere}))


def manager(_folder: Path) -> Starlette:
    return build_manager(ManagerSettings.model_validate(SECRETS))


def executor(folder: Path) -> Starlette:
    return build_executor(ExecutorSettings.model_validate({**SECRETS, "EXECUTOR_STATE_DIR": folder, "EXECUTOR_ID": "executor"}))


SERVICES: dict[str, Callable[[Path], Starlette]] = {
    "control-plane": control_plane, "executor-manager": manager, "executor": executor,
}  # fmt: skip


@cache
def document(service: str) -> dict[str, Any]:
    """What the service says about itself."""
    return asyncio.run(_asked(service))


async def _asked(service: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        transport = httpx.ASGITransport(app=SERVICES[service](Path(folder)))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return (await client.get("/openapi.json")).raise_for_status().json()


def _text(service: str) -> Callable[[], str]:
    return lambda: json.dumps(document(service), indent=1, ensure_ascii=False) + "\n"


PARTS = {f"openapi {service}": Printed(f"docs/openapi/{service}.json", _text(service)) for service in SERVICES}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
