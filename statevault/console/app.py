"""The web API as a Starlette application."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from statevault.console.answers import answer, failure, on_http_exception, on_unexpected
from statevault.console.guard import Guard
from statevault.console.metrics import CONTENT_TYPE, exposition
from statevault.console.openapi import openapi_document
from statevault.console.source import SystemSource
from statevault.console.views import ResultView, SaveView, StatusView, SystemView, status_name
from statevault.threads import Phase

__all__ = ["web_api"]

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_DESCRIBED_AT_ONCE = 8
_LAST_PHASES = frozenset({Phase.SHUTTING_DOWN, Phase.STOPPED, Phase.FAILED})


class _Endpoints:
    """The handlers. Those that are coroutines run in turn in one thread, so that a check and its act are one step."""

    def __init__(self, source: SystemSource, *, queue_size: int, has_token: bool) -> None:
        self._source = source
        self._system = source.system
        self._queue_size = queue_size
        self._openapi = openapi_document(has_token=has_token)
        self._being_described = 0

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/api/status", self.status),
            Route("/api/pause", self.pause, methods=["POST"]),
            Route("/api/resume", self.resume, methods=["POST"]),
            Route("/api/shutdown", self.shutdown, methods=["POST"]),
            Route("/api/save-state", self.save_state, methods=["POST"]),
            Route("/api/v1/system", self.describe),
            Route("/api/v1/saves", self.save, methods=["POST"]),
            Route("/api/v1/saves/{id}", self.describe_save),
            Route("/api/openapi.json", self.openapi),
            Route("/metrics", self.metrics),
        ]

    async def status(self, _request: Request) -> Response:
        return answer(StatusView(status=status_name(self._system.status.phase)))

    async def pause(self, _request: Request) -> Response:
        return self._command(self._system.request_pause)

    async def resume(self, _request: Request) -> Response:
        return self._command(self._system.request_resume)

    async def shutdown(self, _request: Request) -> Response:
        return self._command(self._system.request_shutdown)

    async def save_state(self, _request: Request) -> Response:
        return self._command(self._system.request_save)

    async def save(self, _request: Request) -> Response:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        report = self._system.request_save()
        return answer(SaveView.of(report), 202, {"Location": f"/api/v1/saves/{report.id}"})

    async def describe_save(self, request: Request) -> Response:
        report = self._system.save_log.get(request.path_params["id"])
        if report is None:
            return failure(404, "unknown_save", "no save of this run has that id, or it is long ago")
        return answer(SaveView.of(report))

    async def describe(self, _request: Request) -> Response:
        # Each waits for the storage in a thread, also when its client has gone: there must not be ever more of them.
        if self._being_described >= _DESCRIBED_AT_ONCE:
            return failure(503, "busy", "too many clients ask for this at once; try again later", {"Retry-After": "1"})
        self._being_described += 1
        try:
            return answer(await run_in_threadpool(SystemView.of, self._source))
        finally:
            self._being_described -= 1

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(self._openapi)

    async def metrics(self, _request: Request) -> Response:
        return Response(exposition(self._source), headers={"Content-Type": CONTENT_TYPE})

    def _command(self, request: Callable[[], object]) -> Response:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        request()
        return answer(ResultView())

    def _refusal(self) -> Response | None:
        if self._system.status.phase in _LAST_PHASES:
            return failure(503, "shutting_down", "the system is shutting down and takes no more commands")
        if self._system.waiting_requests >= self._queue_size:
            message = f"{self._queue_size} command(s) wait already (web_api_command_queue_size); try again later"
            return failure(503, "queue_full", message, {"Retry-After": "1"})
        return None


def web_api(
    source: SystemSource,
    *,
    host: str = "localhost",
    loopback: bool = True,
    allowed_hosts: Iterable[str] = (),
    token: str | None = None,
    queue_size: int = 1,
) -> Starlette:
    """Make the application that serves a system.

    Args:
        source: The system.
        host: Where the server listens, which is one of the names that a ``Host`` header may have.
        loopback: Whether only this machine can reach it. If not, any IP address and this machine's name pass as well.
        allowed_hosts: Further names that pass, such as that of a reverse proxy.
        token: The bearer token that every request needs; None for none.
        queue_size: How many commands may wait for the system; others are refused with 503.
    """
    hosts = {*_LOOPBACK_HOSTS, host, *allowed_hosts}
    if not loopback:
        hosts.add(socket.gethostname())
    guard = Middleware(Guard, hosts=hosts, any_ip_address=not loopback, token=token)
    app = Starlette(
        routes=_Endpoints(source, queue_size=queue_size, has_token=token is not None).routes,
        middleware=[guard],
        exception_handlers={HTTPException: on_http_exception, Exception: on_unexpected},
    )
    # A redirect would be built from the request's own headers.
    app.router.redirect_slashes = False
    return app
