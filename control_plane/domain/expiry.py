"""What a question is answered with that nobody answered in time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from shared.contracts.interactions import Decision, Interaction, InteractionType, OnExpiry, Reply
from shared.schemas import Schema, has_no_detours

NOBODY = "Nobody answered in time."


def declared_reply(question: Interaction) -> Reply | None:
    """The reply that was declared for it; None where there is none, or where it does not fit what was asked.

    A permission or plan is never granted in an absent person's name.
    """
    if question.on_expiry is OnExpiry.FAIL:
        return None
    if question.type is not InteractionType.QUESTION:
        return Reply(decision=Decision.DECLINE, message=NOBODY)
    if question.on_expiry is OnExpiry.DENY or question.expiry_answer is None:
        return None
    answer = _fitting(question.schema_, question.expiry_answer)
    return None if answer is None else Reply(answer=answer)


def _fitting(schema: Mapping[str, Any] | None, text: str) -> str | dict[str, Any] | None:
    """The text as it is, or as the answer to each of several questions, whichever the schema takes."""
    if schema is None:
        return text
    if not has_no_detours(schema):
        return None  # an engine asked: it could hold up everybody else's runs for ever
    try:
        asked = Schema(schema)
    except ValueError:
        return None  # whatever is said to it is a guess
    properties = schema.get("properties")
    names = cast(dict[str, Any], properties) if isinstance(properties, dict) else {}
    forms: list[str | dict[str, Any]] = [text, dict.fromkeys(names, text)]
    return next((form for form in forms if asked.misfit(form) is None), None)
