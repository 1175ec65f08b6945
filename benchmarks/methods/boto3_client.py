"""boto3's S3 client, and how fast its transfer manager moves bytes that lie in memory: a bound for everybody."""

from __future__ import annotations

import io
from typing import Any

import boto3
from botocore.config import Config
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.methods.raw_bytes import flat_bytes
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["RawBoto3", "transfer_client"]


def transfer_client(place: Place) -> Any:
    """Return a client that adds no checksums of its own to those that a server demands."""
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=place.endpoint,
        aws_access_key_id=place.key,
        aws_secret_access_key=place.secret,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class RawBoto3(TensorMethod):
    """One object of bytes that need no encoding."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._client = transfer_client(place)
        self._buffer = io.BytesIO()

    @override
    def prepare(self, state: State) -> None:
        self._buffer = io.BytesIO(flat_bytes(state))

    @override
    def save(self, state: State, number: int) -> None:
        self._buffer.seek(0)
        # A copy of the object: the transfer manager closes what it was given.
        self._client.upload_fileobj(_Kept(self._buffer), self.place.bucket, f"{self.place.prefix}/{number}")

    @override
    def restore(self, live: State, number: int) -> None:
        self._buffer.seek(0)
        self._client.download_fileobj(self.place.bucket, f"{self.place.prefix}/{number}", _Kept(self._buffer))


class _Kept(io.RawIOBase):
    """A buffer that stays open when the transfer manager is done with it."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer

    @override
    def readable(self) -> bool:
        return True

    @override
    def writable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1) -> bytes:
        return self._buffer.read(size)

    @override
    def write(self, data: Any) -> int:
        return self._buffer.write(data)

    @override
    def seek(self, offset: int, whence: int = 0) -> int:
        return self._buffer.seek(offset, whence)

    @override
    def tell(self) -> int:
        return self._buffer.tell()
