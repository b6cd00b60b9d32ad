"""Tool servers are given to every engine in one form, and read in one place."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.base import StartRequest
from executor.adapters.mcp_servers import MAX_SERVERS, McpServer, mcp_servers
from shared.contracts.provider_runs import Message
from shared.errors import ErrorCode, RunyardError


def read(servers: Any) -> list[McpServer]:
    options = {} if servers is None else {"mcpServers": servers}
    return mcp_servers(
        StartRequest(
            run_id="r", attempt=1, executable="/e", home="/h", workspace="/w", messages=[Message(content="hi")],
            provider_options=options,
        )
    )  # fmt: skip


def test_a_program_and_a_server_are_read() -> None:
    program = {"command": "/bin/own", "args": ["-x", 1], "env": {"A": 1}}
    assert read({"own": program, "far": {"url": "https://far.test"}, "old": {"url": "https://old.test", "type": "sse"}}) == [
        McpServer("own", "stdio", "/bin/own", ["-x", "1"], {"A": "1"}),
        McpServer("far", "http", url="https://far.test"),
        McpServer("old", "sse", url="https://old.test"),
    ]
    assert read(None) == read({}) == []


@pytest.mark.parametrize("servers", [
    [], {"a": 1}, {"a": {}}, {"a": {"args": []}}, {"a": {"command": 1}}, {"a": {"command": "x", "args": "y"}}, {"a": {"url": 1}},
    {"a": {"url": "https://x", "type": "carrier pigeon"}}, {"a": {"command": "x", "env": []}},
    {"a": {"url": "https://x", "headersHelper": "/bin/sh"}}, {str(at): {"command": "x"} for at in range(MAX_SERVERS + 1)},
])  # fmt: skip
def test_what_is_no_tool_server_is_refused(servers: Any) -> None:
    with pytest.raises(RunyardError) as refused:
        read(servers)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
