"""API keys: made, shown without their secret, and revoked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.control_plane.conftest import Replica


async def test_an_operator_sees_whose_keys_there_are_and_never_a_key(replica: Replica) -> None:
    key_id, headers = await replica.key("shop", "act-as", name="checkout")
    answer = await replica.http.get("/api/keys")
    [shown] = answer.json()["items"]
    assert shown.pop("createdAt")
    assert shown == {"keyId": key_id, "appId": "shop", "name": "checkout", "scopes": ["act-as"], "revokedAt": None}
    assert headers["authorization"].rpartition(".")[2] not in answer.text


async def test_keys_come_in_pages_of_one_app_or_of_all(replica: Replica) -> None:
    made = sorted([(await replica.key("shop")).id for _ in range(3)])
    (operators, _), (other, _) = await replica.key(None), await replica.key("bank")

    async def pages(**query: Any) -> list[str]:
        found: list[str] = []
        while True:
            page = (await replica.http.get("/api/keys", params={"limit": 2, **query})).json()
            found += [each["keyId"] for each in page["items"]]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    assert await pages(appId="shop") == made
    assert await pages() == sorted([*made, operators, other])


async def test_a_revoked_key_opens_nothing_and_others_of_its_app_still_do(replica: Replica) -> None:
    (key_id, headers), (_, others) = await replica.key("shop"), await replica.key("shop")
    assert (await replica.http.get("/api/runs", headers=headers)).status_code == 200
    revoked = await replica.http.delete(f"/api/keys/{key_id}")
    assert (revoked.status_code, revoked.json()["keyId"]) == (200, key_id)
    assert (await replica.http.get("/api/runs", headers=headers)).status_code == 401
    assert (await replica.http.get("/api/runs", headers=others)).status_code == 200
    assert (await replica.http.delete(f"/api/keys/{key_id}")).json() == revoked.json(), "again: the same answer, the same time"
    shown = {each["keyId"]: each["revokedAt"] for each in (await replica.http.get("/api/keys")).json()["items"]}
    assert [each is not None for each in (shown.pop(key_id), *shown.values())] == [True, False]


async def test_an_admin_key_that_was_made_can_be_revoked_too(replica: Replica) -> None:
    key_id, headers = await replica.key(None)
    assert (await replica.http.delete(f"/api/keys/{key_id}", headers=headers)).status_code == 200
    assert (await replica.http.get("/api/keys", headers=headers)).status_code == 401


@pytest.mark.parametrize("key_id", ["key_nobody", "%00", "é"])
async def test_a_key_that_never_was_cannot_be_revoked(replica: Replica, key_id: str) -> None:
    assert (await replica.http.delete(f"/api/keys/{key_id}")).status_code == 404


async def test_an_app_neither_sees_nor_revokes_keys(replica: Replica) -> None:
    key_id, headers = await replica.key("shop")
    assert (await replica.http.get("/api/keys", headers=headers)).status_code == 403
    assert (await replica.http.delete(f"/api/keys/{key_id}", headers=headers)).status_code == 403
    assert (await replica.http.get("/api/runs", headers=headers)).status_code == 200
