"""Our services as benchmarks start them: real processes, the door open on loopback."""

from __future__ import annotations

from tests.bench.kit.ground import Database, Ground, Role, free_port

NOBODY = "http://127.0.0.1:9"


async def control_plane(ground: Ground, database: Database, manager_url: str = NOBODY, **settings: str) -> Role:
    port = free_port()
    environment = {
        "DATABASE_URL": database.dsn, "CONTROL_PLANE_PORT": str(port), "EXECUTOR_MANAGER_URLS": manager_url,
        "RUNYARD_AUTH": "off", **settings,
    }  # fmt: skip
    return await ground.service("control_plane", port=port, environment=environment)


async def executor_manager(ground: Ground, executor_url: str) -> Role:
    port = free_port()
    environment = {
        "EXECUTOR_MANAGER_PORT": str(port), "EXECUTOR_MANAGER_EXECUTORS": executor_url, "RUNYARD_AUTH": "off",
    }  # fmt: skip
    return await ground.service("executor_manager", port=port, environment=environment)
