"""Typed operations over Starlette: one object makes the route, validates, and appears in the OpenAPI document.

A route file is a function from use cases to ``Operations``. Errors leave as RFC 9457 problems, made here and nowhere else.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shared.contracts.problems import problem_of
from shared.errors import ErrorCode, FieldError, RunyardError, invalid
from shared.settings import LOOPBACK

MAX_BODY_BYTES = 8 * 1024 * 1024
log = structlog.get_logger("web")


class _AnyPath(PathConvertor):
    """``{name:path}`` of a route: a file's name may hold a line break."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyPath())

Access = Literal["key", "service", "open"]
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``app_id`` None with ``admin``: sees everything. A service is an admin without a key.

    ``user_id``: the user a key with the scope ``act-as`` speaks for.
    """

    app_id: str | None = None
    admin: bool = False
    key_id: str | None = None
    scopes: frozenset[str] = frozenset()
    user_id: str | None = None

    def may_see(self, app_id: str | None) -> bool:
        return self.admin or (self.app_id is not None and self.app_id == app_id)


@dataclass(frozen=True, slots=True)
class Call(Generic[Body]):
    """A parsed request: what a handler gets."""

    body: Body
    query: Any
    path: Mapping[str, str]
    caller: Caller
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back; ``status`` None: the operation's own."""

    body: BaseModel | Mapping[str, Any] | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Handler = Callable[[Call[Any]], Awaitable[Answer | Response]]
Guard = Callable[[HTTPConnection], Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``streams``: it may answer ``text/event-stream`` with frames of that model.

    ``raw``: the handler gets the body's bytes, bounded and unread; ``body`` only documents it. ``headers``: what it reads from
    them, by name, each as a JSON Schema. ``also``: further statuses and what they mean: the usual body below 400, else problems,
    but for ``no_problem``.
    """

    method: str
    path: str
    handler: Handler
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    returns: type[BaseModel] | None = None
    streams: type[BaseModel] | None = None
    status: int = 200
    errors: Sequence[ErrorCode] = ()
    also: Mapping[int, str] = field(default_factory=dict[int, str])
    no_problem: frozenset[int] = frozenset()
    headers: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict[str, Mapping[str, str | int]])
    access: Access = "key"
    summary: str = ""
    max_body_bytes: int = MAX_BODY_BYTES
    raw: bool = False


def get(path: str, handler: Handler, **options: Any) -> Operation:
    return Operation("GET", path, handler, **options)


def post(path: str, handler: Handler, **options: Any) -> Operation:
    return Operation("POST", path, handler, **options)


def delete(path: str, handler: Handler, **options: Any) -> Operation:
    return Operation("DELETE", path, handler, **options)


def make_routes(operations: Iterable[Operation], guard: Guard) -> list[BaseRoute]:
    """One Starlette route per path with a table of methods: the first route of a path decides its 405."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(table, guard), methods=list(table)) for path, table in by_path.items()]


def _endpoint(table: Mapping[str, Operation], guard: Guard) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = table["GET" if request.method == "HEAD" and "HEAD" not in table else request.method]
        caller = Caller() if operation.access == "open" else await guard(request)
        if "\0" in request.scope["path"]:
            raise RunyardError(ErrorCode.NOT_FOUND, "there is no such path")
        call: Call[Any] = Call(  # Call[Any](…) would set an attribute on a frozen class
            body=await _body(request, operation),
            query=_query(request, operation),
            path={name: str(value) for name, value in request.path_params.items()},
            caller=caller,
            headers=request.headers,
        )
        answer = await operation.handler(call)
        return answer if isinstance(answer, Response) else _response(answer, operation)

    return endpoint


def _response(answer: Answer, operation: Operation) -> Response:
    status = operation.status if answer.status is None else answer.status
    if isinstance(answer.body, BaseModel):
        content = answer.body.model_dump_json(by_alias=True).encode()
        return Response(content, status, dict(answer.headers), media_type="application/json")
    if answer.body is None:
        return Response(status_code=status, headers=dict(answer.headers))
    return JSONResponse(answer.body, status, dict(answer.headers))


async def _body(request: Request, operation: Operation) -> BaseModel | bytes | None:
    if operation.raw:
        return await _bounded(request, operation.max_body_bytes)
    if operation.body is None:
        return None
    content = await _bounded(request, operation.max_body_bytes)
    try:
        return operation.body.model_validate_json(content or b"{}", strict=True)  # JSON has types: "5" is no number
    except ValidationError as error:
        raise refused(error) from None


async def _bounded(request: Request, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {max_bytes} bytes")
    return bytes(content)


def _query(request: Request, operation: Operation) -> BaseModel | None:
    given = dict(request.query_params)
    for name, value in given.items():
        if "\0" in name + value:
            raise invalid("query", "a NUL character names nothing")
    if operation.query is None:
        if given:
            raise invalid(f"query.{next(iter(given))}"[:80], "this operation takes no such parameter")
        return None
    try:
        return operation.query.model_validate(given)
    except ValidationError as error:
        raise refused(error, "query.") from None


def refused(error: ValidationError, prefix: str = "") -> RunyardError:
    """A validation error as ours: fields and reasons only; the input itself may be a secret and is left out."""
    fields = tuple(
        FieldError(prefix + (".".join(str(part) for part in each["loc"]) or "body"), each["msg"]) for each in error.errors()
    )
    return RunyardError(ErrorCode.INVALID_REQUEST, "; ".join(f"{each.field}: {each.message}" for each in fields[:5]), fields)


def on_error(_request: Any, error: Exception) -> Response:
    """The one place where an error becomes an answer."""
    match error:
        case RunyardError():
            ours = error
        case HTTPException(status_code=404):
            ours = RunyardError(ErrorCode.NOT_FOUND, "there is no such path")
        case HTTPException(status_code=405):
            return _problem(RunyardError(ErrorCode.INVALID_REQUEST, "the path does not take this method"), error.headers, 405)
        case _:
            log.error("request.failed", error=type(error).__name__, exc_info=error)
            ours = RunyardError(ErrorCode.INTERNAL)
    return _problem(ours)


def _problem(error: RunyardError, headers: Mapping[str, str] | None = None, status: int | None = None) -> Response:
    body = problem_of(error)
    if status is not None:
        body["status"] = status
    extra = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    if error.code is ErrorCode.UNAUTHORIZED:
        extra["www-authenticate"] = "Bearer"
    return JSONResponse(body, body["status"], {**(headers or {}), **extra}, media_type="application/problem+json")


def _left(_request: Any, _error: Exception) -> Response:
    """A caller that broke off in the middle of its body: nobody reads this."""
    return Response(status_code=400)


EXCEPTION_HANDLERS: Mapping[Any, Any] = {
    RunyardError: on_error, HTTPException: on_error, ClientDisconnect: _left, Exception: on_error,
}  # fmt: skip


def bearer(connection: HTTPConnection) -> str | None:
    """The token of ``Authorization: Bearer …``, or None."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def refuse_foreign_pages(connection: HTTPConnection) -> None:
    """For where no key is asked for: a page of the web must not act through its reader's browser, whatever name it gave us.

    Raises ``permission_denied`` for an ``Origin`` or ``Host`` beyond this machine.
    """
    named = {"Origin": connection.headers.get("origin"), "Host": connection.headers.get("host")}
    for name, value in named.items():
        if value is not None and _host_of(value) not in LOOPBACK:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"without a key, {name} must be this machine (RUNYARD_AUTH=off)")


def _host_of(value: str) -> str | None:
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:
        return None


def service_guard(token: str | None) -> Guard:
    """Only callers with the service token; None: everyone (loopback development)."""

    async def guard(connection: HTTPConnection) -> Caller:
        if token is None:
            refuse_foreign_pages(connection)
        else:
            given = bearer(connection)
            if given is None or not hmac.compare_digest(given.encode(), token.encode()):
                raise RunyardError(ErrorCode.UNAUTHORIZED, "this service takes calls with the service token only")
        return Caller(admin=True)

    return guard
