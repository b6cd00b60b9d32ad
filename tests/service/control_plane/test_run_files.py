"""What a run left, relayed: the right executor is asked, nothing is changed on the way, and what is gone says so."""

from __future__ import annotations

import pytest

from shared.errors import ErrorCode
from tests.service.control_plane.conftest import Replica
from tests.service.control_plane.fake_manager import FakeManager, refuse

PATHS = ["files", "files/a%20b/%C3%BC.txt", "files/two%0Alines%0A", "bundle"]


async def ended(replica: Replica, manager: FakeManager, **request: str) -> str:
    run_id = await replica.start(**request)
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    return run_id


@pytest.mark.parametrize("path", PATHS)
async def test_files_come_from_the_executor_that_holds_the_workspace(replica: Replica, manager: FakeManager, path: str) -> None:
    run_id = await ended(replica, manager)
    answer = await replica.http.get(f"/api/runs/{run_id}/{path}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["path"] == f"/api/provider-runs/{run_id}/{path}"
    holder = next(each.executor_id for each in manager.executors.values() if each.attempts)
    assert answer.json()["query"] == {"executor": holder, "workspace": run_id}
    assert "x-own" not in answer.headers
    if path != "files":
        assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_workspace_of_a_session_is_named_by_its_key(replica: Replica, manager: FakeManager) -> None:
    run_id = await ended(replica, manager, sessionId="s")
    answer = await replica.http.get(f"/api/runs/{run_id}/files")
    assert answer.json()["query"]["workspace"].startswith("ses_")


async def test_the_next_page_of_files_is_asked_for_by_its_cursor(replica: Replica, manager: FakeManager) -> None:
    run_id = await ended(replica, manager)
    answer = await replica.http.get(f"/api/runs/{run_id}/files", params={"cursor": "bWFueS8x_-=="})
    assert answer.json()["query"]["cursor"] == "bWFueS8x_-=="


async def test_a_run_that_no_executor_took_has_no_files(replica: Replica, manager: FakeManager) -> None:
    manager.executors.clear()
    run_id = await replica.start()
    answer = await replica.http.get(f"/api/runs/{run_id}/bundle")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "no executor has taken it" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("code", "sent", "status", "says"),
    [
        (ErrorCode.NOT_FOUND, False, 404, "the executor that held its files is gone"),
        (ErrorCode.NOT_FOUND, None, 404, "as scripted"),
        (ErrorCode.PROVIDER_UNAVAILABLE, False, 503, "as scripted"),
        (ErrorCode.PAYLOAD_TOO_LARGE, None, 413, "as scripted"),
        (ErrorCode.INVALID_REQUEST, None, 422, "as scripted"),
    ],
)
async def test_what_cannot_be_had_says_why(
    replica: Replica, manager: FakeManager, code: ErrorCode, sent: bool | None, status: int, says: str
) -> None:
    run_id = await ended(replica, manager)
    manager.moods["files"].append(refuse(code, **({} if sent is None else {"sent": sent})))
    answer = await replica.http.get(f"/api/runs/{run_id}/files/x")
    assert (answer.status_code, answer.json()["detail"]) == (status, says)
    assert "sent" not in answer.json()


@pytest.mark.parametrize("path", PATHS)
async def test_another_apps_files_are_not_found(replica: Replica, manager: FakeManager, path: str) -> None:
    _, headers = await replica.key("other")
    run_id = await ended(replica, manager)
    assert (await replica.http.get(f"/api/runs/{run_id}/{path}", headers=headers)).status_code == 404
    assert manager.calls["files"] == 0
