"""Each service's description is valid, whole, says what the code does, and is the one that is committed."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from control_plane.views.workbench import FLAT_FRAMES
from scripts.print_openapi import PARTS, SERVICES, document
from shared.contracts.apps import RuntimeDefaults
from shared.contracts.environment import CREDENTIAL_NAMES, may_be_set
from shared.contracts.events import PAYLOADS, Kind
from shared.contracts.runs import StartRun

UNDESCRIBED = {"/", "/openapi.json"}  # the page for people, and the description itself


@pytest.fixture
def described() -> dict[str, Any]:
    return document("control-plane")


@pytest.mark.parametrize("name", PARTS)
def test_the_committed_document_is_what_the_service_says_now(name: str) -> None:
    made, kept = PARTS[name].text(), PARTS[name].path().read_text("utf-8")
    changed = [pair for pair in zip_longest(kept.splitlines(), made.splitlines()) if pair[0] != pair[1]]
    assert changed[:1] == [], (
        f"{PARTS[name].document} is not what the code says (kept, made): run `make docs`, read the diff, commit it"
    )
    assert made == kept


@pytest.mark.parametrize("service", SERVICES)
def test_the_document_is_valid_openapi(service: str) -> None:
    validate(document(service))
    assert document(service)["openapi"].startswith("3.1")


@pytest.mark.parametrize("service", SERVICES)
async def test_every_route_is_described(service: str, tmp_path: Path) -> None:
    routed = {
        (route.path.replace(":path}", "}"), method)
        for route in SERVICES[service](tmp_path).routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path not in UNDESCRIBED
    }
    written = {(path, method.upper()) for path, methods in document(service)["paths"].items() for method in methods}
    assert written == routed


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_says_what_it_is_for(service: str) -> None:
    operations = [each for methods in document(service)["paths"].values() for each in methods.values()]
    assert [each["operationId"] for each in operations if not each["summary"]] == []
    assert len({each["operationId"] for each in operations}) == len(operations)


@pytest.mark.parametrize("service", SERVICES)
def test_every_event_payload_is_described(service: str) -> None:
    schemas = document(service)["components"]["schemas"]
    for kind in Kind:
        assert PAYLOADS[kind].__name__ in schemas


def test_the_flat_frames_are_described(described: dict[str, Any]) -> None:
    for frame in FLAT_FRAMES:
        assert frame.__name__ in described["components"]["schemas"]


def test_a_request_says_that_it_takes_nothing_unknown(described: dict[str, Any]) -> None:
    assert described["components"]["schemas"]["StartRun"]["additionalProperties"] is False
    assert "sessionId" in described["components"]["schemas"]["StartRun"]["properties"]


def test_a_request_that_takes_one_of_two_fields_says_so(described: dict[str, Any]) -> None:
    for model, names in {"StartRun": ["prompt", "messages"], "RunReply": ["answer", "decision"]}.items():
        assert [each["required"] for each in described["components"]["schemas"][model]["oneOf"]] == [[name] for name in names]


@pytest.mark.parametrize(
    "name", ["A", "PATH", "a.b", "HOME", "HOMES", "TMPDIR", "RUNYARD_X", "LD_PRELOAD", "XLD_", "A=B", "=", ""]
)
def test_the_names_of_variables_are_described_as_they_are_checked(name: str) -> None:
    told = RuntimeDefaults.model_json_schema()["properties"]["credentialEnv"]["propertyNames"]["pattern"]
    assert bool(re.search(told, name)) is may_be_set(name, "")
    for_requests = StartRun.model_json_schema()["properties"]["env"]["propertyNames"]["pattern"]
    assert bool(re.search(for_requests, name)) is may_be_set(name, "")
    assert not any(re.search(for_requests, credential) for credential in CREDENTIAL_NAMES)


@pytest.mark.parametrize("path", ["/readyz", "/health"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_not_ready_says_so_in_its_own_words_not_as_a_problem(service: str, path: str) -> None:
    answers = document(service)["paths"][path]["get"]["responses"]
    assert answers["503"]["content"] == answers["200"]["content"]


def test_what_an_operation_reads_from_headers_is_described(described: dict[str, Any]) -> None:
    def headers(path: str, method: str) -> list[str]:
        return [each["name"] for each in described["paths"][path][method]["parameters"] if each["in"] == "header"]

    assert headers("/api/runs/{run_id}/messages", "post") == headers("/api/runs/start", "post")
    assert headers("/api/runs/start", "post") == headers("/api/runs/{run_id}/retry", "post") == ["Idempotency-Key"]
    assert headers("/api/runs/{run_id}/stream", "get") == ["Last-Event-ID"]


def test_streams_and_problems_stand_beside_their_answers(described: dict[str, Any]) -> None:
    start = described["paths"]["/api/runs/start"]["post"]["responses"]
    assert start["200"]["content"] == start["202"]["content"]
    assert set(start["202"]["content"]) == {"application/json", "text/event-stream"}
    for status in ("401", "413", "422", "429", "503"):
        assert "application/problem+json" in start[status]["content"]
