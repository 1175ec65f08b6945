"""A big object in pieces: a resumable upload of GCS, which goes on where a broken connection left it.

https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload: pieces are multiples of 256
KiB but for the last one, and go up one after the other; the object appears with the last one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from statevault.errors import StorageError
from statevault.storage.gcs.client import Answer, Request

__all__ = ["PIECE_BYTES", "ResumableUpload"]

PIECE_BYTES = 16 << 20
"""The size of a piece; what is smaller goes up in one request."""

_TRIES_PER_PIECE = 3
_STORED = re.compile(r"bytes=0-(\d+)")
_INCOMPLETE = 308


class ResumableUpload:
    """One upload.

    Args:
        ask: Sends a request with so many bytes, and raises errors of statevault.
        start: The request that begins the upload.
    """

    def __init__(self, ask: Callable[[Request], Answer], start: Request) -> None:
        self._ask = ask
        self._location = ask(start).headers["Location"]

    def send(self, pieces: Iterator[bytes]) -> None:
        """Send the pieces, of which there is at least one; on any error nothing of them stays.

        Raises:
            StorageError: The server did not take a piece.
            Exception: What `pieces` raised.
        """
        try:
            offset = 0
            piece = next(pieces)
            for following in pieces:
                self._send_piece(piece, offset, total=None)
                offset += len(piece)
                piece = following
            self._send_piece(piece, offset, total=offset + len(piece))
        except BaseException:
            with contextlib.suppress(StorageError):
                self._ask(Request("DELETE", self._location))
            raise

    def _send_piece(self, piece: bytes, offset: int, *, total: int | None) -> None:
        end = offset + len(piece)
        stored = offset
        failures = 0
        while stored < end:
            rest = piece[stored - offset :]
            span = f"bytes {stored}-{end - 1}/{'*' if total is None else total}"
            try:
                answer = self._ask(Request("PUT", self._location, headers={"Content-Range": span}, body=rest))
            except StorageError as error:
                failures += 1
                if not error.transient or failures >= _TRIES_PER_PIECE:
                    raise
                # How much of it came through is the server's to say.
                answer = self._ask(Request("PUT", self._location, headers={"Content-Range": f"bytes */{total or '*'}"}))
            if answer.status != _INCOMPLETE:
                return
            match = _STORED.match(answer.headers.get("Range", ""))
            now = int(match.group(1)) + 1 if match else 0
            if not offset <= now <= end or (now == stored and not failures):
                msg = f"The server says that it has {now} bytes of an upload that is at byte {stored}."
                raise StorageError(msg, transient=True)
            stored = now
