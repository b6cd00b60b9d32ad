"""What Claude Code asks and what it uses: questions, permissions, engine modes, tools, where no recording went."""

from __future__ import annotations

import time
from typing import Any

import pytest

from executor.adapters.base import STDOUT
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode, RunyardError
from tests.unit.adapters.claude_lines import answered, asks, called, emitted, feed, gave, result, said, working

TABS = {"question": "Tabs or spaces?", "header": "Indent", "options": [{"label": "Tabs", "description": "t"}]}
WIDTH = {"question": "How wide?", "header": "Width", "options": []}


# ---- questions ----


def test_several_questions_in_one_are_asked_by_a_schema() -> None:
    [(kind, asked)] = emitted(feed(working(), asks("AskUserQuestion", {"questions": [TABS, WIDTH]})))
    assert (kind, asked["type"], asked["questionId"]) == ("interaction.requested", "question", "q2-1")
    assert list(asked["schema"]["properties"]) == ["Tabs or spaces?", "How wide?"]
    assert asked["schema"]["properties"]["Tabs or spaces?"]["examples"] == ["Tabs"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Tabs", {"Tabs or spaces?": "Tabs"}),
        (["Tabs", "4"], {"Tabs or spaces?": "Tabs", "How wide?": "4"}),
        ({"Indent": "Tabs", "How wide?": 4}, {"Tabs or spaces?": "Tabs", "How wide?": "4"}),
        ({"Width": ["4", "8"]}, {"How wide?": "4, 8"}),
    ],
)
def test_several_questions_in_one_are_answered_by_name_or_in_order(answer: Any, expected: dict[str, str]) -> None:
    claude = working()
    feed(claude, asks("AskUserQuestion", {"questions": [TABS, WIDTH]}))
    [said] = answered(claude.answer("q2-1", Reply(answer=answer)))
    assert said == {"behavior": "allow", "updatedInput": {"questions": [TABS, WIDTH], "answers": expected}}


def test_a_list_answers_one_question_with_all_its_entries() -> None:
    claude = working()
    asked = emitted(feed(claude, asks("AskUserQuestion", {"questions": [TABS | {"multiSelect": True}]})))[0][1]
    answers = answered(claude.answer("q2-1", Reply(answer=["Tabs", "Spaces"])))[0]["updatedInput"]["answers"]
    assert (asked["schema"]["type"], answers) == (["string", "array"], {"Tabs or spaces?": "Tabs, Spaces"})


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(decision=Decision.ACCEPT), {"behavior": "allow", "updatedInput": {"command": "ls"}}),
        (Reply(answer="accept"), {"behavior": "allow", "updatedInput": {"command": "ls"}}),
        (Reply(decision=Decision.DECLINE), {"behavior": "deny", "message": "The user declined."}),
        (Reply(decision=Decision.DECLINE, message="not there"), {"behavior": "deny", "message": "not there"}),
        (Reply(answer="not there"), {"behavior": "deny", "message": "not there"}),
        (Reply(decision=Decision.DECLINE_AND_STOP), {"behavior": "deny", "message": "The user declined.", "interrupt": True}),
    ],
)
def test_a_reply_to_a_permission_is_a_decision_and_perhaps_a_reason(reply: Reply, expected: Any) -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}))
    assert answered(claude.answer("q2-1", reply)) == [expected]


@pytest.mark.parametrize(
    ("suggested", "granted"),
    [
        (
            [
                {
                    "type": "addRules",
                    "rules": [{"toolName": "Bash", "ruleContent": "ls *"}],
                    "behavior": "allow",
                    "destination": "localSettings",
                },
                {"type": "setMode", "mode": "acceptEdits", "destination": "session"},
            ],
            [
                {
                    "type": "addRules",
                    "rules": [{"toolName": "Bash", "ruleContent": "ls *"}],
                    "behavior": "allow",
                    "destination": "session",
                }
            ],
        ),
        (
            [{"type": "setMode", "mode": "acceptEdits", "destination": "projectSettings"}],
            [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}],
        ),
        (
            None,
            [
                {
                    "type": "addRules",
                    "rules": [{"toolName": "Bash", "ruleContent": "ls"}],
                    "behavior": "allow",
                    "destination": "session",
                }
            ],
        ),
    ],
)
def test_what_is_accepted_for_the_session_is_the_thing_asked_about_and_for_the_session_only(suggested: Any, granted: Any) -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}, permission_suggestions=suggested))
    [said] = answered(claude.answer("q2-1", Reply(decision=Decision.ACCEPT_FOR_SESSION)))
    assert said["updatedPermissions"] == granted


@pytest.mark.parametrize("suggested", [None, [{"type": "addRules", "rules": [{"toolName": "mcp__ssh__exec"}]}]])
def test_one_call_that_was_accepted_for_the_session_does_not_allow_the_whole_tool(suggested: Any) -> None:
    claude = working()
    feed(claude, asks("mcp__ssh__exec", {"host": "staging"}, permission_suggestions=suggested))
    [said] = answered(claude.answer("q2-1", Reply(decision=Decision.ACCEPT_FOR_SESSION)))
    assert said == {"behavior": "allow", "updatedInput": {"host": "staging"}}


@pytest.mark.parametrize(
    ("tool", "first", "second", "asked_again"),
    [
        ("Bash", {"command": "ls", "description": "look"}, {"command": "ls", "description": "look again"}, False),
        ("Bash", {"command": "ls"}, {"command": "ls -l"}, True),
        ("Bash", {"command": "ls"}, {"command": "ls", "dangerouslyDisableSandbox": True}, True),
        ("mcp__ssh__exec", {"host": "staging", "command": "ls"}, {"host": "staging", "command": "ls"}, False),
        ("mcp__ssh__exec", {"host": "staging", "command": "ls"}, {"host": "prod", "command": "ls"}, True),
        ("Read", {"path": "a", "from": 1}, {"from": 1, "path": "a"}, False),
        ("Read", {"path": "a"}, {"path": "b"}, True),
    ],
)
def test_the_very_thing_that_was_accepted_for_the_session_is_not_asked_about_again(
    tool: str, first: dict[str, Any], second: dict[str, Any], asked_again: bool
) -> None:
    claude = working()
    feed(claude, asks(tool, first))
    claude.answer("q2-1", Reply(decision=Decision.ACCEPT_FOR_SESSION))
    steps = feed(claude, asks(tool, second, id="r2", tool_use_id="t2"))
    assert ("interaction.requested" in [kind for kind, _ in emitted(steps)]) is asked_again
    assert [each["behavior"] for each in answered(steps)] == ([] if asked_again else ["allow"])


def test_what_was_accepted_once_is_asked_about_again() -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}))
    claude.answer("q2-1", Reply(decision=Decision.ACCEPT))
    assert answered(feed(claude, asks("Bash", {"command": "ls"}, id="r2", tool_use_id="t2"))) == []


def test_a_question_the_engine_takes_back_is_withdrawn_unless_we_are_stopping() -> None:
    back = {"type": "control_cancel_request", "request_id": "r1"}
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}))
    assert emitted(feed(claude, back)) == [("interaction.resolved", {"questionId": "q2-1", "how": "withdrawn"})]
    with pytest.raises(RunyardError, match="conflict"):
        claude.answer("q2-1", Reply(decision=Decision.ACCEPT))
    stopping = working()
    feed(stopping, asks("Bash", {"command": "ls"}))
    stopping.interrupt()
    assert emitted(feed(stopping, back)) == []


def test_a_question_asked_anew_under_the_id_of_an_open_one_takes_its_place() -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}))
    again = emitted(feed(claude, asks("AskUserQuestion", {"questions": [TABS]}, tool_use_id="t2")))
    assert again[0] == ("interaction.resolved", {"questionId": "q2-1", "how": "withdrawn"})
    assert (again[1][0], again[1][1]["questionId"]) == ("interaction.requested", "q2-2")
    with pytest.raises(RunyardError, match="conflict"):
        claude.answer("q2-1", Reply(decision=Decision.ACCEPT))
    [said] = answered(claude.answer("q2-2", Reply(answer="Tabs")))
    assert said["updatedInput"]["answers"] == {"Tabs or spaces?": "Tabs"}


@pytest.mark.parametrize("subtype", ["elicitation", "hook_callback", "something_new"])
def test_a_request_nobody_can_be_asked_about_is_refused_and_told(subtype: str) -> None:
    steps = feed(working(), {"type": "control_request", "request_id": "r1", "request": {"subtype": subtype}})
    assert answered(steps) == [{"subtype": "error", "request_id": "r1", "error": f"{subtype} is not supported here"}]
    assert [(kind, data["code"]) for kind, data in emitted(steps)] == [("diagnostic", "request_refused")]


def test_a_request_we_cannot_read_is_answered_too() -> None:
    steps = feed(working(), {"type": "control_request", "request_id": "r1", "request": {"subtype": "can_use_tool", "input": 3}})
    assert answered(steps)[0]["subtype"] == "error"
    assert emitted(steps)[0][1]["code"] == "undecodable_line"


# ---- the engine mode ----


@pytest.mark.parametrize(
    ("mode", "behavior"),
    [
        (EngineMode.PLAN, "deny"),
        (EngineMode.READ_ONLY, "deny"),
        (EngineMode.ASK, None),
        (EngineMode.AUTO_EDIT, None),
        (EngineMode.FULL, "allow"),
    ],
)
def test_an_engine_mode_decides_or_leaves_it_to_a_person(mode: EngineMode, behavior: str | None) -> None:
    steps = feed(working(mode), asks("Bash", {"command": "ls"}))
    assert [each["behavior"] for each in answered(steps)] == ([] if behavior is None else [behavior])
    assert ("interaction.requested" in [kind for kind, _ in emitted(steps)]) is (behavior is None)


@pytest.mark.parametrize("mode", list(EngineMode))
def test_in_every_mode_a_question_is_a_persons(mode: EngineMode) -> None:
    steps = feed(working(mode), asks("AskUserQuestion", {"questions": [TABS]}))
    assert [kind for kind, _ in emitted(steps)] == ["interaction.requested"]
    assert answered(steps) == []


def test_once_its_plan_is_accepted_a_person_is_asked_about_the_rest() -> None:
    claude = working(EngineMode.PLAN)
    feed(claude, asks("ExitPlanMode", {"plan": "1. look"}))
    [said] = answered(claude.answer("q2-1", Reply(decision=Decision.ACCEPT_FOR_SESSION)))
    assert said["updatedPermissions"] == [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}]
    steps = feed(claude, asks("Bash", {"command": "ls"}, id="r2", tool_use_id="t2"))
    assert emitted(steps)[-1][1]["type"] == "permission"


@pytest.mark.parametrize(("mode", "behavior"), [(EngineMode.READ_ONLY, "deny"), (EngineMode.FULL, "allow")])
def test_where_nobody_decides_about_anything_nobody_decides_about_a_plan(mode: EngineMode, behavior: str) -> None:
    steps = feed(working(mode), asks("ExitPlanMode", {"plan": "1. look"}))
    assert [each["behavior"] for each in answered(steps)] == [behavior]


def test_after_decline_and_stop_nothing_more_is_said_to_it() -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}))
    claude.answer("q2-1", Reply(decision=Decision.DECLINE_AND_STOP))
    assert claude.interrupt() == []
    with pytest.raises(RunyardError, match="conflict"):
        claude.message("go on")


def test_whoever_stops_it_with_a_reply_leaves_no_other_question_open() -> None:
    claude = working()
    feed(claude, asks("Bash", {"command": "ls"}), asks("Bash", {"command": "id"}, id="r2", tool_use_id="t2"))
    steps = claude.answer("q2-1", Reply(decision=Decision.DECLINE_AND_STOP))
    assert [each["behavior"] for each in answered(steps)] == ["deny"]
    assert emitted(steps) == [("interaction.resolved", {"questionId": "q2-2", "how": "withdrawn"})]
    assert feed(claude, {"type": "control_cancel_request", "request_id": "r2"}) == []
    late = asks("Bash", {"command": "who"}, id="r3", tool_use_id="t3")
    told = emitted(feed(claude, late, {"type": "control_cancel_request", "request_id": "r3"}))
    assert told[-1] == ("interaction.resolved", {"questionId": "q2-3", "how": "withdrawn"})


def test_a_plan_that_is_declined_leaves_everything_denied() -> None:
    claude = working(EngineMode.PLAN)
    feed(claude, asks("ExitPlanMode", {"plan": "1. look"}))
    assert answered(claude.answer("q2-1", Reply(answer="look twice"))) == [{"behavior": "deny", "message": "look twice"}]
    [said] = answered(feed(claude, asks("Bash", {"command": "ls"}, id="r2", tool_use_id="t2")))
    assert said["behavior"] == "deny"


# ---- tools ----


def test_an_edit_is_shown_as_the_change_of_a_file() -> None:
    [(kind, started)] = emitted(
        feed(working(), called("t1", "Edit", {"file_path": "/w/a", "old_string": "one\ntwo", "new_string": "one\nthree"}))
    )
    assert (kind, started["name"]) == ("tool.started", "edit")
    [change] = started["input"]["changes"]
    assert (change["path"], change["kind"]) == ("/w/a", "update")
    assert change["diff"].splitlines()[1:] == [" one", "-two", "+three"]


def test_an_edit_shows_every_line_it_changes_also_one_that_begins_like_a_heading() -> None:
    edit = {"file_path": "/w/a.sql", "old_string": "-- old\n++ i", "new_string": "-- new\n++ j"}
    [(_, started)] = emitted(feed(working(), called("t1", "Edit", edit)))
    assert started["input"]["changes"][0]["diff"].splitlines()[1:] == ["--- old", "-++ i", "+-- new", "+++ j"]


def test_edits_too_long_to_be_compared_show_the_old_lines_and_the_new_ones() -> None:
    old, new = "\n".join(f"a{n % 99}" for n in range(600)), "\n".join(f"b{n % 99}" for n in range(600))
    edits = [{"old_string": old, "new_string": new}, {"old_string": new, "new_string": old}]
    [(_, started)] = emitted(feed(working(), called("t1", "MultiEdit", {"file_path": "/w/a", "edits": edits})))
    lines = started["input"]["changes"][0]["diff"].splitlines()
    assert [line[:2] for line in lines] == ["-a"] * 600 + ["+b"] * 600 + ["-b"] * 600 + ["+a"] * 600


def test_edits_of_any_length_hold_nothing_up() -> None:
    letters = [chr(0x21 + at) for at in range(120)]
    old, new = "\n".join(letters * 125), "\n".join([*letters[::-1], "x"] * 124)
    edits = [{"old_string": old, "new_string": new}] * 5
    before = time.process_time()
    feed(working(), asks("MultiEdit", {"file_path": "/w/a", "edits": edits}))
    assert time.process_time() - before < 1


def test_a_tool_that_was_asked_about_first_is_begun_once() -> None:
    claude = working()
    before = emitted(feed(claude, asks("Bash", {"command": "ls"})))
    assert [kind for kind, _ in before] == ["tool.started", "interaction.requested"]
    assert feed(claude, called("t1", "Bash", {"command": "ls"})) == []


@pytest.mark.parametrize(
    ("content", "is_error", "kept", "status", "exit_code"),
    [
        ("files", False, {"stdout": "files"}, "completed", 0),
        ("Exit code 3\nno", True, "Error: Exit code 3", "failed", 3),
        ("Permission denied", True, None, "failed", None),
        ("", False, {"returnCodeInterpretation": "No matches found"}, "completed", None),
    ],
)
def test_a_commands_exit_status_is_told_where_the_engine_tells_it(
    content: str, is_error: bool, kept: Any, status: str, exit_code: int | None
) -> None:
    claude = working()
    feed(claude, called("t1", "Bash", {"command": "ls"}))
    [(_, done)] = emitted(feed(claude, gave("t1", content, is_error, kept)))
    assert (done["status"], done.get("exitCode"), done["output"]) == (status, exit_code, content)


def test_long_output_is_cut_and_says_so() -> None:
    claude = working()
    feed(claude, called("t1", "mcp__own_server__look", {"a": 1}))
    [(_, done)] = emitted(feed(claude, gave("t1", [{"type": "text", "text": "ä" * 50_000}])))
    assert (done["name"], done["truncated"], len(done["output"].encode())) == ("own_server.look", True, 65536)


def test_what_helpers_say_and_do_is_marked_as_theirs_and_never_the_answer() -> None:
    claude = working()
    feed(claude, called("t1", "Task", {"prompt": "help"}))
    thinks = {"type": "assistant", "message": {"id": "h0", "content": [{"type": "thinking", "thinking": "hm"}]}}
    told = emitted(feed(claude, thinks | {"parent_tool_use_id": "t1"}, said("I am a helper", "h1", parent="t1")))
    assert [(kind, data["text"], data["parentToolId"], data.get("final")) for kind, data in told] == [
        ("reasoning.completed", "hm", "t1", None),
        ("message.completed", "I am a helper", "t1", False),
    ]
    deltas = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "helper"}}
    assert feed(claude, {"type": "stream_event", "event": deltas, "parent_tool_use_id": "t1"}) == []
    [(kind, started)] = emitted(feed(claude, called("t2", "Read", {"file_path": "/w/a"}) | {"parent_tool_use_id": "t1"}))
    assert (kind, started["name"], started["parentToolId"]) == ("tool.started", "Read", "t1")
    [(kind, done)] = emitted(feed(claude, gave("t2", "content")))
    assert (kind, done["parentToolId"]) == ("tool.completed", "t1")
    assert "parentToolId" not in str(emitted(feed(claude, said("I am the engine", "m2"), result("I am the engine"))))
    assert claude.ended(0).result == "I am the engine"


def test_two_things_a_helper_says_are_two_messages() -> None:
    claude = working()
    both = emitted(feed(claude, said("one", "h1", parent="t1"), said("two", "h1", parent="t1")))
    assert len({data["messageId"] for _, data in both}) == 2


def test_what_a_helper_asks_for_is_its_call() -> None:
    claude = working()
    begun = {"type": "system", "subtype": "task_started", "task_id": "a1", "tool_use_id": "t0"}
    told = emitted(feed(claude, begun, asks("Bash", {"command": "ls"}, agent_id="a1")))
    assert [(kind, data.get("parentToolId")) for kind, data in told] == [("tool.started", "t0"), ("interaction.requested", None)]
    assert [data["parentToolId"] for _, data in emitted(claude.end_of(STDOUT))] == ["t0"]


def test_why_a_helper_has_no_answer_is_not_why_the_run_has_none() -> None:
    claude = working()
    feed(claude, said("API Error: 529", "h1", parent="t1") | {"error": "rate_limit"})
    feed(claude, result("nothing went well", is_error=True))
    assert claude.ended(0).error_code is ErrorCode.ENGINE_EXIT_NONZERO


def test_tools_that_never_ended_were_canceled() -> None:
    claude = working()
    feed(claude, called("t1", "Bash", {"command": "sleep"}), called("t2", "AskUserQuestion", {"questions": []}))
    told = emitted(claude.end_of(STDOUT))
    assert told == [("tool.completed", {"toolId": "t1", "name": "shell", "status": "canceled"})]


def test_a_todo_list_written_whole_is_a_plan_too() -> None:
    claude = working()
    todos = [{"content": "look", "status": "in_progress", "activeForm": "Looking"}, {"content": "act", "status": "?"}]
    feed(claude, called("t1", "TodoWrite", {"todos": todos}))
    items = [{"text": "look", "status": "in_progress"}, {"text": "act", "status": "pending"}]
    assert emitted(feed(claude, gave("t1", "ok"))) == [("plan.updated", {"items": items})]


@pytest.mark.parametrize(
    ("update", "items"),
    [
        ({"taskId": "1", "status": "completed"}, [{"text": "look", "status": "completed"}]),
        ({"taskId": "1", "subject": "look twice"}, [{"text": "look twice", "status": "pending"}]),
        ({"taskId": "1", "status": "deleted"}, []),
        ({"taskId": "9", "status": "completed"}, None),
        ({"taskId": "1", "description": "more of it"}, None),
    ],
)
def test_a_task_that_changes_changes_the_plan(update: dict[str, str], items: Any) -> None:
    claude = working()
    feed(claude, called("t1", "TaskCreate", {"subject": "look"}), gave("t1", "ok", kept={"task": {"id": "1", "subject": "look"}}))
    feed(claude, called("t2", "TaskUpdate", update))
    told = emitted(feed(claude, gave("t2", "ok", kept={"success": True})))
    assert told == ([] if items is None else [("plan.updated", {"items": items})])
