"""The OpenAPI 3.1 document, built from the same objects that route and validate. It cannot say what the code does not do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.contracts.problems import Problem
from shared.errors import ERRORS, ErrorCode
from shared.web import Operation

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def document(title: str, version: str, operations: Sequence[Operation], more: Iterable[type[BaseModel]] = ()) -> dict[str, Any]:
    """``more``: models that no operation names, such as the payloads of streamed events."""
    models = {Problem, *more}
    for each in operations:
        models |= {model for model in (each.body, each.query, each.returns, each.streams) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    # What is sent to us is described by what validates it, what we send by what serialises it.
    bodies = {each.body for each in operations} | {each.query for each in operations}
    wanted = [(model, "validation" if model in bodies else "serialization") for model in ordered]
    refs, schemas = models_json_schema(wanted, by_alias=True, ref_template=_REF)  # pyright: ignore[reportArgumentType]
    by_model = {model: schema for (model, _), schema in refs.items()}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(_PARAMETER.sub(r"{\1}", each.path), {})[each.method.lower()] = _operation(
            each, by_model, schemas.get("$defs", {})
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, refs: dict[Any, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', operation.path)}".rstrip("_"),
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation, refs, definitions),
            *_header_parameters(operation),
        ],
        "responses": _responses(operation, refs),
        "security": [] if operation.access == "open" else [{"key": []}],
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": refs[operation.body]}}}
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation, refs: dict[Any, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = definitions[refs[operation.query]["$ref"].rsplit("/", 1)[1]]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": each}
        for name, each in schema["properties"].items()
    ]


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string", **schema}}
        for name, schema in operation.headers.items()
    ]


def _responses(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.returns is not None:
        content["application/json"] = {"schema": refs[operation.returns]}
    if operation.streams is not None:
        content["text/event-stream"] = {"schema": refs[operation.streams]}
    answers: dict[str, Any] = {str(operation.status): {"description": "Done.", "content": content}}
    problem = {"application/problem+json": {"schema": refs[Problem]}}
    for status, meaning in operation.also.items():
        answers[str(status)] = {
            "description": meaning,
            "content": content if status < 400 or status in operation.no_problem else problem,
        }
    for code in (*_implied(operation), *operation.errors):
        row = ERRORS[code]
        if row.status in operation.no_problem:
            continue
        answers.setdefault(str(row.status), {"description": "", "content": problem})
        described = answers[str(row.status)]["description"]
        answers[str(row.status)]["description"] = f"{described}; {row.title}" if described else row.title
    return answers


def _implied(operation: Operation) -> list[ErrorCode]:
    """What any operation of that kind may answer."""
    implied = [ErrorCode.INVALID_REQUEST, ErrorCode.STORAGE_UNAVAILABLE]
    if operation.access != "open":
        implied.append(ErrorCode.UNAUTHORIZED)
    if operation.body is not None:
        implied.append(ErrorCode.PAYLOAD_TOO_LARGE)
    return implied
