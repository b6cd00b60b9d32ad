"""What a person types at a question, as a reply. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Reply = dict[str, str]

# For permissions and plans: what may be typed, and what it means.
DECISIONS: Mapping[str, str] = {
    "y": "accept", "yes": "accept", "accept": "accept",
    "a": "acceptForSession", "always": "acceptForSession", "acceptforsession": "acceptForSession",
    "n": "decline", "no": "decline", "decline": "decline",
    "s": "declineAndStop", "stop": "declineAndStop", "declineandstop": "declineAndStop",
}  # fmt: skip
BEFORE_WORDS = frozenset("yns")  # what begins no sentence: «A safer way, please» allows nothing
DECISION_HELP = "y = yes, a = always in this session, n = no, s = no and stop; words after y, n or s are told to the engine"


def parse_reply(question: Mapping[str, Any], typed: str) -> Reply | None:
    """The fields of the reply, or None when the line is no answer to this question.

    A letter may be followed by a message: ``n use the other file``. To a question with options the number of one stands for
    it; anything else is the answer itself.
    """
    typed = typed.strip()
    if not typed:
        return None
    if question.get("type") in ("permission", "plan"):
        word, _, message = typed.partition(" ")
        decision = DECISIONS.get(word.lower())
        if decision is None or (message and word.lower() not in BEFORE_WORDS):
            return None
        return {"decision": decision, **({"message": message.strip()} if message else {})}
    asked: list[dict[str, Any]] = question.get("options") or []
    options = [str(option.get("label", "")) for option in asked]
    if typed.isdecimal() and 1 <= int(typed) <= len(options):
        return {"answer": options[int(typed) - 1]}
    return {"answer": typed}


def expects(question: Mapping[str, Any]) -> str:
    """One line on what may be typed."""
    if question.get("type") in ("permission", "plan"):
        return DECISION_HELP
    return "the number of an option, or your own words" if question.get("options") else "your answer"
