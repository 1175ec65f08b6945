"""Requests to Google Cloud Storage's JSON API, with the session and the credentials that a gcsfs filesystem holds."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import yarl

from statevault.storage.event_loop import event_loop
from statevault.storage.gcs.errors import Refusal

__all__ = ["Answer", "Request", "endpoint", "make_filesystem"]

_EXTENSIONS_SWITCH = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"


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

    async def send(self, filesystem: Any, timeout: aiohttp.ClientTimeout) -> Answer:
        """Send it, once.

        Raises:
            Refusal: The server answered with a status of 400 or more.
            Exception: What aiohttp and google-auth raise.
        """
        await filesystem._set_session()  # noqa: SLF001
        # Quoted here: aiohttp would change "%2F" and "+" in a key.
        query = "&".join(
            f"{name}={quote(value, safe='')}"
            for name, value in filesystem._get_params(self.params or {}).items()  # noqa: SLF001
        )
        url = self.path if "://" in self.path else f"{filesystem._location}/{self.path}"  # noqa: SLF001
        if query:
            url += ("&" if "?" in url else "?") + query
        # No encoding on the way: gcsfs' session would ask for gzip, and the length could not be checked.
        headers = filesystem._get_headers({"Accept-Encoding": "identity", **(self.headers or {})})  # noqa: SLF001
        async with filesystem.session.request(
            self.method,
            yarl.URL(url, encoded=True),
            headers=headers,
            # As a file: aiohttp would send bytes in one piece, in which no other request gets its turn.
            data=None if self.body is None else io.BytesIO(self.body),
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            if response.status >= 400:
                raise Refusal(response.status, body)
            return Answer(response.status, response.headers.copy(), body)


def endpoint(options: Mapping[str, Any]) -> str:
    """The endpoint that is not Google's own, such as an emulator's, or ""."""
    given = options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or ""
    return "" if given == "default" else str(given)


def make_filesystem(options: Mapping[str, Any]) -> Any:
    """Make a filesystem of gcsfs that holds a session and credentials.

    Raises:
        ImportError: gcsfs is not installed.
    """
    event_loop()
    emulated = endpoint(options)
    if emulated:
        # Extensions of gcsfs ask for a bucket's kind over gRPC, which emulators do not speak, and wait a minute
        # for the answer. This is read when gcsfs is imported; the paths that users get are of its class as well.
        os.environ.setdefault(_EXTENSIONS_SWITCH, "false")
    # The class without those extensions, whatever the switch said when somebody else imported gcsfs.
    from gcsfs.core import GCSFileSystem  # noqa: PLC0415

    # Without a token gcsfs looks for Google's metadata server, for seconds.
    token = {"token": "anon"} if emulated and "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ else {}
    return GCSFileSystem(**{"use_listings_cache": False, **token, **options, "skip_instance_cache": True})
