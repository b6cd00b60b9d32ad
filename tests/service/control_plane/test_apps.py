"""Apps and execution profiles: what a run takes from one, who may name it, and that no credential ever comes out."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from control_plane.domain.app import RegisteredApp
from control_plane.domain.profile import Profile, merged_options
from control_plane.storage.apps import AppStore
from shared.clock import utc_now
from shared.contracts.apps import AppMember, RuntimeDefaults, VisibilityRule
from shared.contracts.precedence import picked
from shared.web import Caller
from tests.service.control_plane.conftest import Replica, Stores
from tests.service.control_plane.fake_manager import FakeManager, Gate

SECRET = "sk-never-shown-again"
SHOP: dict[str, Any] = {
    "appId": "shop", "name": "The shop",
    "runtimeDefaults": {
        "provider": "scripted", "model": "big", "timeoutMs": 90_000, "credentialEnv": {"OPENAI_API_KEY": SECRET},
        "providerOptions": {"baseUrl": "http://127.0.0.1:9", "effort": "low", "idleTimeoutMs": 5_000},
    },
}  # fmt: skip


async def register(replica: Replica, **changes: Any) -> dict[str, Any]:
    answer = await replica.http.post("/api/apps/register", json={**SHOP, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def start_as(replica: Replica, headers: dict[str, str], **request: Any) -> httpx.Response:
    return await replica.http.post("/api/runs/start", json={"prompt": "hi", **request}, headers=headers)


# ---- what a run takes ----


async def test_a_run_takes_provider_model_time_options_and_credentials_from_its_profile(
    replica: Replica, manager: FakeManager
) -> None:
    await register(replica)
    run_id = await replica.start(executionProfile="shop", provider="codex", model="small", providerOptions={"effort": "high"})
    asked = (await manager.begun(run_id)).request
    shown = await replica.show(run_id)
    assert (shown["provider"], shown["model"], shown["sourceRef"]) == ("scripted", "big", "shop")
    assert (asked["provider"], asked["model"]) == ("scripted", "big")
    assert asked["providerOptions"] == {"baseUrl": "http://127.0.0.1:9", "effort": "high"}
    assert asked["credentialEnv"] == {"OPENAI_API_KEY": SECRET}
    assert asked["timeouts"]["appMs"] == 90_000
    assert asked["timeouts"]["idleMs"] == 5_000


async def test_a_changed_profile_leaves_a_run_as_it_was_but_lends_its_new_credentials(
    replica: Replica, manager: FakeManager
) -> None:
    await register(replica)
    gate = Gate()
    manager.moods["propose"].append(gate)
    run_id = await replica.start(executionProfile="shop")
    defaults = {**SHOP["runtimeDefaults"], "model": "other", "credentialEnv": {"OPENAI_API_KEY": "rotated"}}
    await gate.reached.wait()
    await register(replica, runtimeDefaults={**defaults, "providerOptions": {}})
    gate.open.set()
    asked = (await manager.begun(run_id)).request
    assert asked["model"] == "big"
    assert asked["providerOptions"]["effort"] == "low"
    assert asked["credentialEnv"] == {"OPENAI_API_KEY": "rotated"}


async def test_a_run_whose_profile_was_disabled_meanwhile_is_not_started_on_anybody_elses_account(
    replica: Replica, manager: FakeManager
) -> None:
    await register(replica)
    gate = Gate()
    manager.moods["propose"].append(gate)
    run_id = await replica.start(executionProfile="shop")
    await gate.reached.wait()
    await register(replica, enabled=False)
    gate.open.set()
    shown = await replica.until(run_id, "error", "running")
    assert (shown["errorCode"], shown["errorMessage"]) == ("permission_denied", "the execution profile shop is disabled")
    assert manager.attempts(run_id) == []


async def test_a_retry_takes_the_profile_as_it_is_now(replica: Replica, manager: FakeManager) -> None:
    await register(replica)
    run_id = await replica.start(executionProfile="shop")
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    await register(replica, runtimeDefaults={**SHOP["runtimeDefaults"], "model": "bigger"})
    again = (await replica.http.post(f"/api/runs/{run_id}/retry")).json()["runId"]
    assert (await manager.begun(again)).request["model"] == "bigger"


async def test_without_a_profile_nothing_is_taken_even_by_the_apps_own_key(replica: Replica, manager: FakeManager) -> None:
    await register(replica)
    run_id = (await start_as(replica, (await replica.key("shop")).headers, provider="scripted")).json()["runId"]
    asked = (await manager.begun(run_id)).request
    assert asked["credentialEnv"] == {}
    assert "model" not in asked


def test_an_app_stands_above_the_request_for_provider_and_model_and_below_it_for_options() -> None:
    assert picked("provider", app="a", request="r") == "a"
    assert picked("provider", app=None, request="r") == "r"
    assert picked("model", app="a", request="r") == "a"
    assert picked("model", app=None, request=None) is None
    profile = Profile(app_id="x", provider_options={"one": "app", "two": "app"})
    assert merged_options({"two": "request", "three": "request"}, profile) == {"one": "app", "two": "request", "three": "request"}
    assert merged_options({"two": "request"}, None) == {"two": "request"}


# ---- refusals ----


@pytest.mark.parametrize(
    ("defaults", "field"),
    [
        ({"provider": "nobody"}, "runtimeDefaults.provider"),
        ({"timeoutMs": 0}, "runtimeDefaults.timeoutMs"),
        ({"timeoutMs": 86_400_001}, "runtimeDefaults.timeoutMs"),
        ({"credentialEnv": {"HOME": "/"}}, "runtimeDefaults.credentialEnv.HOME"),
        ({"credentialEnv": {"LD_PRELOAD": "x"}}, "runtimeDefaults.credentialEnv.LD_PRELOAD"),
        ({"credentialEnv": {"A": "nul\0"}}, "runtimeDefaults.credentialEnv.A"),
        ({"providerOptions": {"timeoutMs": 5}}, "runtimeDefaults.providerOptions.timeoutMs"),
        ({"providerOptions": {"idleTimeoutMs": "soon"}}, "runtimeDefaults.providerOptions.idleTimeoutMs"),
        ({"surprise": 1}, "runtimeDefaults.surprise"),
    ],
)
async def test_defaults_no_run_could_take_are_refused_by_name_and_change_nothing(
    replica: Replica, defaults: dict[str, Any], field: str
) -> None:
    answer = await replica.http.post("/api/apps/register", json={**SHOP, "runtimeDefaults": defaults})
    assert answer.status_code == 422
    assert field in answer.json()["detail"]
    assert (await replica.http.get("/api/apps/shop")).status_code == 404


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "SHOP_TOKEN"])
async def test_a_request_cannot_replace_a_credential_of_its_profile(replica: Replica, name: str) -> None:
    defaults = {"provider": "scripted", "credentialEnv": {"SHOP_TOKEN": SECRET}}
    await register(replica, runtimeDefaults=defaults)
    answer = await replica.http.post("/api/runs/start", json={"prompt": "hi", "executionProfile": "shop", "env": {name: "mine"}})
    assert answer.status_code == 422
    assert f"env.{name}" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"appId": "."}, {"appId": ".."}, {"name": "a\0b"}, {"members": [{"userId": "a\0"}]},
        {"runtimeDefaults": {"model": "m\0"}}, {"runtimeDefaults": {"providerOptions": {"a": ["\0"]}}},
    ],
)  # fmt: skip
async def test_an_app_nobody_could_fetch_or_take_is_refused(replica: Replica, changes: dict[str, Any]) -> None:
    answer = await replica.http.post("/api/apps/register", json={**SHOP, **changes})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert (await replica.http.get("/api/apps")).json()["items"] == []


@pytest.mark.parametrize("name", ["NODE_OPTIONS", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "BASH_ENV"])
async def test_only_an_operator_sends_an_engines_traffic_elsewhere_or_code_into_it(
    replica: Replica, manager: FakeManager, name: str
) -> None:
    refused = await start_as(replica, (await replica.key("shop")).headers, provider="scripted", env={name: "x"})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    run_id = await replica.start(env={name: "x"})
    assert (await manager.begun(run_id)).request["env"] == {name: "x"}


async def test_only_an_admin_registers_apps(replica: Replica) -> None:
    answer = await replica.http.post("/api/apps/register", json=SHOP, headers=(await replica.key("shop")).headers)
    assert answer.status_code == 403


async def test_a_profile_nobody_registered_is_refused_by_name(replica: Replica) -> None:
    answer = await replica.http.post("/api/runs/start", json={"prompt": "hi", "executionProfile": "ghost"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "executionProfile")


# ---- who may ----


async def test_a_key_takes_its_own_apps_profile_and_does_not_see_anothers(replica: Replica, manager: FakeManager) -> None:
    await register(replica)
    await register(replica, appId="rival", name="A rival")
    mine = (await replica.key("shop")).headers
    started = await start_as(replica, mine, executionProfile="shop")
    assert started.status_code == 202
    await manager.begun(started.json()["runId"])
    hidden = await start_as(replica, mine, executionProfile="rival")
    assert (hidden.status_code, "no such app" in hidden.json()["detail"]) == (422, True)
    assert [each["appId"] for each in (await replica.http.get("/api/apps", headers=mine)).json()["items"]] == ["shop"]
    assert (await replica.http.get("/api/apps/rival", headers=mine)).status_code == 404


@pytest.mark.parametrize("look", [2, 100])
async def test_a_stranger_who_walks_the_apps_meets_none_that_is_hidden(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    monkeypatch.setattr("control_plane.apps._APPS_A_LOOK", look)
    for app_id in ("a-secret", "b-open", "c-secret", "d-secret", "e-secret", "f-open", "g-secret"):
        await register(replica, appId=app_id, visibilityRules=[{"scope": "all"}] if "open" in app_id else [])
    stranger, seen, cursor = (await replica.key("other")).headers, list[str](), ""
    for _ in range(3):
        answer = await replica.http.get("/api/apps", params={"limit": 1, "cursor": cursor}, headers=stranger)
        assert "secret" not in answer.text
        seen += [each["appId"] for each in answer.json()["items"]]
        if (cursor := answer.json()["nextCursor"]) is None:
            break
    assert (seen, cursor) == (["b-open", "f-open"], None)


async def test_a_gateways_key_speaks_for_the_user_it_names_and_another_key_for_nobody(
    replica: Replica, manager: FakeManager
) -> None:
    await register(replica, members=[{"userId": "ann"}, {"userId": "bob", "canUse": False}])
    gateway, plain = (await replica.key("gateway", "act-as")).headers, (await replica.key("plain")).headers
    told = {
        user: await start_as(replica, {**gateway, "x-user-id": user}, executionProfile="shop") for user in ("ann", "bob", "eve")
    }
    assert {user: answer.status_code for user, answer in told.items()} == {"ann": 202, "bob": 403, "eve": 422}
    assert (await start_as(replica, {**plain, "x-user-id": "ann"}, executionProfile="shop")).status_code == 422
    assert (await start_as(replica, {**gateway, "x-user-id": "x" * 200}, executionProfile="shop")).status_code == 422
    await manager.begun(told["ann"].json()["runId"])


async def test_a_disabled_app_lends_nothing_and_its_keys_open_nothing(replica: Replica) -> None:
    await register(replica, enabled=False)
    refused = await replica.http.post("/api/runs/start", json={"prompt": "hi", "executionProfile": "shop"})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert (await replica.http.get("/api/runs", headers=(await replica.key("shop")).headers)).status_code == 403


ANN, OUTSIDER, OWN, ADMIN = (
    Caller(app_id="g", user_id="ann"), Caller(app_id="g"), Caller(app_id="shop"), Caller(admin=True),
)  # fmt: skip
ALL, FOR_ANN = VisibilityRule(scope="all"), VisibilityRule(scope="user", user_id="ann")


@pytest.mark.parametrize(
    ("rules", "members", "sees", "uses"),
    [
        ([], [], {"own", "admin"}, {"own", "admin"}),
        ([ALL], [], {"ann", "outsider", "own", "admin"}, {"ann", "outsider", "own", "admin"}),
        ([FOR_ANN], [], {"ann", "own", "admin"}, {"ann", "own", "admin"}),
        ([ALL], [AppMember(user_id="ann")], {"ann", "outsider", "own", "admin"}, {"ann", "own", "admin"}),
        ([ALL], [AppMember(user_id="ann", can_use=False)], {"ann", "outsider", "own", "admin"}, {"own", "admin"}),
        ([], [AppMember(user_id="ann", can_use=False)], {"ann", "own", "admin"}, {"own", "admin"}),
    ],
)
def test_rules_say_who_sees_an_app_and_members_who_uses_it(
    rules: list[VisibilityRule], members: list[AppMember], sees: set[str], uses: set[str]
) -> None:
    app = RegisteredApp("shop", "Shop", True, rules, members, RuntimeDefaults(), [], utc_now(), utc_now())
    viewers = {"ann": ANN, "outsider": OUTSIDER, "own": OWN, "admin": ADMIN}
    assert {name for name, viewer in viewers.items() if app.visible_to(viewer)} == sees
    assert {name for name, viewer in viewers.items() if app.usable_by(viewer)} == uses


# ---- what comes out ----


async def test_no_credential_comes_out_of_any_answer_event_or_row_of_a_run(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    registered = await register(replica)
    assert registered["runtimeDefaults"]["credentialEnvKeys"] == ["OPENAI_API_KEY"]
    run_id = await replica.start(executionProfile="shop")
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    shown = [
        (await replica.http.get(path)).text
        for path in ("/api/apps", "/api/apps/shop", f"/api/runs/{run_id}", f"/api/runs/{run_id}/events", "/api/runs")
    ]
    for table in ("agent_runs", "run_requests", "run_events", "attempts"):
        shown += [row[0] for row in await stores.pool.fetch(f"SELECT row_to_json(t)::text FROM {table} AS t")]
    assert all(SECRET not in text for text in [str(registered), *shown])
    assert await AppStore(stores.pool).credentials("shop") == {"OPENAI_API_KEY": SECRET}


async def test_a_stranger_who_sees_an_app_does_not_see_its_members_rules_or_options(replica: Replica) -> None:
    await register(replica, visibilityRules=[{"scope": "all"}])
    shown = (await replica.http.get("/api/apps/shop", headers=(await replica.key("other")).headers)).json()
    assert shown["members"] is None
    assert shown["visibilityRules"] is None
    assert shown["runtimeDefaults"]["providerOptions"] == {}


async def test_apps_are_listed_in_pages(replica: Replica) -> None:
    for number in range(5):
        await register(replica, appId=f"app-{number}", name="x")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await replica.http.get("/api/apps", params={"limit": 2, "cursor": cursor})).json()
        seen += [each["appId"] for each in page["items"]]
        cursor = page["nextCursor"]
    assert seen == [f"app-{number}" for number in range(5)]
