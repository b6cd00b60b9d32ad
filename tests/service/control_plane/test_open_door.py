"""Without authentication everybody on this machine is the operator, and a page of the web is nobody."""

from __future__ import annotations

import pytest

from tests.service.control_plane.conftest import replica_at

START = {"provider": "scripted", "prompt": "hi", "engineMode": "full"}


@pytest.mark.parametrize(
    "foreign",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example:3000"}, {"host": "[::1"}],
)
async def test_a_page_of_the_web_starts_nothing_where_no_key_is_asked_for(
    database: str, manager_url: str, foreign: dict[str, str]
) -> None:
    async with replica_at(database, manager_url, auth="off") as replica:
        headers = {"content-type": "text/plain", **foreign}
        refused = await replica.http.post("/api/runs/start", json=START, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        assert (await replica.http.get("/api/runs", headers=foreign)).status_code == 403
        assert (await replica.http.get("/api/runs")).json()["items"] == []


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000"])
async def test_a_page_of_this_machine_is_the_operators(database: str, manager_url: str, origin: str) -> None:
    async with replica_at(database, manager_url, auth="off") as replica:
        assert (await replica.http.get("/api/runs", headers={"origin": origin})).status_code == 200
