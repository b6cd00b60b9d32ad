"""The engines under test: one row each, and in it everything that is another engine's otherwise.

A new engine is a row here. A difference has a reason, or it is a fault of the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.contracts.providers import CLOSED, Provider


@dataclass(frozen=True)
class Differs:
    """How an engine differs in one case. ``ends``: success, or the code of the failure it has instead; None: it has no such case.

    ``why`` is the engine's own doing. A difference without such a reason is a fault of its adapter.
    """

    why: str
    ends: str | None = None


@dataclass(frozen=True)
class Engine:
    """``speaks``: what tells it what to do, a marker for the model stub or a script for the engine itself.

    ``key`` is the credential it signs in with; ``recordings`` names, by case, the recording under tests/recordings.
    """

    provider: Provider
    key: str | None
    model: str | None
    speaks: Literal["marker", "script"] = "marker"
    differs: Mapping[str, Differs] = field(default_factory=dict[str, Differs])
    recordings: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def can_be_played(self) -> bool:
        """Whether its program can still be had."""
        return self.provider not in CLOSED


ENGINES: Mapping[Provider, Engine] = {
    each.provider: each
    for each in (
        Engine(Provider.SCRIPTED, key=None, model=None, speaks="script"),
        Engine(
            Provider.CODEX_APP_SERVER,
            key="OPENAI_API_KEY",
            model="gpt-5.5",
            recordings={
                "plain": "codex/app-plain",
                "deltas": "codex/app-plain",
                "usage": "codex/app-plain",
                "approve": "codex/app-approve-exec-accept",
                "deny with message": "codex/app-approve-edit-decline",
                "question": "codex/app-ask-user",
                "message while running": "codex/app-steer",
                "interrupt": "codex/app-interrupt-text",
                "stop in a tool": "codex/app-interrupt-tool-clean",
                "resume after success": "codex/app-resume",
                "output schema": "codex/app-output-schema",
                "fails: 401": "codex/app-fail-401",
                "fails: 500": "codex/app-fail-500",
                "fails: quota": "codex/app-fail-quota",
                "fails: cut": "codex/app-fail-disconnect",
                "fails: context too long": "codex/app-fail-toolong",
            },
        ),
        Engine(
            Provider.CLAUDE_CODE,
            key="ANTHROPIC_API_KEY",
            model="claude-sonnet-4-5",
            recordings={
                "plain": "claude/print-plain",
                "deltas": "claude/print-plain",
                "usage": "claude/print-plain",
                "reasoning": "claude/reasoning",
                "plan": "claude/tasks",
                "approve": "claude/inter-edit-allow",
                "deny with message": "claude/inter-deny",
                "deny and stop": "claude/inter-deny-interrupt",
                "question": "claude/inter-ask-user",
                "message while running": "claude/message-during-text",
                "interrupt": "claude/inter-interrupt-text",
                "stop in a tool": "claude/inter-interrupt-tool",
                "output schema": "claude/output-schema",
                "fails: 401": "claude/fail-401",
                "fails: 403": "claude/fail-403",
                "fails: 404": "claude/fail-404",
                "fails: 429 with Retry-After": "claude/fail-429",
                "fails: 500": "claude/fail-500",
                "fails: 529": "claude/fail-529",
                "fails: cut": "claude/fail-disconnect",
                "fails: refused": "claude/fail-refused",
                "fails: context too long": "claude/fail-toolong",
                "fails: empty": "claude/empty",
            },
        ),
        Engine(
            Provider.GEMINI_CLI,
            key="GEMINI_API_KEY",
            model="gemini-2.5-flash",
            recordings={
                "plain": "gemini/acp-plain",
                "approve": "gemini/acp-approve",
                "interrupt": "gemini/acp-cancel",
                "stop in a tool": "gemini/acp-cancel-tool",
                "fails: 401": "gemini/acp-fail-auth",
                "fails: cut": "gemini/acp-fail-disconnect",
                "fails: empty": "gemini/acp-fail-empty",
            },
        ),
        Engine(
            Provider.OPENCODE,
            key="OPENAI_API_KEY",
            model="stub-model",
            differs={
                "fails: context too long": Differs("it shortens the conversation by itself and goes on", "success"),
            },
            recordings={
                "plain": "opencode/acp-plain",
                "reasoning": "opencode/acp-reason",
                "approve": "opencode/acp-approve",
                "interrupt": "opencode/acp-cancel",
                "stop at a permission": "opencode/acp-cancel-permission",
                "fails: 401": "opencode/acp-fail-auth",
                "fails: 500": "opencode/acp-fail-server",
                "fails: cut": "opencode/acp-fail-disconnect",
                "fails: empty": "opencode/acp-fail-empty",
            },
        ),
        Engine(Provider.IFLOW_CLI, key="IFLOW_API_KEY", model=None),
        Engine(
            Provider.QWEN_CODE,
            key="OPENAI_API_KEY",
            model="stub-model",
            recordings={
                "plain": "qwen/acp-plain",
                "reasoning": "qwen/acp-reason",
                "approve": "qwen/acp-set-mode-default-approve",
                "question": "qwen/acp-ask",
                "interrupt": "qwen/acp-cancel",
                "stop in a tool": "qwen/acp-cancel-tool",
                "fails: 401": "qwen/acp-fail-auth",
                "fails: cut": "qwen/acp-fail-disconnect",
                "fails: empty": "qwen/acp-fail-empty",
            },
        ),
    )
}
