"""Every setting of an executor, in one table. Read by ``server`` and ``app`` only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from executor.state_dir import GUARD_PID, INSTANCE, StateDir
from shared.settings import ServiceSettings

MIB = 1024 * 1024


class ExecutorSettings(ServiceSettings):
    """Environment variables of the executor. Engine credentials are not among them: they are read by their own names."""

    host: str = Field(default="127.0.0.1", validation_alias="EXECUTOR_HOST")
    port: int = Field(default=8090, ge=0, le=65_535, validation_alias="EXECUTOR_PORT")
    executor_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$", validation_alias="EXECUTOR_ID")
    state_dir: Path | None = Field(default=None, validation_alias="EXECUTOR_STATE_DIR")
    workspace_root: Path | None = Field(default=None, validation_alias="EXECUTOR_WORKSPACE_ROOT")
    engines_dir: Path | None = Field(default=None, validation_alias="EXECUTOR_ENGINES_DIR")
    slots: int = Field(default=4, ge=1, le=1_000, validation_alias="EXECUTOR_SLOTS")
    output_quota_bytes: int = Field(default=256 * MIB, ge=1, validation_alias="EXECUTOR_OUTPUT_QUOTA_BYTES")
    provider_mode: Literal["real", "scripted"] = Field(default="real", validation_alias="CONTROL_PLANE_PROVIDER_MODE")
    instance: str | None = Field(default=None, validation_alias=INSTANCE)
    guard_pid: int | None = Field(default=None, validation_alias=GUARD_PID)

    def state(self) -> StateDir:
        return StateDir.at(self.state_dir)

    def workspaces(self) -> Path:
        return (self.workspace_root or self.state().root / "workspaces").resolve()
