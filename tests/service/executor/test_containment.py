"""What an engine prints, sees and outlives at the executor: bytes, secrets, its environment, its leash."""

from __future__ import annotations

import asyncio
import errno
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor.app import build_app
from executor.attempts.live_runs import LiveRuns
from executor.attempts.runner import Runner
from executor.processes import procfs
from executor.processes.engine_process import MAX_UNREAD_INPUT_BYTES
from executor.processes.process_tree import Forest
from executor.settings import ExecutorSettings
from shared.clock import monotonic_ms
from tests.service.executor.kit import KILLED, Inside, executor_inside, is_running, suspend, until


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


async def test_a_giant_line_neither_kills_nor_blocks_another_run(executor: Inside) -> None:
    await executor.begin("head -c 33554432 /dev/zero | tr '\\0' x; echo; echo say after; echo done", "big")
    await executor.begin("for i in 1 2 3 4 5; do echo say $i; sleep 0.02; done; echo done", "small")
    assert (await executor.ended("small"))["outcome"] == "success"
    assert (await executor.ended("big"))["outcome"] == "success"
    assert (await executor.show("big"))["lastExecutorCursor"] > 500


async def test_few_long_lines_end_an_attempt_at_the_bytes_they_have(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", output_quota_bytes=1_000_000) as executor:
        await executor.begin("while :; do head -c 50000 /dev/zero | tr '\\0' x; echo; done")
        ended = await executor.ended()
        assert (ended["errorCode"], ended["errorMessage"]) == ("output_limit", "the engine printed more than 1000000 bytes")
        raw = (await executor.http.get("/provider-runs/run_1/logs/stdout")).json()
        assert 900_000 <= raw["totalBytes"] <= 1_000_000


async def test_many_short_lines_end_an_attempt_at_what_they_take_of_the_journal(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", output_quota_bytes=1_000_000) as executor:
        await executor.begin("yes")
        ended = await executor.ended()
        assert ended["errorCode"] == "output_limit"
        told = re.fullmatch(r"the journal grew beyond 4000000 bytes, .*; the engine printed (\d+)", ended["errorMessage"])
        assert told is not None
        assert int(told[1]) < 500_000
        raw = (await executor.http.get("/provider-runs/run_1/logs/stdout?byteFrom=10&byteTo=16")).json()
        assert (raw["text"], raw["byteFrom"], raw["byteTo"]) == ("y\ny\ny\n", 10, 16)
        assert raw["totalBytes"] <= int(told[1])


async def test_an_engine_that_does_not_read_its_input_breaks_the_protocol(executor: Inside) -> None:
    await executor.begin("while :; do echo; sleep 0.05; done", providerOptions={"send": 1_000_000}, timeouts={"idleMs": 500})
    assert (await executor.ended())["errorCode"] == "engine_protocol_error"


async def test_an_engine_that_takes_none_of_much_input_breaks_the_protocol_at_once(executor: Inside) -> None:
    await executor.begin("echo say up; sleep 60", providerOptions={"send": MAX_UNREAD_INPUT_BYTES})
    await executor.said("up")
    await executor.http.post("/provider-runs/run_1/messages", json={"messageId": "m1", "text": "x" * 100_000})
    ended = await executor.ended()
    assert (ended["errorCode"], ended["errorMessage"]) == ("engine_protocol_error", "the engine does not read its input")


async def test_input_given_at_the_start_is_written_whole_and_closed(executor: Inside) -> None:
    await executor.begin("wc -c; echo done", providerOptions={"stdin": "x" * 300_000})
    assert "300000 " in [event["data"].get("text") for event in await executor.events()]


async def test_secrets_are_starred_before_anything_sees_them(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL_KEY", "own-secret-value")
    script = (
        'printf "say own-sec"; sleep 0.1; printf "ret-value\\n"; echo "say $OTHER" | tee /dev/stderr; echo done; printf own-sec'
    )
    await executor.begin(script, credentialEnv={"OTHER": 'quo"ted-secret'})
    frames = await executor.frames()
    raw = b"".join(frame.data for frame in frames)
    texts = [event["data"].get("text") for event in await executor.events()]
    assert "*" * len("own-secret-value") in texts
    assert "*" * len('quo"ted-secret') in texts
    for name in ("stdout", "stderr"):
        logged = (await executor.http.get(f"/provider-runs/run_1/logs/{name}")).text
        assert "own-secret" not in logged
        assert (name == "stdout") == ("done\\nown-sec" in logged), "what only might have become a secret comes in the end"
        assert "ted-secret" not in logged
    assert b"own-secret" not in raw
    assert (await executor.ended())["stderrTail"].startswith("say ****")


async def test_an_engine_sees_its_own_environment_and_nothing_of_ours(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_SERVICE_TOKEN", "service")
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    await executor.begin("env > seen; pwd > where; echo done", env={"COLOR": "red"}, credentialEnv={"OTHER": "o"})
    await executor.ended()
    seen = (await executor.http.get("/provider-runs/run_1/files/seen")).text
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "PATH", "LANG", "TERM", "HOME", "TMPDIR", "COLOR", "OTHER", "RUNYARD_RUN", "RUNYARD_EXECUTOR_MARK",
    } | ({"TZ"} & names)  # fmt: skip
    listed = (await executor.http.get("/provider-runs/run_1/files")).json()["items"]
    assert [item["path"] for item in listed] == ["seen", "where"]


async def test_a_file_is_never_reached_through_a_link(executor: Inside) -> None:
    script = "ln -s /etc/passwd link; ln -s /etc folder; mkfifo pipe; mkdir sub; echo x > sub/x; echo done"
    await executor.begin(script)
    await executor.ended()
    for path in ("link", "folder/passwd", "pipe", "sub", "%2e%2e/home/bin/script.sh", "nothing"):
        answer = await executor.http.get(f"/provider-runs/run_1/files/{path}")
        assert answer.status_code in (404, 422), path
    assert (await executor.http.get("/provider-runs/run_1/files/sub/x")).text == "x\n"


async def test_an_unrenewed_attempt_is_ended_as_lost(executor: Inside) -> None:
    state = (await executor.http.get("/executor")).json()
    short = {"instance": state["instance"], "clockMs": state["clockMs"] - 11_500}
    await executor.begin("trap '' TERM; echo say up; while :; do sleep 0.05; done", leash=short)
    await executor.begin("sleep 1; echo done", "renewed", leash=short)
    quote = {"instance": state["instance"], "clockMs": state["clockMs"]}
    renewal = {"quote": quote, "attempts": [{"runId": "renewed", "attempt": 1}, {"runId": "nobody", "attempt": 1}]}
    answer = (await executor.http.post("/provider-runs/renew", json=renewal)).json()
    assert answer["unknown"] == [{"runId": "nobody", "attempt": 1}]
    ended = await executor.ended()
    assert (ended["outcome"], ended["errorCode"]) == ("lost", "executor_lost")
    assert ended["exitCode"] in KILLED
    assert (await executor.ended("renewed"))["outcome"] == "success"


async def test_a_machine_that_slept_ends_what_it_froze(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    await executor.begin("sleep 300")
    suspend(monkeypatch, 60)
    assert (await executor.ended())["outcome"] == "lost"


@pytest.mark.parametrize("shift", [{"instance": "another"}, {"clockMs": 10**15}])
async def test_a_quote_that_is_not_ours_renews_nothing(executor: Inside, shift: dict[str, object]) -> None:
    state = (await executor.http.get("/executor")).json()
    quote = {"instance": state["instance"], "clockMs": state["clockMs"] - 11_500}
    await executor.begin("sleep 300", leash=quote)
    renewal = {"quote": {**quote, "clockMs": state["clockMs"], **shift}, "attempts": [{"runId": "run_1", "attempt": 1}]}
    assert (await executor.http.post("/provider-runs/renew", json=renewal)).status_code == 200
    assert (await executor.ended())["outcome"] == "lost"


async def test_a_renewal_that_comes_after_the_leash_has_lapsed_revives_nothing(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = LiveRuns.end_lapsed
    monkeypatch.setattr(LiveRuns, "end_lapsed", lambda _runs: None)  # the moment before the next beat, as long as we need it
    state = (await executor.http.get("/executor")).json()
    short = {"instance": state["instance"], "clockMs": state["clockMs"] - 11_800}
    await executor.begin("sleep 300", leash=short)
    (attempt,) = executor.app.runs.live()
    await until(lambda: attempt.leash is not None and attempt.leash.has_lapsed(monotonic_ms()))
    quote = {"instance": state["instance"], "clockMs": (await executor.http.get("/executor")).json()["clockMs"]}
    renewal = {"quote": quote, "attempts": [{"runId": "run_1", "attempt": 1}]}
    assert (await executor.http.post("/provider-runs/renew", json=renewal)).status_code == 200
    act(executor.app.runs)
    assert (await executor.ended())["outcome"] == "lost"


async def test_a_leash_that_was_acted_upon_is_none_the_guard_must_act_upon(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, may_end = Forest.end, asyncio.Event()

    async def slow_end(forest: Forest, *given: Any) -> None:
        await may_end.wait()
        await end(forest, *given)

    monkeypatch.setattr(Forest, "end", slow_end)
    state = (await executor.http.get("/executor")).json()
    await executor.begin("sleep 300", leash={"instance": state["instance"], "clockMs": state["clockMs"] - 11_500})
    (attempt,) = executor.app.runs.live()
    assert attempt.leash is not None
    assert executor.app.runs.earliest_leash_ms() == attempt.leash.until_ms
    await until(lambda: executor.app.runs.earliest_leash_ms() == 0)
    assert attempt.is_live
    may_end.set()
    assert (await executor.ended())["outcome"] == "lost"


async def test_a_stopping_executor_ends_its_attempts_and_says_so(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin("echo say up; sleep 300")
        await executor.said("up")
        reading = asyncio.create_task(executor.events())
        executor.app.asked_to_end(signal.SIGINT)
        last = (await reading)[-1]
        assert (last["data"]["outcome"], last["data"]["errorMessage"]) == ("lost", "the executor is stopping")
        assert (await executor.http.get("/readyz")).status_code == 503
        assert (await executor.start("echo", "run_2")).status_code == 429


async def test_deltas_of_a_message_are_coalesced_and_none_is_lost(executor: Inside) -> None:
    await executor.begin("for i in $(seq 300); do echo delta $i; sleep 0.002; done; echo done")
    events = await executor.events()
    deltas = [event["data"]["text"] for event in events if event["kind"] == "message.delta"]
    assert "".join(deltas) == "".join(str(i) for i in range(1, 301))
    assert len(deltas) < 100
    assert (await executor.show())["lastExecutorCursor"] == len(events)


async def test_the_service_speaks_about_itself(executor: Inside) -> None:
    for path in ("/livez", "/readyz", "/health", "/version", "/metrics", "/providers", "/executor", "/provider-runs"):
        assert (await executor.http.get(path)).status_code == 200, path
    assert (await executor.http.get("/version")).json()["service"] == "executor"


async def test_only_the_service_token_opens_the_door(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", service_token="t0ken", auth="on") as executor:
        assert (await executor.http.get("/provider-runs")).status_code == 401
        assert (await executor.http.get("/provider-runs", headers={"authorization": "Bearer x"})).status_code == 401
        assert (await executor.http.get("/provider-runs", headers={"authorization": "Bearer t0ken"})).status_code == 200
        assert (await executor.http.get("/readyz")).status_code == 200


async def test_a_failure_of_our_own_still_ends_the_attempt_and_its_tree(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_self: Runner, _process: object) -> None:
        raise LookupError

    monkeypatch.setattr(Runner, "_watch", fail)
    await executor.begin("sleep 300")
    ended = await executor.ended()
    assert ended["errorCode"] == "internal"
    assert ended["exitCode"] in KILLED


async def test_an_attempt_whose_tree_cannot_be_looked_at_for_a_while_is_ended_all_the_same(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = procfs.snapshot, 3

    def snapshot() -> dict[int, procfs.Process]:
        nonlocal failures
        if failures and sys._getframe(1).f_code.co_name == "_scan":
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real()

    await executor.begin("echo say up; sleep 300")
    await executor.said("up")
    pid = (await executor.show())["pid"]
    monkeypatch.setattr(procfs, "snapshot", snapshot)
    await executor.stop()
    assert (await executor.ended())["outcome"] == "canceled"
    assert (failures, is_running(pid)) == (0, False)


async def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    ids: list[str] = []
    for _ in range(2):
        async with executor_inside(tmp_path / "state") as executor:
            ids.append((await executor.http.get("/executor")).json()["executorId"])
    assert ids[0] == ids[1]
    async with executor_inside(tmp_path / "state", executor_id="mine") as executor:
        assert (await executor.http.get("/executor")).json()["executorId"] == "mine"


async def test_a_stop_before_the_executor_serves_is_no_error(tmp_path: Path) -> None:
    build_app(ExecutorSettings.model_validate({"state_dir": tmp_path, "auth": "off"})).asked_to_end(signal.SIGINT)
