"""An experiment as one zip archive beside its folder."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, cast

from statevault.errors import ObjectNotFoundError
from statevault.experiments.layout import METADATA_CLAIMS, parse_trial, trial_claims
from statevault.experiments.own_objects import own_objects
from statevault.storage import ObjectInfo, Storage

__all__ = ["BackupArchive"]

_PIECE = 8 * 1024**2
_IN_MEMORY = 64 * 1024**2
_ROUNDS = 5


class BackupArchive:
    """The content of a folder as a zip archive, made while it is read: memory is bounded at any size.

    Files that are there when it begins, or come in the place of such, are in it. Claims are not.

    Args:
        storage: The folder.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __iter__(self) -> Iterator[bytes]:
        sink = _Sink()
        # Checkpoints are compressed already.
        with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for found, content in self._files():
                with content:
                    info = zipfile.ZipInfo(found.key, _stamp(found))
                    info.external_attr = 0o644 << 16
                    with archive.open(info, "w", force_zip64=True) as entry:
                        while piece := content.read(_PIECE):
                            entry.write(piece)
                            yield sink.take()
        yield sink.take()

    def _files(self) -> Iterator[tuple[ObjectInfo, IO[bytes]]]:
        """All files; those that come while the archive is made too, if others have gone: they are in their place."""
        done: set[str] = set()
        for _ in range(_ROUNDS):
            gone = False
            for found in list(own_objects(self._storage)):
                if found.key in done or _is_claim(found.key):
                    continue
                content = self._content(found)
                if content is None:
                    gone = True
                    continue
                done.add(found.key)
                yield found, content
            if not gone:
                return

    def _content(self, found: ObjectInfo) -> IO[bytes] | None:
        """A file as it is now, whole; None if retention has taken it."""
        content = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="statevault-")  # noqa: SIM115 - it is returned
        try:
            if found.size <= _PIECE:
                content.write(self._storage.get(found.key))  # at one instant, whatever its size is by now
            else:
                for start in range(0, found.size, _PIECE):
                    content.write(self._storage.get(found.key, start, min(found.size, start + _PIECE)))
        except ObjectNotFoundError:
            content.close()
            return None
        except BaseException:
            content.close()
            raise
        content.seek(0)
        return content


class _Sink:
    """What a zip archive is written to. It can't be sought in; zipfile takes it as it is."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _stamp(found: ObjectInfo) -> tuple[int, int, int, int, int, int]:
    modified = found.modified
    if modified is None or modified.year < 1980:
        return 1980, 1, 1, 0, 0, 0
    return modified.year, modified.month, modified.day, modified.hour, modified.minute, modified.second


def _is_claim(key: str) -> bool:
    if key.startswith(METADATA_CLAIMS):
        return True
    numbers = parse_trial(key)
    return numbers is not None and key.startswith(trial_claims(*numbers))
