"""Prints what ``docs/configuration.md`` says of credentials and of a request's options, from the tables that decide them.

An option of the code that no sentence here explains, and a sentence whose option is gone, are errors: nothing is printed then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from control_plane.domain.placing import NEVER_SENT
from control_plane.domain.timeouts import INTERACTION_MS, LONGEST
from control_plane.runs.admit import ADMIN_OPTIONS
from executor.adapters import ADAPTERS
from executor.adapters.claude.config import EFFORTS
from executor.adapters.codex.config import WIRE
from executor.adapters.mcp_servers import MAX_SERVERS
from executor.adapters.opencode.adapter import APIS
from executor.adapters.options import EVERYWHERE
from executor.adapters.skills import FOLDER, MAX_SKILLS
from executor.adapters.takes import TAKES
from scripts.generated_parts import Part, print_or_write, table
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.events import Timeouts
from shared.contracts.interactions import MAX_EXPIRY_ANSWER
from shared.contracts.providers import DRIVEN

CONFIGURATION = "docs/configuration.md"
_LIMITS = Timeouts()
_UNITS = ((24 * 3_600_000, "days"), (3_600_000, "h"), (1000, "s"))


def _time(ms: int) -> str:
    size, unit = next(each for each in _UNITS if ms % each[0] == 0 and ms > each[0])
    return f"{ms // size} {unit}"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


MEANINGS: Mapping[str, str] = {
    "timeoutMs": "How long the run may work; waiting for a person does not count.",
    "runTimeoutMs": "The same; `timeoutMs` stands where both are given.",
    "idleTimeoutMs": f"How long its engine may be silent; else {_time(_LIMITS.idle_ms)}.",
    "firstEventTimeoutMs": f"Until when its engine must have told its first event; else {_time(_LIMITS.first_event_ms)}.",
    "interactionTimeoutMs": f"How long a question stays open; else {_time(INTERACTION_MS)}.",
    "onExpiry": "What then: `fail` ends the run (unless it says otherwise); `deny` declines a permission or plan and goes on; "
    "`answer` does that too, and answers a question with `expiryAnswer`. A question `deny` has no word for ends the run.",
    "expiryAnswer": f"With `onExpiry: answer`, the text a question is answered with (at most {MAX_EXPIRY_ANSWER:,} characters). "
    "Where several are asked at once it answers each; where it is not of the form asked for, the run ends as with `fail`.",
    "outputSchema": "A JSON Schema that the answer must fit, at most 64 KiB with 50 patterns; other providers answer it with "
    "`capability_unavailable`.",
    "mcpServers": f"Tool servers for the engine, by name, at most {MAX_SERVERS}: `{{command, args, env}}` for a program, "
    "`{url, headers, type}` for a server.",
    "skills": f"Which skills of `{FOLDER}` in the workspace the run is to use, by name, at most {MAX_SKILLS}.",
    "baseUrl": "Another model endpoint.",
    "wireApi": f"What that endpoint speaks: `opencode` {_codes(APIS)}; `codex-app-server` `{WIRE}` only.",
    "reasoningEffort": f"How long the model may think: `claude-code` {_codes(EFFORTS)}; `codex-app-server` as Codex names it.",
    "reasoningSummary": "How its thinking is summed up, as Codex names it.",
}


def options() -> str:
    """Raises ``ValueError`` unless every option is explained, and nothing else."""
    known = set(LONGEST) | NEVER_SENT | EVERYWHERE | {name for each in TAKES.values() for name in each.options}
    if known != set(MEANINGS):
        raise ValueError(f"explained in scripts/print_options.py, or an option, but not both: {sorted(known ^ set(MEANINGS))}")
    rows = [
        (f"`{name}`", meaning, _time(LONGEST[name]) if name in LONGEST else "", _takers(name), _setters(name))
        for name, meaning in MEANINGS.items()
    ]
    return table(("option", "meaning", "at most", "for", "set by"), rows)


def _takers(name: str) -> str:
    if name == "outputSchema":
        return _codes(each for each in sorted(DRIVEN) if ADAPTERS[each].capabilities.output_schema)
    if name in LONGEST.keys() | NEVER_SENT | EVERYWHERE:
        return "all"
    return _codes(provider for provider, each in TAKES.items() if name in each.options)


def _setters(name: str) -> str:
    return "an admin key, or a profile" if name in ADMIN_OPTIONS else "anybody"


def credentials() -> str:
    """Of every provider that can run: what will do to sign in, and what may go with it."""
    rows = [
        (
            f"`{provider}`",
            _codes(each.keys),
            _codes(each.more),
            _codes(file.source for file in each.files),
        )
        for provider, each in CREDENTIALS.items()
        if provider in DRIVEN
    ]
    return table(("provider", "any one of these variables", "with it", "or any one of these files"), rows)


PARTS = {
    "credentials": Part(CONFIGURATION, credentials),
    "provider options": Part(CONFIGURATION, options),
}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
