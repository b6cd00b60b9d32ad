"""What people answer to questions of a model is read the same for every engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executor.adapters.replies import UserQuestion, answers_to, question_fields
from shared.contracts.interactions import InteractionType, Option
from shared.schemas import Schema

INDENT = UserQuestion("0", "Tabs or spaces?", "Indent", (Option(label="Tabs"), Option(label="Spaces")))
NAME = UserQuestion("1", "What name?")


@pytest.mark.parametrize(("questions", "answer", "texts"), [
    ([INDENT], "Tabs", [["Tabs"]]),
    ([INDENT], ["Tabs", "Spaces"], [["Tabs", "Spaces"]]),
    ([INDENT], None, [None]),
    ([INDENT, NAME], "Tabs", [["Tabs"], None]),
    ([INDENT, NAME], ["Tabs"], [["Tabs"], None]),
    ([INDENT, NAME], ["Tabs", "x", "more"], [["Tabs"], ["x"]]),
    ([INDENT, NAME], {"Indent": "Tabs", "What name?": ["x", "y"]}, [["Tabs"], ["x", "y"]]),
    ([INDENT, NAME], {"1": 5, "": "of nobody"}, [None, ["5"]]),
    ([], "Tabs", []),
])  # fmt: skip
def test_a_person_may_answer_in_any_of_these_ways(questions: list[UserQuestion], answer: Any, texts: Any) -> None:
    assert answers_to(questions, answer) == texts


def test_a_question_that_several_options_may_answer_says_so_and_takes_one_text_all_the_same() -> None:
    several = replace(INDENT, takes_several=True)
    alone = question_fields([several])
    assert alone["options"] == list(INDENT.options)
    for schema in (alone["schema_"], question_fields([NAME, several])["schema_"]["properties"]["0"]):
        assert Schema(schema).misfit(["Tabs", "Spaces"]) is None
        assert Schema(schema).misfit("Tabs") is None
        assert Schema(schema).misfit([1]) is not None


def test_one_question_has_its_options_and_several_have_a_schema() -> None:
    assert question_fields([INDENT]) == {
        "type": InteractionType.QUESTION, "prompt": "Tabs or spaces?", "options": [Option(label="Tabs"), Option(label="Spaces")],
    }  # fmt: skip
    both = question_fields([INDENT, NAME])
    assert both["prompt"] == "Tabs or spaces?\nWhat name?"
    assert both["schema_"]["required"] == ["0", "1"]
    assert both["schema_"]["properties"]["0"]["examples"] == ["Tabs", "Spaces"]
    assert both["schema_"]["properties"]["1"] == {"type": "string", "title": "What name?", "description": "What name?"}
