"""A big object in pieces: a resumable upload of GCS, which goes on where a broken connection left it.

https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload: pieces are multiples of 256
KiB but for the last one, and go up one after the other; the object appears with the last one.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

from statevault.errors import StorageError
from statevault.storage.gcs.client import Answer, Request

__all__ = ["PIECE_BYTES", "ResumableUpload", "UploadLost"]

PIECE_BYTES = 16 << 20
"""The size of a piece; what is smaller goes up in one request."""

_TRIES_WITHOUT_PROGRESS = 3
_LEAST_PROGRESS = 256 << 10  # the server keeps multiples of it
_RETRY_DELAY_S = 0.2
_STORED = re.compile(r"bytes=0-(\d+)")
_INCOMPLETE = 308


class UploadLost(Exception):  # noqa: N818 - not raised to users: whoever has the bytes begins anew
    """The server has lost an upload, or bytes of it that were sent before, so that it must begin anew."""


class ResumableUpload:
    """One upload.

    Args:
        ask: Sends a request with so many bytes, and raises errors of statevault, or :class:`UploadLost`.
        start: The request that begins the upload.
    """

    def __init__(self, ask: Callable[[Request], Answer], start: Request) -> None:
        self._ask = ask
        location = ask(start).headers.get("Location")
        if location is None:
            raise StorageError("The server began an upload, and did not say where: its answer has no Location.")
        self._location = location

    def send(self, pieces: Iterator[bytes]) -> None:
        """Send the pieces, of which there is at least one; on any error nothing of them stays.

        Raises:
            StorageError: The server did not take a piece.
            UploadLost: It has lost those that it took.
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
            with contextlib.suppress(StorageError, UploadLost):
                self._ask(Request("DELETE", self._location))
            raise

    def _send_piece(self, piece: bytes, offset: int, *, total: int | None) -> None:
        end = offset + len(piece)
        stored = offset
        failures = 0
        in_doubt = False
        while True:
            if in_doubt:
                # How much of it came through is the server's to say; with all of it, it finishes the upload.
                span, body = f"*/{total or '*'}", None
            else:
                span, body = f"{stored}-{end - 1}/{total or '*'}", piece[stored - offset :]
            try:
                answer = self._ask(
                    Request("PUT", self._location, headers={"Content-Range": f"bytes {span}"}, body=body)
                )
            except StorageError as error:
                failures += 1
                if not error.transient or failures >= _TRIES_WITHOUT_PROGRESS:
                    raise
                time.sleep(_RETRY_DELAY_S)
                in_doubt = True
                continue
            if answer.status != _INCOMPLETE:
                if total is None or _size(answer) not in {None, total}:
                    # fake-gcs-server finishes an upload when it is asked how far it came.
                    raise UploadLost("The server has finished an upload before all of it was sent.")
                return
            match = _STORED.match(answer.headers.get("Range", ""))
            now = int(match.group(1)) + 1 if match else 0
            msg = f"The server says that it has {now} bytes of an upload that is at byte {stored}."
            if not offset <= now <= end:
                raise UploadLost(msg)
            if now == end and total is None:
                return
            if now - stored >= _LEAST_PROGRESS:
                failures = 0
            elif not in_doubt or now == end:
                failures += 1
                if failures >= _TRIES_WITHOUT_PROGRESS:
                    raise StorageError(msg, transient=True)
            stored = now
            in_doubt = now == end


def _size(answer: Answer) -> int | None:
    """The size of an object in the answer to its upload, where the server says it."""
    try:
        return int(answer.json()["size"])
    except (ValueError, KeyError, TypeError):
        return None
