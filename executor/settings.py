"""Every setting of an executor, in one table. Read by ``server`` and ``app`` only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field

from executor.state_dir import GUARD_PID, INSTANCE, StateDir
from shared.settings import PathList, ServiceSettings

MIB = 1024 * 1024


class ExecutorSettings(ServiceSettings):
    """Environment variables of the executor. Engine credentials are not among them: they are read by their own names."""

    host: str = Field(default="127.0.0.1", validation_alias="EXECUTOR_HOST", description="The address it listens at.")
    port: int = Field(default=8090, ge=0, le=65_535, validation_alias="EXECUTOR_PORT", description="The port it listens at.")
    executor_id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$", validation_alias="EXECUTOR_ID",
        description="Its name in the fleet; else one is made once and kept in the state directory.",
    )  # fmt: skip
    state_dir: Path | None = Field(
        default=None, validation_alias="EXECUTOR_STATE_DIR",
        description="Journal, lock and pid; one executor each. Else `runyard/executor` under `$XDG_STATE_HOME`.",
    )  # fmt: skip
    workspace_root: Path | None = Field(
        default=None, validation_alias="EXECUTOR_WORKSPACE_ROOT",
        description="Where engines work; the same path on every executor. Else `workspaces` in the state directory.",
    )  # fmt: skip
    engines_dir: Path | None = Field(
        default=None, validation_alias="EXECUTOR_ENGINES_DIR",
        description="Where the pinned engine CLIs are looked for before `PATH` is.",
    )  # fmt: skip
    credentials_dir: Path | None = Field(
        default=None, validation_alias="EXECUTOR_CREDENTIALS_DIR",
        description="Files that engines sign in with (`codex/auth.json`, …), copied 0600 into an engine's HOME at its start.",
    )  # fmt: skip
    containment: Literal["auto", "required", "none"] = Field(
        default="auto", validation_alias="EXECUTOR_CONTAINMENT",
        description="Bubblewrap round every engine: `auto` where it works, `required` or not at all, `none`.",
    )  # fmt: skip
    bwrap: Path | None = Field(
        default=None, validation_alias="EXECUTOR_BWRAP", description="The bubblewrap program; else `bwrap` on `PATH`."
    )
    private_paths: PathList = Field(
        default=[], validation_alias="EXECUTOR_PRIVATE_PATHS",
        description="Comma-separated: what no contained engine sees, beside the executor's own files.",
    )  # fmt: skip
    command_profiles: Path | None = Field(
        default=None, validation_alias="EXECUTOR_COMMAND_PROFILES",
        description="JSON: default `arguments`, `model`, `options` by provider, over `executor/engine_command_profiles.json`.",
    )  # fmt: skip
    prices: Path | None = Field(
        default=None, validation_alias="EXECUTOR_PRICES",
        description="TOML: your prices of models, before those of `executor/prices.toml`; for engines that name no cost.",
    )  # fmt: skip
    slots: int = Field(
        default=4, ge=1, le=1_000, validation_alias="EXECUTOR_SLOTS", description="How many attempts may live at once."
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, le=86_400, validation_alias="EXECUTOR_DRAIN_SECONDS",
        description="How long SIGTERM waits for what works here to end and be told; 0 ends it at once, as SIGINT or a second "
                    "SIGTERM does. Whoever kills what does not end must wait 10 s longer.",
    )  # fmt: skip
    output_quota_bytes: int = Field(
        default=256 * MIB, ge=1, validation_alias="EXECUTOR_OUTPUT_QUOTA_BYTES",
        description="What an engine may print in one attempt before it is ended with `output_limit`. What is kept of that in "
                    "the journal may take four times as much: many short lines reach it first.",
    )  # fmt: skip
    file_limit_bytes: int = Field(
        default=8 * 1024 * MIB, ge=MIB, validation_alias="EXECUTOR_FILE_LIMIT_BYTES",
        description="No file that an engine or its tools write grows beyond it (`ulimit -f`).",
    )  # fmt: skip
    memory_limit_bytes: int | None = Field(
        default=None, ge=64 * MIB, validation_alias="EXECUTOR_MEMORY_LIMIT_BYTES",
        description="What a run's processes may use together, where this executor can make cgroups; beyond it: `engine_oom`.",
    )  # fmt: skip
    cgroup: Path | None = Field(
        default=None, validation_alias="EXECUTOR_CGROUP",
        description="The cgroup (v2) folder in which each run gets its own; else the executor's own, where that was delegated.",
    )  # fmt: skip
    snapshot_store: str | None = Field(
        default=None, validation_alias="EXECUTOR_SNAPSHOT_STORE",
        description="Where snapshots of workspaces are kept, the same for all executors: `file:///a/folder/all/see`, or "
                    "`s3://bucket/prefix` with `obstore` installed and `AWS_…` in the environment. Else none are taken.",
    )  # fmt: skip
    snapshot_max_bytes: int = Field(
        default=1024 * MIB, ge=1, validation_alias="EXECUTOR_SNAPSHOT_MAX_BYTES",
        description="What the files of a snapshot may hold together; of a larger workspace none is taken, and the run says so.",
    )  # fmt: skip
    provider_mode: Literal["real", "scripted"] = Field(
        default="real", validation_alias="CONTROL_PLANE_PROVIDER_MODE",
        description="`scripted` gives every provider to the scripted engine, with no change of API.",
    )  # fmt: skip
    instance: str | None = Field(default=None, validation_alias=INSTANCE, description="Given by the guard, never by you.")
    guard_pid: int | None = Field(default=None, validation_alias=GUARD_PID, description="Given by the guard, never by you.")

    def state(self) -> StateDir:
        return StateDir.at(self.state_dir)

    def snapshot_folder(self) -> Path | None:
        """The store, where it is a folder of this machine's."""
        parts = urlsplit(self.snapshot_store or "")
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def workspaces(self) -> Path:
        return (self.workspace_root or self.state().root / "workspaces").resolve()
