"""How freely an engine may act: one row for each mode, one column for each engine, and in it the words that engine is told.

Nothing else translates a mode. What an engine asks beyond what its words allow is decided by ``asked``, for all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from shared.contracts.interactions import Decision
from shared.contracts.providers import EngineMode, Provider


class Unasked(StrEnum):
    """What becomes of a permission that an engine asks for."""

    PERSON = "a person decides"
    ALLOWED = "allowed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class CodexWords:
    """``sandbox``: what may be done without a question. ``approval_policy``: when it asks one."""

    sandbox: str
    approval_policy: str


@dataclass(frozen=True, slots=True)
class OpenCodeWords:
    """``agent``: its own mode. ``others``: its permission for tools that do more than look; ``edit``: another one for edits."""

    agent: str
    others: str
    edit: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """``codex``: of a thread. ``claude``: ``--permission-mode``. ``gemini``, ``iflow``, ``qwen``: by ``session/set_mode``."""

    asked: Unasked
    codex: CodexWords
    claude: str
    gemini: str
    iflow: str
    opencode: OpenCodeWords
    qwen: str


# Never Claude Code's own way past all questions: it refuses that to root, and an accepted question is the same. Plan mode denies
# until a person accepts the plan. Qwen Code's own «auto» lets a model decide, so it is not used.
MODES: Mapping[EngineMode, Row] = MappingProxyType({
    EngineMode.PLAN: Row(
        Unasked.DENIED, CodexWords("read-only", "never"), claude="plan",
        gemini="plan", iflow="plan", opencode=OpenCodeWords("plan", "deny"), qwen="plan",
    ),
    EngineMode.READ_ONLY: Row(
        Unasked.DENIED, CodexWords("read-only", "never"), claude="default",
        gemini="plan", iflow="plan", opencode=OpenCodeWords("build", "deny"), qwen="plan",
    ),
    EngineMode.ASK: Row(
        Unasked.PERSON, CodexWords("workspace-write", "untrusted"), claude="default",
        gemini="default", iflow="default", opencode=OpenCodeWords("build", "ask"), qwen="default",
    ),
    EngineMode.AUTO_EDIT: Row(
        Unasked.PERSON, CodexWords("workspace-write", "on-request"), claude="acceptEdits",
        gemini="autoEdit", iflow="autoEdit", opencode=OpenCodeWords("build", "ask", edit="allow"), qwen="auto-edit",
    ),
    EngineMode.FULL: Row(
        Unasked.ALLOWED, CodexWords("danger-full-access", "never"), claude="acceptEdits",
        gemini="yolo", iflow="yolo", opencode=OpenCodeWords("build", "allow"), qwen="yolo",
    ),
})  # fmt: skip


def decided(mode: EngineMode) -> Decision | None:
    """What becomes of a permission that is asked for in this mode; None: a person decides. A question to the user is none."""
    match MODES[mode].asked:
        case Unasked.PERSON:
            return None
        case Unasked.ALLOWED:
            return Decision.ACCEPT
        case Unasked.DENIED:
            return Decision.DECLINE


def words(of: Callable[[Row], str]) -> Mapping[EngineMode, str]:
    """One column: the word by mode."""
    return MappingProxyType({mode: of(row) for mode, row in MODES.items()})


def told(provider: Provider, mode: EngineMode) -> str:
    """The cell as documents print it. The scripted engine does what its script says, whatever the mode."""
    row = MODES[mode]
    match provider:
        case Provider.CODEX_APP_SERVER:
            return f"`sandbox: {row.codex.sandbox}`, `approvalPolicy: {row.codex.approval_policy}`"
        case Provider.CLAUDE_CODE:
            return f"`--permission-mode {row.claude}`"
        case Provider.GEMINI_CLI:
            return f"`session/set_mode {row.gemini}`"
        case Provider.IFLOW_CLI:
            return f"`session/set_mode {row.iflow}`"
        case Provider.OPENCODE:
            edits = f", `edit: {row.opencode.edit}`" if row.opencode.edit else ""
            return f"`session/set_mode {row.opencode.agent}`, `*: {row.opencode.others}`{edits}"
        case Provider.QWEN_CODE:
            return f"`session/set_mode {row.qwen}`"
        case Provider.SCRIPTED:
            return "–"
