"""obstore, a client in Rust: how fast it moves bytes that lie in memory, a bound for everybody."""

from __future__ import annotations

from typing import Any, ClassVar

from obstore.store import S3Store
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.methods.raw_bytes import flat_bytes
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["RawObstore", "RawObstoreUnsigned", "object_store"]

_PART = 16 << 20
_PARALLEL = 4


def object_store(place: Place, *, signed: bool = False) -> Any:
    """Return a client of the place.

    Args:
        place: The place.
        signed: Whether it hashes what it sends, and the server what it gets.
    """
    return S3Store(
        place.bucket,
        prefix=place.prefix,
        endpoint=place.endpoint,
        access_key_id=place.key,
        secret_access_key=place.secret,
        region="us-east-1",
        virtual_hosted_style_request=False,
        unsigned_payload=not signed,
        client_options={"allow_http": True, "timeout": "600s"},
    )


class RawObstore(TensorMethod):
    """One object of bytes that need no encoding; read in ranges, several at once."""

    signed: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._store = object_store(place, signed=self.signed)
        self._bytes = bytearray()

    @override
    def prepare(self, state: State) -> None:
        self._bytes = flat_bytes(state)

    @override
    def save(self, state: State, number: int) -> None:
        self._store.put(str(number), self._bytes, use_multipart=True, chunk_size=_PART, max_concurrency=_PARALLEL)

    @override
    def restore(self, live: State, number: int) -> None:
        size = len(self._bytes)
        starts = list(range(0, size, _PART))
        view = memoryview(self._bytes)
        for first in range(0, len(starts), _PARALLEL):
            some = starts[first : first + _PARALLEL]
            ends = [min(start + _PART, size) for start in some]
            got = self._store.get_ranges(str(number), starts=some, ends=ends)
            for start, end, part in zip(some, ends, got, strict=True):
                view[start:end] = memoryview(part)


class RawObstoreUnsigned(RawObstore):
    """Nobody hashes what is sent."""

    signed = False
