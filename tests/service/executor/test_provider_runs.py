"""Provider runs over HTTP, with real child processes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor.attempts import live_runs, runner
from tests.service.executor.kit import KILLED, Inside, executor_inside, is_running, until
from tests.service.executor.shell_engine import ShellAdapter


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


async def test_a_run_is_told_from_its_start_to_its_end(executor: Inside) -> None:
    await executor.begin("echo session s1; echo say hello; echo done; echo oops >&2")
    events = await executor.events()
    assert [event["executorCursor"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events if event["kind"] != "log"]
    assert kinds == ["attempt.started", "session.started", "message.completed", "attempt.ended"]
    assert events[-1]["data"]["outcome"] == "success"
    assert events[-1]["data"]["stderrTail"] == "oops\n"
    assert events[-1]["data"]["exitCode"] == 0
    assert (await executor.show())["engineSession"] == "s1"


async def test_raw_output_stands_before_the_events_that_point_into_it(executor: Inside) -> None:
    await executor.begin("for i in 1 2 3; do echo say $i; sleep 0.02; done; echo done")
    seen = bytearray()
    for event in await executor.events():
        if event["kind"] == "log":
            assert event["data"]["byteFrom"] == len(seen)
            seen += base64.b64decode(event["data"]["base64"])
        if reference := event.get("rawRef"):
            assert seen[reference["byteFrom"] : reference["byteTo"]].decode() == f"say {event['data']['text']}"
    assert seen == b"say 1\nsay 2\nsay 3\ndone\n"


async def test_a_repeated_start_answers_the_same_and_starts_nothing(executor: Inside) -> None:
    answers = await asyncio.gather(*(executor.start("echo $$ >> pids; echo done") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["instance"] for answer in answers}) == 1
    await executor.ended()
    assert (await executor.start("echo $$ >> pids; echo done")).status_code == 200
    pids = await executor.http.get("/provider-runs/run_1/files/pids")
    assert len(pids.text.split()) == 1


@pytest.mark.parametrize("resume_from", range(5))
async def test_a_reader_resumes_from_any_cursor_and_misses_nothing(executor: Inside, resume_from: int) -> None:
    await executor.begin("echo say 1; sleep 0.1; echo say 2; sleep 0.1; echo say 3; echo done")
    await until(lambda: executor.app.runs.find("run_1", 1).journal.count >= resume_from)
    following = await executor.frames(cursor=resume_from)
    replayed = await executor.frames()
    assert following == replayed[resume_from:]


async def test_a_cursor_that_is_no_number_or_beyond_the_log_is_refused(executor: Inside) -> None:
    await executor.begin("echo done")
    await executor.ended()
    for given, status in (("x", 422), ("-1", 422), ("9" * 30, 422), ("99", 409)):
        assert (await executor.http.get("/provider-runs/run_1/stream", params={"cursor": given})).status_code == status
    header = {"last-event-id": "99"}
    assert (await executor.http.get("/provider-runs/run_1/stream?cursor=1", headers=header)).status_code == 409


async def test_a_stop_ends_a_hanging_engine_as_canceled(executor: Inside) -> None:
    await executor.begin("echo say up; sleep 300")
    await executor.said("up")
    pid = (await executor.show())["pid"]
    await executor.stop()
    await executor.stop()
    ended = await executor.ended()
    assert (ended["outcome"], ended["errorCode"], ended["exitCode"]) == ("canceled", "user_canceled", -15)
    assert not is_running(pid)
    assert (await executor.http.post("/provider-runs/run_1/stop")).json()["status"] == "ended"


async def test_an_engine_that_ignores_term_is_killed_after_its_grace(executor: Inside) -> None:
    await executor.begin("trap '' TERM; echo say up; while :; do sleep 0.05; done", timeouts={"stopGraceMs": 300})
    await executor.said("up")
    await executor.stop()
    assert (await executor.ended())["exitCode"] in KILLED


async def test_a_grandchild_in_a_session_of_its_own_goes_with_the_tree(executor: Inside) -> None:
    await executor.begin("setsid sleep 300 & echo say $!; echo done; sleep 300", timeouts={"stopGraceMs": 200})
    grandchild = int(await executor.said(""))
    await executor.stop()
    await executor.ended()
    assert not is_running(grandchild)


async def test_a_grandchild_that_holds_the_pipes_delays_nothing(executor: Inside) -> None:
    await executor.begin("sleep 300 & echo say $!; exit 7")
    ended = await executor.ended()
    assert (ended["errorCode"], ended["exitCode"]) == ("engine_exit_nonzero", 7)
    assert not is_running(int(await executor.said("")))


async def test_an_engine_that_finished_before_the_stop_has_succeeded(executor: Inside) -> None:
    await executor.begin("trap '' TERM; echo say up; echo done; sleep 300", timeouts={"stopGraceMs": 2000})
    await executor.said("up")
    await executor.stop()
    ended = await executor.ended()
    assert ended["outcome"] == "success"
    assert ended["exitCode"] in KILLED


async def test_an_engine_is_asked_to_interrupt_itself_first(executor: Inside) -> None:
    await executor.begin("trap '' TERM; echo say up; read word; echo say got $word", providerOptions={"interrupt": True})
    await executor.said("up")
    await executor.stop()
    events = await executor.events()
    assert "got interrupt" in [event["data"].get("text") for event in events]
    assert (events[-1]["data"]["outcome"], events[-1]["data"]["exitCode"]) == ("canceled", 0)


async def test_an_engine_that_does_not_leave_after_its_work_is_ended(executor: Inside) -> None:
    await executor.begin("echo done; sleep 300", timeouts={"stopGraceMs": 100})
    assert (await executor.ended())["outcome"] == "success"


async def test_the_run_timeout_and_the_idle_timeout_say_which_they_are(executor: Inside) -> None:
    await executor.begin("while :; do echo say x; sleep 0.05; done", "busy", timeouts={"runMs": 400})
    await executor.begin("echo say x; sleep 300", "silent", timeouts={"idleMs": 300})
    busy, silent = await executor.ended("busy"), await executor.ended("silent")
    assert (busy["outcome"], busy["errorCode"]) == ("timeout", "timeout")
    assert (silent["outcome"], silent["errorCode"]) == ("timeout", "idle_timeout")
    assert "message.completed" in silent["errorMessage"]


async def test_time_spent_waiting_for_a_person_is_not_counted(executor: Inside) -> None:
    script = "echo ask q1; read answer; echo say $answer; echo done"
    await executor.begin(script, timeouts={"runMs": 500, "idleMs": 300})
    await executor.events(until="interaction.requested")
    began = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - began > 0.8)
    shown = await executor.show()
    assert shown["openQuestions"] == ["q1"], repr(shown)
    reply = {"questionId": "q1", "answer": "yes"}
    url = "/provider-runs/run_1/human-loop/reply"
    first, again = await executor.http.post(url, json=reply), await executor.http.post(url, json=reply)
    assert (first.json()["duplicate"], again.json()["duplicate"]) == (False, True)
    assert (await executor.http.post(url, json={**reply, "answer": "no"})).status_code == 409
    assert (await executor.http.post(url, json={**reply, "questionId": "q2"})).status_code == 409
    events = await executor.events()
    resolved = [event["data"] for event in events if event["kind"] == "interaction.resolved"]
    assert resolved == [{"questionId": "q1", "how": "answered", "answer": {"answer": "yes"}}]
    assert events[-1]["data"]["outcome"] == "success"
    assert events[-1]["data"]["activeMs"] < 500


async def test_a_question_that_is_open_at_the_end_is_withdrawn_before_it(executor: Inside) -> None:
    await executor.begin("echo ask q1; exit 1")
    events = [event for event in await executor.events() if event["kind"] != "log"]
    assert [event["kind"] for event in events[-2:]] == ["interaction.resolved", "attempt.ended"]
    assert events[-2]["data"]["how"] == "withdrawn"


async def test_a_message_reaches_the_engine_once_however_often_it_is_sent(executor: Inside) -> None:
    await executor.begin("echo say up; read a; echo say $a; read b; echo say $b; echo done")
    await executor.said("up")
    for text in ("one", "one", "two"):
        body = {"messageId": text, "text": text}
        assert (await executor.http.post("/provider-runs/run_1/messages", json=body)).status_code == 200
    texts = [event["data"]["text"] for event in await executor.events() if event["kind"] == "message.completed"]
    assert texts == ["up", "one", "two"]


async def test_a_higher_attempt_ends_the_older_tree_first(executor: Inside) -> None:
    await executor.begin("echo say $$; sleep 300")
    old = int(await executor.said(""))
    await executor.begin(f"kill -0 {old} 2>/dev/null && echo say both; echo done", attempt=2)
    events = await executor.events()
    assert "message.completed" not in [event["kind"] for event in events]
    assert not is_running(old)
    assert (await executor.start("echo", attempt=1)).status_code == 200, "known: the same answer"
    for method, path in (("GET", "stream"), ("POST", "stop"), ("GET", "files")):
        assert (await executor.http.request(method, f"/provider-runs/run_1/{path}?attempt=1")).status_code == 409
    assert (await executor.http.get("/provider-runs/run_1?attempt=3")).status_code == 404


async def test_a_lower_attempt_is_refused(executor: Inside) -> None:
    await executor.begin("echo done", attempt=2)
    assert (await executor.start("echo done", attempt=1)).status_code == 409


async def test_a_stop_that_overtakes_its_start_refuses_it(executor: Inside) -> None:
    stopped = await executor.http.post("/provider-runs/run_1/stop?attempt=1")
    assert stopped.json()["status"] == "remembered"
    assert (await executor.start("echo done")).status_code == 409
    await executor.begin("echo done", attempt=2)


async def test_of_several_stops_that_overtake_their_starts_the_highest_counts(executor: Inside) -> None:
    for number in (3, 1):
        await executor.http.post(f"/provider-runs/run_1/stop?attempt={number}")
    for number in (1, 2, 3):
        assert (await executor.start("echo done", attempt=number)).status_code == 409
    await executor.begin("echo done", attempt=4)


async def test_of_the_starts_it_will_refuse_an_executor_remembers_only_the_last_ones(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_runs, "REMEMBERED_REFUSALS", 3)
    for name in "abcd":
        await executor.stop(name)
    await executor.begin("echo done", "a")
    assert [(await executor.start("echo done", name)).status_code for name in "bcd"] == [409] * 3


async def test_of_the_secrets_of_workspaces_an_executor_remembers_only_the_last_ones(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_runs, "REMEMBERED_SECRETS", 2)
    for name in "abc":
        await executor.begin("echo done", name, credentialEnv={"SHELL_KEY": f"secret-of-{name}"})
        await executor.ended(name)
    known = {name: executor.app.runs.secrets_of(name) for name in "abc"}
    assert known["a"] == ()
    assert all(f"secret-of-{name}" in known[name] for name in "bc")


async def test_a_released_run_is_gone_and_a_late_start_does_not_bring_it_back(executor: Inside) -> None:
    await executor.begin("echo here > left; echo say up; sleep 300")
    await executor.said("up")
    assert (await executor.http.delete("/provider-runs/run_1")).status_code == 409
    await executor.stop()
    await executor.ended()
    assert (await executor.http.delete("/provider-runs/run_1?attempt=1")).status_code == 204
    assert (await executor.http.delete("/provider-runs/run_1?attempt=1")).status_code == 204
    assert (await executor.http.get("/provider-runs/run_1")).status_code == 404
    assert (await executor.start("echo done")).status_code == 409
    await executor.begin("cat left; echo done", "run_2", workspace={"key": "run_1"})
    assert "here " in [event["data"].get("text") for event in await executor.events("run_2")]


async def test_no_run_begins_in_a_workspace_where_an_attempt_of_another_one_lives(executor: Inside, tmp_path: Path) -> None:
    """Also where everybody has given that one up: only the end of its process tree gives the workspace free."""
    until_let_go = "trap '' TERM; echo say up; while [ ! -e go ]; do sleep 0.05; done"
    here: dict[str, Any] = {"workspace": {"key": "ws"}}
    await executor.begin(until_let_go, timeouts={"stopGraceMs": 60_000}, **here)
    await executor.said("up")
    refused = await executor.start("echo done", "run_2", **here)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    await executor.stop()
    assert (await executor.start("echo done", "run_2", **here)).status_code == 409
    await executor.begin("rm go; echo say again; sleep 300", attempt=2, **here)  # the next attempt of its own run
    await executor.begin("echo done", "run_3", workspace={"key": "elsewhere"})
    (tmp_path / "state/workspaces/ws/work/go").touch()
    await executor.said("again")
    assert (await executor.start("echo done", "run_2", **here)).status_code == 409
    await executor.stop()
    await executor.ended()
    await executor.begin("echo done", "run_2", **here)
    assert (await executor.ended("run_2"))["outcome"] == "success"


async def test_a_full_executor_says_so_and_takes_the_next_when_one_has_ended(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", slots=1) as executor:
        await executor.begin("echo say up; sleep 300")
        full = await executor.start("echo done", "run_2")
        assert (full.status_code, full.headers["retry-after"], full.json()["code"]) == (429, "1", "queue_full")
        await executor.begin("echo say up; sleep 300", attempt=2)  # its own slot is its to take over
        await executor.stop()
        await executor.ended()
        await executor.begin("echo done", "run_2")


async def test_what_a_provider_cannot_do_is_refused(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", ShellAdapter()) as executor:
        wishes: tuple[dict[str, Any], ...] = ({"requireHumanLoop": True}, {"resumeSessionId": "s"})
        for more in wishes:
            refused = await executor.start("echo", **more)
            assert (refused.status_code, refused.json()["code"]) == (409, "capability_unavailable")
        assert (await executor.start("echo", provider="claude-code")).status_code == 409


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"providerOptions": {"refuse": True}}, 424),
        ({"providerOptions": {"crash": "start"}}, 500),
        ({"env": {"HOME": "/"}}, 422),
        ({"env": {"RUNYARD_RUN": "x"}}, 422),
        ({"env": {"SHELL_KEY": "x"}}, 422),
        ({"credentialEnv": {"RUNYARD_X": "x"}}, 422),
        ({"workspace": {"key": ".."}}, 422),
        ({"leash": {"instance": "another", "clockMs": 1}}, 409),
        ({"color": "red"}, 422),
    ],
)
async def test_a_refused_start_leaves_nothing(executor: Inside, more: dict[str, Any], status: int) -> None:
    assert (await executor.start("echo", **more)).status_code == status
    assert (await executor.http.get("/provider-runs/run_1")).status_code == 404
    assert (await executor.http.get("/executor")).json()["live"] == 0


@pytest.mark.parametrize("where", ["opened", "feed", "answer", "ended"])
async def test_an_adapter_that_fails_ends_its_attempt_and_nothing_else(executor: Inside, where: str) -> None:
    await executor.begin("echo say up; sleep 0.3; echo done", "other")
    await executor.begin("echo ask q; read x; sleep 300", providerOptions={"crash": where}, timeouts={"idleMs": 60_000})
    if where == "answer":
        await executor.events(until="interaction.requested")
        reply = {"questionId": "q", "answer": "yes"}
        assert (await executor.http.post("/provider-runs/run_1/human-loop/reply", json=reply)).status_code == 500
    if where == "ended":
        await executor.stop()
    events = await executor.events()
    assert "adapter_failed" in [event["data"].get("code") for event in events]
    assert events[-1]["data"]["errorCode"] == ("user_canceled" if where == "ended" else "internal")
    assert (await executor.ended("other"))["outcome"] == "success"


async def test_an_engine_that_cannot_be_started_is_an_error_of_its_attempt(executor: Inside) -> None:
    await executor.begin("echo", providerOptions={"argv": ["/nowhere/engine"]})
    events = await executor.events()
    assert [event["kind"] for event in events] == ["attempt.started", "attempt.ended"]
    assert events[-1]["data"]["errorCode"] == "engine_start_failed"


async def test_a_lower_attempt_is_refused_also_after_a_higher_one_was_released(executor: Inside) -> None:
    await executor.begin("echo done", attempt=2)
    await executor.ended()
    assert (await executor.http.delete("/provider-runs/run_1?attempt=2")).status_code == 204
    assert (await executor.start("echo done", attempt=1)).status_code == 409, "it was delayed on its way"
    await executor.begin("echo done", attempt=3)


async def test_what_was_handed_over_is_a_repeat_also_after_the_end(executor: Inside) -> None:
    await executor.begin("echo ask q1; read answer; read message; echo done")
    await executor.events(until="interaction.requested")
    told = (("human-loop/reply", {"questionId": "q1", "answer": "yes"}), ("messages", {"messageId": "m1", "text": "x"}))
    for path, body in told:
        assert (await executor.http.post(f"/provider-runs/run_1/{path}", json=body)).json()["duplicate"] is False
    await executor.ended()
    for path, body in told:
        again = await executor.http.post(f"/provider-runs/run_1/{path}", json=body)
        assert (again.status_code, again.json().get("duplicate")) == (200, True), path
    for path, body in (("human-loop/reply", {"questionId": "q2", "answer": "a"}), ("messages", {"messageId": "m2", "text": "x"})):
        assert (await executor.http.post(f"/provider-runs/run_1/{path}", json=body)).status_code == 409


@pytest.mark.parametrize("answer", [["yes"], {"a": "yes"}])
async def test_an_answer_that_decides_nothing_is_refused_and_the_permission_stays_open(executor: Inside, answer: object) -> None:
    await executor.begin("echo may p1; read x; echo say $x; echo done")
    await executor.events(until="interaction.requested")
    refused = await executor.http.post("/provider-runs/run_1/human-loop/reply", json={"questionId": "p1", "answer": answer})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "answer")
    taken = await executor.http.post("/provider-runs/run_1/human-loop/reply", json={"questionId": "p1", "answer": "yes"})
    assert taken.status_code == 200
    assert (await executor.ended())["outcome"] == "success"


async def test_an_end_that_cannot_be_made_up_is_told_all_the_same(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: object) -> object:
        raise LookupError

    monkeypatch.setattr(runner, "decided", fails)
    await executor.begin("echo say up; echo done")
    ended = await executor.ended()
    assert (ended["errorCode"], ended["errorMessage"], ended["exitCode"]) == ("internal", "the runner failed", 0)
    assert not executor.app.runs.live()


async def test_files_with_any_name_and_any_depth_can_be_listed(executor: Inside) -> None:
    deep = "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d; i=$((i+1)); done; echo x > bottom"
    await executor.begin(f"printf x > \"$(printf 'caf\\351')\"; echo x > plain; ({deep}); echo done", timeouts={"idleMs": 60_000})
    await executor.ended()
    answer = await executor.http.get("/provider-runs/run_1/files")
    assert answer.status_code == 200
    assert [item["path"] for item in answer.json()["items"]] == ["caf\ufffd", "plain"]
    await executor.begin("rm -rf d; echo done", attempt=2)  # deeper than what clears away after a test can go
    assert (await executor.ended())["outcome"] == "success"


@pytest.mark.parametrize("result", ["deep", "half"])
async def test_a_result_that_is_hard_to_tell_harms_nobody(executor: Inside, result: str, tmp_path: Path) -> None:
    await executor.begin("echo done", providerOptions={"result": result})
    ended = await executor.ended()
    assert ended["outcome"] == "success"
    for path in ("/provider-runs", "/provider-runs/run_1", "/executor"):
        assert (await executor.http.get(path)).status_code == 200
    assert (await executor.show())["ended"]["result"] == ended["result"]
    assert (tmp_path / "state" / "journal" / "run_1" / "1" / "ended.json").exists()
