"""Each service's description is valid, whole, says what the code does, and is the one that is committed."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from control_plane.views.workbench import FLAT_FRAMES
from scripts.print_openapi import PARTS, SERVICES, document
from shared.contracts.events import PAYLOADS, Kind

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


def test_streams_and_problems_stand_beside_their_answers(described: dict[str, Any]) -> None:
    start = described["paths"]["/api/runs/start"]["post"]["responses"]
    assert set(start["202"]["content"]) == {"application/json", "text/event-stream"}
    for status in ("401", "413", "422", "429", "503"):
        assert "application/problem+json" in start[status]["content"]
