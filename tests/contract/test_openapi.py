"""The API's description is valid, whole, and says what the code does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from control_plane.app import build_app
from control_plane.settings import Settings
from shared.contracts.events import PAYLOADS, Kind

SETTINGS = Settings.model_validate(
    {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "RUNYARD_SERVICE_TOKEN": "t", "RUNYARD_ADMIN_KEY": "k"}
)


@pytest.fixture
async def described() -> dict[str, Any]:
    """The document, asked of an app that was built and never connected."""
    app = build_app(SETTINGS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return (await client.get("/openapi.json")).json()


async def test_the_document_is_valid_openapi(described: dict[str, Any]) -> None:
    validate(described)
    assert described["openapi"].startswith("3.1")


async def test_every_route_of_the_api_is_described(described: dict[str, Any]) -> None:
    app = build_app(SETTINGS)
    routed = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path not in ("/", "/openapi.json")
    }
    written = {(path, method.upper()) for path, methods in described["paths"].items() for method in methods}
    assert written == routed


async def test_every_event_payload_is_described(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for kind in Kind:
        assert PAYLOADS[kind].__name__ in schemas


async def test_a_request_says_that_it_takes_nothing_unknown(described: dict[str, Any]) -> None:
    assert described["components"]["schemas"]["StartRun"]["additionalProperties"] is False
    assert "sessionId" in described["components"]["schemas"]["StartRun"]["properties"]


async def test_streams_and_problems_stand_beside_their_answers(described: dict[str, Any]) -> None:
    start = described["paths"]["/api/runs/start"]["post"]["responses"]
    assert set(start["202"]["content"]) == {"application/json", "text/event-stream"}
    for status in ("401", "413", "422", "429", "503"):
        assert "application/problem+json" in start[status]["content"]
