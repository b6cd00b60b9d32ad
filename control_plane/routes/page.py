"""``GET /``: a plain page with the newest runs. It holds no data itself: it asks the API with the key it is given."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response

from shared.web import Call, Operation, get

_PAGE = Path(__file__).with_name("page.html").read_bytes()
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
}


def page_routes() -> tuple[Operation, ...]:
    async def page(_call: Call[None]) -> Response:
        return Response(_PAGE, headers=_HEADERS, media_type="text/html; charset=utf-8")

    return (get("/", page, access="open", summary="A plain page with the newest runs"),)
