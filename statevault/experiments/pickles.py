"""Any object as a sealed, compressed pickle.

**Loading runs code of whoever can write to the folder.** The seal is verified before: what is damaged is not unpickled.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from io import BufferedReader
from typing import IO, Any

import zstandard
from pydantic import JsonValue

from statevault.errors import CorruptStateError, ObjectNotFoundError, UnsupportedTypeError
from statevault.experiments.layout import older_key
from statevault.sealed import SealedFile, SealedFiles

__all__ = ["PickledObjects"]

_IN_MEMORY = 64 * 1024**2
_NOT_DAMAGE = (ImportError, AttributeError, OSError, MemoryError, RecursionError)
# Bytes, and not the binding's number: that one is negative on Windows.
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class PickledObjects:
    """Objects below a storage's root, each one pickle.

    Args:
        files: Where they lie.
        level: The zstd level, -100 to 22.
    """

    def __init__(self, files: SealedFiles, level: int) -> None:
        self._files = files
        self._level = level

    def put(
        self,
        key: str,
        obj: object,
        info: Mapping[str, JsonValue],
        *,
        pickler: Callable[[IO[bytes]], pickle.Pickler] | None = None,
    ) -> SealedFile:
        """Store an object, in the place of what lies there. References that are shared in it stay shared.

        Args:
            key: Where.
            obj: What.
            info: What the file says of itself.
            pickler: Makes the pickler; None for pickle's own.

        Raises:
            UnsupportedTypeError: Pickle can't take it.
            StorageError: The storage failed.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="statevault-") as file:
            # With a checksum: zstd -t can tell that the payload is whole.
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
            with compressor.stream_writer(file, closefd=False) as stream:
                make = pickler or (lambda target: pickle.Pickler(target, protocol=5))
                try:
                    make(stream).dump(obj)
                except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
                    raise UnsupportedTypeError(
                        f"{key}: pickle can't take what is to be stored: {error}. Classes and functions in it must be "
                        "importable by their names"
                    ) from error
            return self._files.put(key, file, info)

    def get(self, key: str, on_progress: Callable[[int], None] | None = None) -> Any:
        """Load an object, or the one that an older run kept there, uncompressed.

        **This runs code that the file names.**

        Args:
            key: Where.
            on_progress: Is called with the number of bytes that have come since the last call.

        Raises:
            ObjectNotFoundError: Nothing lies there.
            CorruptStateError: It is damaged.
            StorageError: The storage failed.
            Exception: What unpickling raises: a class in it may have moved.
        """
        try:
            file, described = self._files.open(key, on_progress)
        except ObjectNotFoundError:
            if older_key(key) == key:
                raise
            file, described = self._files.open(older_key(key), on_progress)
        with file:
            try:
                return _unpickled(file)
            except Exception as error:
                # A file without a seal was cut short, or another program wrote it: nobody knows that it is whole.
                if described.info is None and not isinstance(error, _NOT_DAMAGE):
                    raise CorruptStateError(f"{described.key} is damaged: {error!r}") from error
                error.add_note(f"while loading {described.key}: the code that it was saved with may have changed")
                raise


def _unpickled(file: IO[bytes]) -> Any:
    magic = file.read(len(_ZSTD_MAGIC))
    file.seek(0)
    if magic != _ZSTD_MAGIC:
        return pickle.load(file)  # noqa: S301 - the docstring says so
    with zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as stream:
        return pickle.load(BufferedReader(stream))  # noqa: S301 - as above
