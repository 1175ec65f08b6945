"""The client of the web API."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from statevault.console.errors import WebApiError, WebApiUnreachableError
from statevault.console.views import ErrorView, ResultView, SaveView, StatusName, StatusView, SystemView

__all__ = ["WebApiClient"]

V = TypeVar("V", bound=BaseModel)

_POLL_S = 0.1


class WebApiClient:
    """Asks and commands a running system. Close it after use, or use it in a ``with`` block.

    Every method raises :class:`WebApiUnreachableError` where no system answers, and :class:`WebApiError` where it
    refuses, with the status and the code of its answer.
    """

    def __init__(
        self, host: str = "localhost", port: int = 8319, *, token: str | None = None, timeout: float = 30.0
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            host: Where the system's web API listens.
            port: Its port.
            token: The bearer token, if it wants one.
            timeout: Seconds to wait for an answer.

        Raises:
            WebApiUnreachableError: The host can't be one, or the token fits no header.
        """
        host = host.removeprefix("[").removesuffix("]")
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._has_token = token is not None
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # No proxy of the environment: the token is for this host only.
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=timeout,
                trust_env=False,
                # A connection for each request: one that is kept is the first that a busy server closes.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise WebApiUnreachableError(f"no system can be asked at {self.url!r}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_status(self) -> StatusName:
        """Where the system is: active, pausing, paused, resuming or shutting down."""
        return self._ask("GET", "/api/status", StatusView).status

    def pause(self) -> str:
        """Ask the system to pause until it is resumed; "ok" once that is accepted."""
        return self._ask("POST", "/api/pause", ResultView).result

    def resume(self) -> str:
        """Ask the system to go on; "ok" once that is accepted."""
        return self._ask("POST", "/api/resume", ResultView).result

    def shutdown(self) -> str:
        """Ask the system to save its final state and to end; "ok" once that is accepted."""
        return self._ask("POST", "/api/shutdown", ResultView).result

    def save_state(self) -> str:
        """Ask the system to save; "ok" once that is accepted. :meth:`save` lets you see what becomes of it."""
        return self._ask("POST", "/api/save-state", ResultView).result

    def save(self) -> SaveView:
        """Ask the system to save. The result has the id for :meth:`get_save`."""
        return self._ask("POST", "/api/v1/saves", SaveView)

    def get_save(self, save_id: str) -> SaveView:
        """How the save of that id goes, or went."""
        return self._ask("GET", f"/api/v1/saves/{quote(save_id, safe='')}", SaveView)

    def wait_for_save(self, save_id: str, *, timeout: float = 3600.0) -> SaveView:
        """Wait until the save of that id is committed or has failed.

        Args:
            save_id: Its id.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: It did not end in time.
        """
        deadline = time.monotonic() + timeout
        while not (save := self.get_save(save_id)).ended:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the save {save_id} is {save.status} after {timeout:g} s")
            time.sleep(_POLL_S)
        return save

    def get_system(self) -> SystemView:
        """Everything about the system: its steps, its saves, the states of its store."""
        return self._ask("GET", "/api/v1/system", SystemView)

    def get_metrics(self) -> str:
        """The numbers for Prometheus, in its text format."""
        return self._send("GET", "/metrics").text

    def _ask(self, method: str, path: str, view: type[V]) -> V:
        response = self._send(method, path)
        try:
            return view.model_validate_json(response.content)
        except ValidationError as error:
            raise self._foreign(path, response) from error

    def _send(self, method: str, path: str) -> httpx.Response:
        try:
            response = self._client.request(method, path)
        # UnicodeError: a host that is no name in the DNS, such as one of 300 letters.
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise WebApiUnreachableError(
                f"no system answers at {self.url}: {error}. Check that an agent runs there, and its web_api_address"
            ) from error
        if response.is_success:
            return response
        try:
            failure = ErrorView.model_validate_json(response.content)
        except ValidationError as error:
            raise self._foreign(path, response) from error
        message = failure.error
        if response.status_code == 401:
            got = "another token" if self._has_token else "no token"
            message = (
                f"got {got}: send Authorization: Bearer <web_api_token> (for the console: STATEVAULT_WEB_API_TOKEN)"
            )
        raise WebApiError(f"{self.url}{path}: {message}", status=response.status_code, code=failure.code)

    def _foreign(self, path: str, response: httpx.Response) -> WebApiError:
        return WebApiError(
            f"{self.url}{path} did not answer as the web API of a system does ({response.status_code} "
            f"{response.reason_phrase}): check host and port",
            status=response.status_code,
        )
