"""Requests to Google Cloud Storage's JSON API, with the session and the credentials that a gcsfs filesystem holds."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import requests
import yarl
from fsspec.asyn import sync
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request as GoogleRequest
from typing_extensions import override

from statevault.storage.event_loop import event_loop
from statevault.storage.gcs.errors import Refusal, is_busy
from statevault.storage.redaction import chain

__all__ = ["Answer", "Request", "endpoint", "load_gcsfs", "make_filesystem", "token"]

logger = logging.getLogger(__name__)

_EXTENSIONS_SWITCH = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
_CONNECT_TIMEOUT_S = 4.0
_SLOWEST_BYTES_PER_S = 32 << 10
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, decoded."""
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: ``GET``, ``POST``, …
        path: Below the endpoint, quoted; or a whole URL that the server gave.
        params: Of the query.
        headers: Beside those for authorisation.
        body: The content.
    """

    method: str
    path: str
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None

    async def send(self, filesystem: Any, silence_s: float) -> Answer:
        """Send it; once more if it is refused for its credentials, which are renewed where that can be done.

        Args:
            filesystem: Of gcsfs.
            silence_s: How long nothing may come.

        Raises:
            Refusal: The server answered with a status of 400 or more.
            TimeoutError: It takes too long, or the bytes come too slowly.
            Exception: What aiohttp and google-auth raise.
        """
        headers = self._headers(filesystem)
        try:
            return await self._send(filesystem, headers, silence_s)
        except Refusal as refusal:
            if refusal.status != _UNAUTHORIZED:
                raise
            # In the loop's thread, as gcsfs does when a token expires: others wait for the same token.
            _renew(filesystem.credentials, headers)
        return await self._send(filesystem, self._headers(filesystem), silence_s)

    def _headers(self, filesystem: Any) -> dict[str, str]:
        # No encoding on the way: gcsfs' session would ask for gzip, and the length could not be checked.
        headers: dict[str, str] = filesystem._get_headers(  # noqa: SLF001
            {"Accept-Encoding": "identity", **(self.headers or {})}
        )
        return headers

    async def _send(self, filesystem: Any, headers: dict[str, str], silence_s: float) -> Answer:
        # Quoted here: aiohttp would change "%2F" and "+" in a key.
        query = "&".join(
            f"{name}={quote(value, safe='')}"
            for name, value in filesystem._get_params(self.params or {}).items()  # noqa: SLF001
        )
        url = self.path if "://" in self.path else f"{filesystem._location}/{self.path}"  # noqa: SLF001
        if query:
            url += ("&" if "?" in url else "?") + query
        # Its own total would not grow with what is sent and comes.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=silence_s)
        patience = _Patience(2 * (silence_s + _CONNECT_TIMEOUT_S))
        async with (
            patience.limit,
            filesystem.session.request(
                self.method,
                yarl.URL(url, encoded=True),
                headers=headers,
                data=None if self.body is None else _SentBody(self.body, patience),
                timeout=timeout,
                allow_redirects=False,
            ) as response,
        ):
            pieces = []
            async for piece in response.content.iter_any():
                pieces.append(piece)
                patience.passed(len(piece))
            body = b"".join(pieces)
            if response.status >= 400:
                raise Refusal(response.status, body)
            return Answer(response.status, response.headers.copy(), body)


def _renew(held: Any, refused: Mapping[str, str]) -> None:
    """Ask for a new token.

    Args:
        held: The credentials of gcsfs.
        refused: The headers of the request that was refused: another one may have led to a new token since.

    Raises:
        GoogleAuthError: None can be had at the moment.
    """
    credentials = held.credentials
    if credentials is None:
        return  # anonymous
    current: dict[str, str] = {}
    with held.lock, requests.Session() as session:
        credentials.apply(current)
        if current.items() <= refused.items():
            logger.info("Credentials were refused: asking for a new token.")
            try:
                credentials.refresh(GoogleRequest(session))
            except GoogleAuthError as error:
                # Those that can't be renewed are told apart by the server, which refuses them again.
                if any(map(is_busy, chain(error))):
                    raise


class _Patience:
    """The deadline of a request, which is put off by what passes."""

    def __init__(self, allowance_s: float) -> None:
        self.limit = asyncio.timeout(allowance_s)
        self._allowance_s = allowance_s

    def passed(self, count: int) -> None:
        """Note that so many bytes more have."""
        latest = asyncio.get_running_loop().time() + self._allowance_s
        with suppress(RuntimeError):  # it is over
            self.limit.reschedule(min(latest, (self.limit.when() or 0.0) + count / _SLOWEST_BYTES_PER_S))


class _SentBody(io.BytesIO):
    """Bytes as a file: aiohttp would send bytes in one piece, in which no other request gets its turn."""

    def __init__(self, data: bytes, patience: _Patience) -> None:
        super().__init__(data)
        self._patience = patience

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        # What was read before has been sent.
        data = super().read(size)
        self._patience.passed(len(data))
        return data


def endpoint(options: Mapping[str, Any]) -> str:
    """The endpoint that is not Google's own, such as an emulator's, or ""."""
    given = options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or ""
    return "" if given == "default" else str(given)


def load_gcsfs(*, emulated: bool) -> Any:
    """The package gcsfs, where extensions of it that emulators do not speak are off.

    Raises:
        ImportError: It is not installed.
    """
    if emulated:
        # Extensions of gcsfs ask for a bucket's kind over gRPC, which emulators do not speak, and wait a minute
        # for the answer. This is read when gcsfs is imported; the paths that users get are of its class as well.
        os.environ.setdefault(_EXTENSIONS_SWITCH, "false")
    import gcsfs.core  # noqa: PLC0415

    return gcsfs


def make_filesystem(options: Mapping[str, Any]) -> Any:
    """Make a filesystem of gcsfs that holds a session and credentials.

    Raises:
        Exception: What gcsfs and google-auth say of the options.
    """
    event_loop()
    # The class without those extensions, whatever the switch said when somebody else imported gcsfs.
    filesystem = load_gcsfs(emulated=bool(endpoint(options))).core.GCSFileSystem(
        **{"use_listings_cache": False, **options, "token": token(options), "skip_instance_cache": True}
    )
    sync(filesystem.loop, filesystem._set_session)  # noqa: SLF001
    return filesystem


def token(options: Mapping[str, Any]) -> Any:
    """What gcsfs is told of the credentials."""
    if options.get("token") is not None:
        return options["token"]
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return "google_default"  # by itself gcsfs would go on without credentials where that names no good ones
    # Without a token gcsfs looks for Google's metadata server, for seconds.
    return "anon" if endpoint(options) else None
