"""Files of older runs, which have no seal: whether they are whole, as far as their format tells."""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from statevault.errors import CorruptStateError
from statevault.storage import Storage

__all__ = ["check_unsealed"]

_PIECE = 8 * 1024**2
# A block of four bytes may hold 128 KiB: what comes out of these at once fits into memory, whoever wrote them.
_FED_AT_ONCE = 1024
_STOP = b"."


def check_unsealed(storage: Storage, key: str) -> None:
    """Check that a pickle without a seal, compressed or not, was not cut short. It is not unpickled.

    A compressed one is decompressed, which also finds what else is wrong with it; memory is bounded.

    Args:
        storage: The folder of the experiment.
        key: Where the file lies.

    Raises:
        CorruptStateError: It was cut short, or is damaged; it may have had a seal.
        ObjectNotFoundError: Nothing lies there.
        StorageError: The storage failed.
    """
    where = f"{key} in {storage.url}"
    size = storage.head(key).size
    if storage.get(key, 0, min(size, len(zstandard.FRAME_HEADER))) == zstandard.FRAME_HEADER:
        _check_frame(_pieces(storage, key, size), where)
    elif not size or storage.get(key, size - len(_STOP), size) != _STOP:
        raise CorruptStateError(f"{where} does not end as a pickle does: it was cut short")


def _check_frame(pieces: Iterator[bytes], where: str) -> None:
    frame = zstandard.ZstdDecompressor().decompressobj()
    for piece in pieces:
        for start in range(0, len(piece), _FED_AT_ONCE):
            if frame.eof:
                raise CorruptStateError(f"{where} goes on after its end: it has lost a part of its seal")
            try:
                frame.decompress(piece[start : start + _FED_AT_ONCE])
            except zstandard.ZstdError as error:
                raise CorruptStateError(f"{where} can't be decompressed: {error}") from error
    if not frame.eof:
        raise CorruptStateError(f"{where} ends before its content does: it was cut short")
    if frame.unused_data:
        raise CorruptStateError(f"{where} goes on after its end: it has lost a part of its seal")


def _pieces(storage: Storage, key: str, size: int) -> Iterator[bytes]:
    for start in range(0, size, _PIECE):
        yield storage.get(key, start, min(size, start + _PIECE))
