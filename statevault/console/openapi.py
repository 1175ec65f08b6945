"""The OpenAPI 3.1 document of the web API. Its schemas are those of the models that make the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from statevault.console.views import ErrorView, ResultView, SaveView, StatusView, SystemView

__all__ = ["openapi_document"]

_SCHEMAS = "#/components/schemas/"
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class _Operation:
    path: str
    method: str
    name: str
    summary: str
    status: int
    view: type[BaseModel] | None
    failures: tuple[int, ...] = ()


_OPERATIONS = (
    _Operation("/api/status", "get", "getStatus", "Where the system is.", 200, StatusView),
    _Operation("/api/pause", "post", "pause", "Pause until resumed.", 200, ResultView, (503,)),
    _Operation("/api/resume", "post", "resume", "Go on.", 200, ResultView, (503,)),
    _Operation("/api/shutdown", "post", "shutdown", "Save the final state and end.", 200, ResultView, (503,)),
    _Operation("/api/save-state", "post", "saveState", "Save; see /api/v1/saves.", 200, ResultView, (503,)),
    _Operation("/api/v1/system", "get", "getSystem", "Steps, saves and states.", 200, SystemView, (503,)),
    _Operation("/api/v1/saves", "post", "createSave", "Save, and get an id to ask how it went.", 202, SaveView, (503,)),
    _Operation("/api/v1/saves/{id}", "get", "getSave", "How a save went.", 200, SaveView, (404,)),
    _Operation("/api/openapi.json", "get", "getOpenapi", "This document.", 200, None),
    _Operation("/metrics", "get", "getMetrics", "Numbers for Prometheus.", 200, None),
)

_FAILURES = {
    401: "The bearer token is missing or wrong.",
    403: "The Host or Origin header is foreign.",
    404: "There is no such save.",
    500: "An internal error.",
    503: "Too many requests wait already, or the system is shutting down.",
}


def openapi_document(*, has_token: bool) -> dict[str, Any]:
    """Describe all operations.

    Args:
        has_token: Whether requests need a bearer token.
    """
    views: dict[type[BaseModel], None] = dict.fromkeys(
        [ErrorView, *(each.view for each in _OPERATIONS if each.view is not None)]
    )
    _, schemas = models_json_schema([(view, "serialization") for view in views], ref_template=_SCHEMAS + "{model}")
    paths: dict[str, Any] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, has_token=has_token)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "statevault", "version": _VERSION, "summary": "A running agent: its status, its saves."},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _described(operation: _Operation, *, has_token: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": _schema(operation.view)}}
    if operation.path == "/metrics":
        content = {"text/plain": {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {str(operation.status): {"description": operation.summary, "content": content}}
    for status in sorted({*operation.failures, 403, 500, *((401,) if has_token else ())}):
        error = {"application/json": {"schema": _schema(ErrorView)}}
        responses[str(status)] = {"description": _FAILURES[status], "content": error}
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if "{id}" in operation.path:
        described["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return described


def _schema(view: type[BaseModel] | None) -> dict[str, Any]:
    return {"type": "object"} if view is None else {"$ref": _SCHEMAS + view.__name__}
