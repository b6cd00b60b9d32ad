"""An app and an operator in one workspace: neither is in the other's way, and the app learns nothing of what it may not see."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.service.control_plane.conftest import Replica
from tests.service.control_plane.fake_manager import FakeManager

OPERATOR: dict[str, str] = {}


async def app_key(replica: Replica, app_id: str) -> dict[str, str]:
    """The headers of a new app."""
    await replica.http.post("/api/apps/register", json={"appId": app_id, "name": app_id})
    return (await replica.key(app_id)).headers


async def ask(replica: Replica, headers: dict[str, str], **request: Any) -> httpx.Response:
    body = {"provider": "scripted", "prompt": "hi", **request}
    return await replica.http.post("/api/runs/start", json=body, headers=headers)


async def finished(replica: Replica, manager: FakeManager, headers: dict[str, str], engine_session: str, **request: Any) -> str:
    """A run that is over and left an engine session."""
    answer = await ask(replica, headers, **request)
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["runId"]
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": engine_session})
    attempt.end()
    await replica.until(run_id, "success")
    return run_id


async def test_an_app_goes_on_with_its_engine_session_after_an_operator_did(replica: Replica, manager: FakeManager) -> None:
    shop, bank = [await app_key(replica, app_id) for app_id in ("shop", "bank")]
    origin = await finished(replica, manager, shop, "e-0")
    await finished(replica, manager, OPERATOR, "e-0", resumeRunId=origin)
    assert (await ask(replica, bank, resumeSessionId="e-0")).json()["code"] == "invalid_request"
    answer = await ask(replica, shop, resumeSessionId="e-0")
    assert answer.status_code == 202, answer.text
    attempt = await manager.begun(answer.json()["runId"])
    assert attempt.request["workspace"]["key"] == origin


async def test_an_operator_goes_on_with_any_engine_session(replica: Replica, manager: FakeManager) -> None:
    origin = await finished(replica, manager, await app_key(replica, "shop"), "e-0")
    answer = await ask(replica, OPERATOR, resumeSessionId="e-0")
    assert (await manager.begun(answer.json()["runId"])).request["workspace"]["key"] == origin


@pytest.mark.parametrize("named", ["resumeRunId", "resumeSessionId"])
async def test_an_operator_takes_up_an_apps_run_and_leaves_the_session_to_the_app(
    replica: Replica, manager: FakeManager, named: str
) -> None:
    origin = await finished(replica, manager, await app_key(replica, "shop"), "e-0", sessionId="s")
    await finished(replica, manager, OPERATOR, "e-1", sessionId="s")  # a session of that name of its own
    answer = await ask(replica, OPERATOR, **{named: origin if named == "resumeRunId" else "e-0"})
    assert answer.status_code == 202, answer.text
    shown = await replica.show(answer.json()["runId"])
    assert shown["sessionId"] is None


async def test_an_app_whose_workspace_an_operator_works_in_is_refused_without_the_operators_run(
    replica: Replica, manager: FakeManager
) -> None:
    shop = await app_key(replica, "shop")
    origin = await finished(replica, manager, shop, "e-0", sessionId="s")
    theirs = await replica.start(resumeRunId=origin)
    await manager.begun(theirs)
    answer = await ask(replica, shop, sessionId="s", onSessionBusy="reject")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["sessionId"]) == (409, "session_busy", "s")
    assert theirs not in answer.text
    assert "runId" not in problem
    assert problem["detail"]


async def test_an_operator_is_told_which_run_of_an_app_is_in_its_way(replica: Replica, manager: FakeManager) -> None:
    shop = await app_key(replica, "shop")
    run_id = (await ask(replica, shop)).json()["runId"]
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-0"})
    await replica.until_so(run_id, lambda shown: shown["resumeSessionId"] == "e-0")
    for headers in (OPERATOR, shop):
        problem = (await ask(replica, headers, resumeRunId=run_id, onSessionBusy="reject")).json()
        assert (problem["code"], problem["runId"]) == ("session_busy", run_id)
