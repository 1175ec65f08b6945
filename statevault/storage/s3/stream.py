"""Bodies on the wire to and from S3, piece by piece."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.client import HTTPResponse
from itertools import accumulate
from typing import Any, TypeAlias

from urllib3.exceptions import ProtocolError

__all__ = ["Part", "SentBody", "StoppedError", "received", "received_into"]

Part: TypeAlias = Sequence[memoryview]
"""Bytes that are sent in one request, in pieces."""

# What is sent at once has to leave within the connection's timeout of 10 s: 13 kB/s.
_SEND_BYTES = 128 << 10
# More would be asked of the memory allocator for each piece than the socket has at once.
_RECEIVE_BYTES = 256 << 10


class StoppedError(Exception):
    """An upload was given up."""


class SentBody:
    """Bytes as the file that botocore reads, twice: to sign them, and to send them. They are not copied.

    Args:
        part: The bytes, in pieces.
        stop: When it is set, no more is sent.
    """

    def __init__(self, part: Part, stop: threading.Event | None = None) -> None:
        self._pieces = [piece for piece in part if piece.nbytes]
        self._ends = list(accumulate(piece.nbytes for piece in self._pieces))
        self._stop = stop
        self._at = 0

    def read(self, size: int = -1) -> memoryview:
        """Read some bytes, as they lie in one piece; not as few as the caller asks for.

        Raises:
            StoppedError: The upload was given up.
        """
        if self._stop is not None and self._stop.is_set():
            raise StoppedError
        number = bisect_right(self._ends, self._at)
        if number == len(self._pieces):
            return memoryview(b"")
        piece = self._pieces[number]
        start = self._at - (self._ends[number] - piece.nbytes)
        found = piece[start : start + max(size, _SEND_BYTES)]
        self._at += found.nbytes
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the bytes."""
        size = self._ends[-1] if self._ends else 0
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """The place of the next byte that is read."""
        return self._at


def received(body: Any) -> bytes:
    """Read the body of an answer, as botocore gives it.

    Raises:
        TimeoutError: It comes too slowly.
        Exception: What urllib3 raises when the connection breaks.
    """
    pieces = list(_pieces(body))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def received_into(body: Any, target: memoryview) -> int:
    """Read the body of an answer into memory that is there.

    Args:
        body: What botocore gave.
        target: Where to. What comes beyond it is dropped.

    Returns:
        How many bytes came.

    Raises:
        TimeoutError: They come too slowly.
        Exception: What urllib3 raises when the connection breaks.
    """
    answer = _plain_answer(body)
    if answer is not None:
        return _received_directly(body, answer, target)
    came = 0
    for piece in _pieces(body):
        # Copied while it is in the processor's cache.
        taken = piece[: max(0, target.nbytes - came)]
        target[came : came + len(taken)] = taken
        came += len(piece)
    return came


def _plain_answer(body: Any) -> HTTPResponse | None:
    """The answer below botocore and urllib3, if its body is what comes over the wire, and of a known length."""
    answer = getattr(body._raw_stream, "_fp", None)  # noqa: SLF001
    is_plain = isinstance(answer, HTTPResponse) and not answer.chunked and answer.length is not None
    return answer if is_plain else None


def _received_directly(body: Any, answer: HTTPResponse, target: memoryview) -> int:
    """Let the kernel write what comes to where it belongs, without a look at each piece on its way."""
    length = answer.length or 0
    wanted, came = target[:length], 0
    with closing(body):
        try:
            # At each turn what is there: a call that waits until all has come could wait for ever.
            while came < wanted.nbytes and (count := answer.fp.readinto1(wanted[came:])):
                came += count
        except TimeoutError:
            raise
        except OSError as error:
            raise ProtocolError(f"the connection broke after {came} of {length} bytes: {error}") from error
        if came < wanted.nbytes:
            raise ProtocolError(f"the connection was closed after {came} of {length} bytes")
        if came == length:
            # The next request may take the connection.
            answer.close()
            body._raw_stream.release_conn()  # noqa: SLF001
    return length


def _pieces(body: Any) -> Iterator[bytes]:
    with closing(body):
        # The stream itself: botocore's reader would wait for all that it was asked for, and copy it once more.
        stream = body._raw_stream  # noqa: SLF001
        while piece := stream.read1(_RECEIVE_BYTES):
            yield piece
