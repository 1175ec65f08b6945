"""Answers in JSON; all failures have one shape: ``{"error": "a sentence", "code": "a_word"}``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from statevault.console.views import ErrorView
from statevault.format.plain_text import plain_json

__all__ = ["answer", "failure", "on_http_exception", "on_unexpected"]

_CODES = {404: ("not_found", "there is no such endpoint; see /api/openapi.json"), 405: ("method_not_allowed", "")}


def answer(view: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A view as JSON."""
    # What was true a moment ago must not be taken for what is.
    return Response(
        plain_json(view.model_dump(mode="json")),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def failure(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A failure as JSON."""
    return answer(ErrorView(error=message, code=code), status, headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The answer to what Starlette's router refuses."""
    if not isinstance(error, HTTPException):
        raise error
    code, message = _CODES.get(error.status_code, ("refused", error.detail))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{request.method} is not possible here; use {allowed}"
    return failure(error.status_code, code, message, error.headers)


async def on_unexpected(_request: Request, _error: Exception) -> Response:
    """The answer after a bug; Starlette raises the error again, so that the server logs it."""
    return failure(500, "internal_error", "internal error; see the log of the system")
