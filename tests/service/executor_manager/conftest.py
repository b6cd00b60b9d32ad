"""A manager in front of two fake executors, all on real loopback servers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from pydantic import SecretStr

from executor_manager.app import build_app
from executor_manager.settings import Settings
from shared.http import ServiceClient
from shared.server import Stopping
from shared.upstream import Upstream, open_stream
from tests.fake_executor import FakeExecutor
from tests.loopback import serving, until

TOKEN = "service-token-of-this-test"


@dataclass
class Stack:
    """``one`` and ``two`` are the executors behind the manager at ``url``."""

    url: str
    one: FakeExecutor
    two: FakeExecutor
    http: httpx.AsyncClient

    async def follow(self, run_id: str, query: str = "?executor=one", **headers: str) -> Upstream:
        address = f"{self.url}/api/provider-runs/{run_id}/stream{query}"
        return await open_stream(address, {"authorization": f"Bearer {TOKEN}", **headers}, 5.0)


@asynccontextmanager
async def manager(*executors: str, stopping: Stopping | None = None) -> AsyncGenerator[tuple[str, httpx.AsyncClient]]:
    settings = Settings(service_token=SecretStr(TOKEN), executors=list(executors))
    async with serving(build_app(settings, stopping=stopping)) as url:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as http:
            yield url, http


@pytest.fixture
async def client():
    client = ServiceClient("", "t")
    yield client
    await client.close()


@pytest.fixture
async def stack():
    one, two = FakeExecutor("one"), FakeExecutor("two")
    async with (
        serving(one.app()) as first,
        serving(two.app()) as second,
        manager(first, second) as (url, http),
    ):
        await until(lambda: one.polls > 0 and two.polls > 0)
        yield Stack(url, one, two, http)
