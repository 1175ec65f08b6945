"""A big object in parts: an S3 multipart upload with bounded memory, parts in parallel, and no remains.

"Multipart upload" in the Amazon S3 User Guide: parts of at least 5 MiB, at most 10 000 of them; the object
appears at once when the upload is completed, and never when it is aborted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from statevault.errors import StorageError
from statevault.storage.s3.client import S3Client
from statevault.storage.s3.dialect import Dialect
from statevault.storage.s3.stream import Part, SentBody
from statevault.worker_pool import WorkerPool

__all__ = ["PART_BYTES", "MultipartUpload", "part_size"]

logger = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""The size of a part, as long as 10 000 of them are enough; what is smaller goes up in one request."""

_MAX_PARTS = 10_000
_PARALLEL_PARTS = 4
_PART_TRIES = 3
_RETRY_DELAY_S = 0.2


def part_size(total: int | None) -> int:
    """The size of the parts of an object of `total` bytes; where that is not known, of one of up to 156 GiB.

    Parts of one size, as some servers (Cloudflare R2) take no others.
    """
    if total is None or total <= PART_BYTES * _MAX_PARTS:
        return PART_BYTES
    return -(-total // _MAX_PARTS)


class MultipartUpload:
    """One upload, whose parts are hashed and sent by threads of its own.

    Args:
        ask: Makes a request with the client that it hands out, and raises only errors of statevault.
        dialect: What the server takes.
        bucket: Where.
        key: The object's whole key in the bucket.
    """

    def __init__(
        self, ask: Callable[[Callable[[S3Client], Any]], Any], dialect: Dialect, bucket: str, key: str
    ) -> None:
        self._call = ask
        self._dialect = dialect
        self._target = {"Bucket": bucket, "Key": key}
        self._given_up = threading.Event()

    def send(self, parts: Iterator[Part], *, condition: dict[str, str]) -> None:
        """Upload the parts and complete the upload; on any error nothing of it stays.

        Args:
            parts: The object's bytes, cut.
            condition: Parameters of the completing request, such as ``IfNoneMatch``.

        Raises:
            StorageError: A request failed; what the server said is its cause.
            Exception: What `parts` raised.
        """
        identifier = self._ask("create_multipart_upload")["UploadId"]
        self._target["UploadId"] = identifier
        try:
            completed = {"MultipartUpload": {"Parts": self._send_parts(parts)}}
            self._dialect.send(
                lambda **extra: self._ask("complete_multipart_upload", **completed, **extra), condition=condition
            )
        except BaseException:
            self._abort()
            raise

    def _ask(self, method: str, **parameters: Any) -> Any:
        return self._call(lambda client: client.call(method, **self._target, **parameters))

    def _send_part(self, number: int, data: Part) -> dict[str, Any]:
        def send(client: S3Client, extra: dict[str, Any]) -> dict[str, Any]:
            # A body for each request: one that is made again begins anew.
            body = SentBody(data, self._given_up)
            answer = client.call("upload_part", **self._target, PartNumber=number, Body=body, **extra)
            return {"PartNumber": number, "ETag": answer["ETag"], **client.checksum_in(answer)}

        for left in reversed(range(_PART_TRIES)):
            try:
                part: dict[str, Any] = self._dialect.send(
                    lambda **extra: self._call(lambda client: send(client, extra)), data=data
                )
                return part
            except StorageError as error:
                # Here, not around the whole put: its bytes may come from an iterator that runs only once.
                if not left or not error.transient or self._given_up.wait(_RETRY_DELAY_S):
                    raise
        raise AssertionError

    def _send_parts(self, parts: Iterator[Part]) -> list[dict[str, Any]]:
        running: set[Future[dict[str, Any]]] = set()
        done: list[dict[str, Any]] = []
        # No part is under way any more when it is left: an abort may miss those that arrive after it.
        with WorkerPool(_PARALLEL_PARTS, "statevault-part") as senders:
            try:
                for number, data in enumerate(parts, start=1):
                    running.add(senders.submit(self._send_part, number, data))
                    if len(running) >= _PARALLEL_PARTS:
                        finished, running = wait(running, return_when=FIRST_COMPLETED)
                        done.extend(future.result() for future in finished)
                done.extend(future.result() for future in running)
            except BaseException:
                self._given_up.set()
                raise
        return sorted(done, key=lambda part: part["PartNumber"])

    def _abort(self) -> None:
        try:
            self._ask("abort_multipart_upload")
        except StorageError as error:
            # The error that led here is the one to raise. One that says that there is no such upload is none.
            if error.transient:
                logger.warning(
                    "An unfinished upload of %s stays in %s: %s", self._target["Key"], self._target["Bucket"], error
                )
