"""``/api/runs/{runId}/files`` and ``/bundle``: what a run left, as bytes. No decisions here."""

from __future__ import annotations

from urllib.parse import quote

from pydantic import Field
from starlette.responses import Response

from control_plane.runs.files import ReadFiles
from shared.contracts.provider_runs import MAX_FILE_CURSOR, WorkspaceFileList
from shared.contracts.wire import Request
from shared.downloads import Download
from shared.errors import ErrorCode
from shared.upstream import Upstream
from shared.web import Call, Operation, get

_PASSED_ON = ("content-type", "content-length")
# What an engine wrote is shown by nobody's browser: it is saved.
_SAVED = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox; default-src 'none'"}


class FilesQuery(Request):
    cursor: str | None = Field(default=None, max_length=MAX_FILE_CURSOR, description="The `nextCursor` of the page before.")


def run_file_routes(read: ReadFiles) -> tuple[Operation, ...]:
    async def files(call: Call[None]) -> Response:
        page = await read(call.path["run_id"], "files", call.caller, call.query.cursor)
        return _relayed(page, {"cache-control": "no-store"})

    async def file(call: Call[None]) -> Response:
        path = call.path["path"]
        upstream = await read(call.path["run_id"], f"files/{quote(path, safe='/')}", call.caller)
        return _relayed(upstream, _SAVED | _named(path.rpartition("/")[2]))

    async def bundle(call: Call[None]) -> Response:
        run_id = call.path["run_id"]
        return _relayed(await read(run_id, "bundle", call.caller), _SAVED | _named(f"{run_id}.zip"))

    one, e = "/api/runs/{run_id}", ErrorCode
    missing = (e.NOT_FOUND, e.PROVIDER_UNAVAILABLE)
    return (
        get(f"{one}/files", files, query=FilesQuery, returns=WorkspaceFileList, errors=(*missing, e.INVALID_REQUEST),
            summary="The plain files of the run's workspace"),
        get(f"{one}/files/{{path:path}}", file, errors=(*missing, e.INVALID_REQUEST), summary="One file, its secrets starred"),
        get(f"{one}/bundle", bundle, errors=(*missing, e.PAYLOAD_TOO_LARGE), summary="All files in one zip, secrets starred"),
    )  # fmt: skip


def _relayed(upstream: Upstream, headers: dict[str, str]) -> Response:
    given = {name: upstream.headers[name] for name in _PASSED_ON if name in upstream.headers}
    return Download(upstream, given | headers)


def _named(name: str) -> dict[str, str]:
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
