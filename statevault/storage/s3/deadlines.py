"""An end for every request: also for one in which each single byte comes, or goes, before the socket's time-out.

A socket waits so long for the next byte. What holds a call for hours is a server that sends one in time, again and
again. So each answer has a deadline that is put off by what has come of it, and so has each body that is sent.
"""

from __future__ import annotations

import io
from http.client import HTTPResponse
from time import monotonic
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from typing_extensions import override

__all__ = ["limit_requests"]

# No link that is slower than this is waited for.
_SLOWEST_BYTES_PER_S = 32 << 10
# Four parts of an upload may share it.
_SLOWEST_SENT_BYTES_PER_S = 8 << 10
# Once to answer at all, and once for what is too little to count.
_SILENCES = 2
# S3 sends blanks while it puts an object together: "Processing of a CompleteMultipartUpload request could take several
# minutes" (its API reference).
_COMPLETION_S = 900.0


def limit_requests(client: Any) -> None:
    """Let all requests of a client of botocore have an end."""
    # This dict is that of the pools for proxies, too.
    client._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)  # noqa: SLF001


class _Deadline:
    """When more bytes should have passed."""

    def __init__(self, allowance_s: float, bytes_per_s: int) -> None:
        self._allowance_s = allowance_s
        self._bytes_per_s = bytes_per_s
        self._at = monotonic() + allowance_s

    def passed(self, count: int) -> None:
        """Note that some have, which puts it off.

        Raises:
            TimeoutError: It is over.
        """
        now = monotonic()
        if now > self._at:
            raise TimeoutError(f"less than {self._bytes_per_s} bytes a second for {self._allowance_s:g} s")
        self._at = min(self._at + count / self._bytes_per_s, now + self._allowance_s)


class _Received(io.RawIOBase):
    """What comes over a connection, for one answer."""

    def __init__(self, raw: Any, deadline: _Deadline) -> None:
        self._raw = raw
        self._deadline = deadline

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int:
        count: int = self._raw.readinto(buffer)
        self._deadline.passed(count)
        return count

    @override
    def close(self) -> None:
        super().close()
        self._raw.close()


class _Response(HTTPResponse):
    at_least_s = 0.0

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        silence_s = sock.gettimeout()
        allowance_s = max(_SILENCES * silence_s, self.at_least_s)
        received = _Received(self.fp.detach(), _Deadline(allowance_s, _SLOWEST_BYTES_PER_S))
        self.fp = io.BufferedReader(received)


class _Completion(_Response):
    at_least_s = _COMPLETION_S


class _LimitedConnection:
    response_class: Any = _Response
    timeout: float
    _sending: _Deadline | None = None

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self._sending = None
        super().request(method, url, *args, **kwargs)  # type: ignore[misc]
        if method == "POST" and "uploadId=" in url:
            self.response_class = _Completion

    def send(self, data: Any) -> None:
        super().send(data)  # type: ignore[misc]
        if self._sending is None:
            # It is connected, and has sent what comes before the body.
            self._sending = _Deadline(_SILENCES * self.timeout, _SLOWEST_SENT_BYTES_PER_S)
        self._sending.passed(len(data))


class _Connection(_LimitedConnection, AWSHTTPConnection):  # type: ignore[misc] # botocore has no types
    pass


class _TlsConnection(_LimitedConnection, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection
