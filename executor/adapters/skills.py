"""``providerOptions.skills``: the skills a run is to use, by name; they lie in the workspace, in the one place most engines look.

How an engine is told stands with it. Knows no engine.
"""

from __future__ import annotations

import re
from typing import Any, cast

from executor.adapters.base import StartRequest
from shared.errors import invalid

OPTION = "skills"
FOLDER = ".agents/skills"  # below the workspace; in it, a folder with a SKILL.md for each
MAX_SKILLS = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def skills_of(request: StartRequest) -> list[str]:
    """Raises ``invalid_request``."""
    names: Any = request.provider_options.get(OPTION, [])
    if not isinstance(names, list) or len(cast("list[Any]", names)) > MAX_SKILLS:
        raise invalid(f"providerOptions.{OPTION}", f"must be a list of at most {MAX_SKILLS} names")
    given = cast("list[Any]", names)
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in given):
        raise invalid(f"providerOptions.{OPTION}", "a skill's name is letters, digits, - and _")
    return [*given]


def prompt_with_skills(request: StartRequest) -> str:
    """The prompt, and which skills to use, for an engine that has found them by itself."""
    names = skills_of(request)
    return request.prompt() + (f"\n\nUse these skills: {', '.join(names)}." if names else "")
