"""What the control plane, the manager and an executor say to each other about one attempt."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from shared.contracts.events import AttemptEnded, EventRef, Timeouts
from shared.contracts.providers import EngineMode, Provider, ProviderReadiness
from shared.contracts.wire import Request, Wire

MessageRole = Literal["system", "user", "assistant"]


# One plain name of a folder; names that begin with a dot are ours, beside the workspaces.
WORKSPACE_KEY = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
MAX_FILE_CURSOR = 32_768  # a path of 64 folders with the longest names


class Message(Request):
    role: MessageRole = "user"
    content: str


class WorkspaceRef(Request):
    """The directory a session works in: the same key gives the same files and the same HOME on one executor."""

    key: str = Field(pattern=WORKSPACE_KEY)


class AttemptRef(Request):
    run_id: str
    attempt: int = Field(ge=1)


class SnapshotRef(Request):
    """A snapshot of a workspace, as Postgres names it: what it holds, and the last event whose work is in it."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    path: str
    executor_id: str
    run_id: str
    attempt: int
    cursor: int


class Otherwise(Request):
    """What a start becomes where the workspace's newest files are not: it goes on from what is known of before."""

    snapshot: SnapshotRef | None = Field(default=None, description="None: from an empty workspace.")
    lost_from: EventRef | None = Field(default=None, description="The first event whose work is not in it.")
    resume_session_id: str | None = None
    messages: list[Message] = Field(min_length=1)


class LeashQuote(Request):
    """The executor's last clock reading its caller knows: a start or renewal counts for one leash from this reading."""

    instance: str
    clock_ms: int


class StartProviderRun(Request):
    """``POST /provider-runs/start``: one attempt, exactly one engine process, however often it is sent."""

    run_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    attempt: int = Field(default=1, ge=1)
    provider: Provider
    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    resume_session_id: str | None = None
    engine_mode: EngineMode = EngineMode.ASK
    tools: dict[str, bool] = Field(default_factory=dict[str, bool])
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])
    env: dict[str, str] = Field(default_factory=dict[str, str])
    credential_env: dict[str, str] = Field(default_factory=dict[str, str])
    require_human_loop: bool = False
    workspace: WorkspaceRef
    timeouts: Timeouts = Field(default_factory=Timeouts)
    output_schema: dict[str, Any] | None = None
    leash: LeashQuote | None = Field(default=None, description="None: the leash starts at the executor's own now.")
    after: list[AttemptRef] = Field(
        default_factory=list[AttemptRef],
        description="The files must be those that one of these attempts left; none named: whatever is there.",
    )
    otherwise: Otherwise | None = Field(default=None, description="What to do where they are not; None: refuse.")


class ProviderRunAccepted(Wire):
    """201 the first time, 200 for every repeat with the same body otherwise."""

    run_id: str
    attempt: int
    accepted: bool = True
    warnings: list[str] = Field(default_factory=list[str])
    executor_id: str
    instance: str
    clock_ms: int


class RenewLeash(Request):
    """One call per replica and executor for all its attempts there."""

    quote: LeashQuote
    attempts: list[AttemptRef]


class LeashRenewed(Wire):
    """``unknown``: attempts this instance does not run (ended and released, or from before a restart)."""

    executor_id: str
    instance: str
    clock_ms: int
    unknown: list[AttemptRef] = Field(default_factory=list[AttemptRef])


class ForgetWorkspace(Request):
    """No run needs this workspace any more. The quote is a reading of the executor's clock from before that was seen."""

    quote: LeashQuote
    run_ids: list[str] = Field(min_length=1, max_length=10_000, description="Whose files may go; those of any other run stay.")


class WorkspaceForgotten(Wire):
    """``gone``: nothing of these runs is left here. ``kept``: what stands here is another run's. ``in_use``: ask again later."""

    workspace: str
    status: Literal["gone", "kept", "in_use"]


class UserMessage(Request):
    message_id: str = Field(min_length=1, max_length=128)
    text: str = Field(min_length=1)


class ProviderRun(Wire):
    """One attempt as the executor knows it from its journal."""

    run_id: str
    attempt: int
    provider: Provider
    status: Literal["starting", "running", "stopping", "ended"]
    executor_id: str
    instance: str
    pid: int | None = None
    started_at: datetime
    last_executor_cursor: int
    engine_session: str | None = None
    open_questions: list[str] = Field(default_factory=list[str])
    ended: AttemptEnded | None = None


class ProviderRunList(Wire):
    items: list[ProviderRun]
    next_cursor: str | None = None


class ReplyTaken(Wire):
    """The executor has handed the reply over, now or before (``duplicate``)."""

    run_id: str
    attempt: int
    question_id: str
    duplicate: bool = False


class StopTaken(Wire):
    """Answered at once; ``attempt.ended`` follows when the process tree is gone."""

    run_id: str
    attempt: int
    status: Literal["stopping", "ended", "remembered"]


class ParkRun(Request):
    """End an engine that waits for a person, and only that: the reply starts the next attempt from its session."""

    question_ids: list[str] = Field(
        min_length=1, description="The open questions its caller knows of. Where the engine's are others, nothing is done."
    )


class ParkTaken(Wire):
    """Answered at once. ``parking``: ``attempt.ended`` follows when the process tree is gone; ``parked``: it was told."""

    run_id: str
    attempt: int
    status: Literal["parking", "parked"]


class MessageTaken(Wire):
    """The executor has handed the user message over, now or before (``duplicate``)."""

    run_id: str
    attempt: int
    message_id: str
    duplicate: bool = False


class WorkspaceFile(Wire):
    """A plain file an engine left; ``path`` is relative to its working directory."""

    path: str
    bytes: int
    modified_at: datetime


class WorkspaceFileList(Wire):
    """A page of them; ``next_cursor`` names the next one."""

    items: list[WorkspaceFile]
    next_cursor: str | None = None


class ExecutorState(Wire):
    """Who an executor is, how loaded it is, and its clock (monotonic, milliseconds; meaningful to itself only)."""

    executor_id: str
    instance: str
    clock_ms: int
    slots: int
    live: int
    draining: bool = False
    providers: list[ProviderReadiness] = Field(default_factory=list[ProviderReadiness])
    workspaces: list[str] = Field(default_factory=list[str], description="Keys of the workspaces it holds, newest first, capped.")


class FleetMember(Wire):
    """An executor as the manager sees it. ``state`` is its own last word, also when it is silent now."""

    url: str
    reachable: bool
    reason: str | None = None
    state: ExecutorState | None = None
    reserved: int = Field(default=0, description="Attempts proposed there since it was last asked; beside `state.live`.")
    also_at: list[str] = Field(default_factory=list[str], description="Further addresses the same executor answers at.")


class Fleet(Wire):
    items: list[FleetMember]
    next_cursor: str | None = None


class Propose(Request):
    """Where may this attempt run? No side effect: the caller writes the answer into its attempt, then starts there."""

    provider: Provider
    workspace: WorkspaceRef
    avoid: list[str] = Field(default_factory=list[str], description="Executor ids that just refused, or that others wait for.")
    newest_at: str | None = Field(default=None, description="The executor that has the workspace's newest files.")
    movable: bool = Field(default=False, description="Another executor can have them too: nothing is newer than their snapshot.")


class Proposal(Wire):
    executor_id: str
    instance: str
    url: str
    clock_ms: int
