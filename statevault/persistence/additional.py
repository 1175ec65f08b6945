"""The files of additional states, each under a name that is never used twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from blake3 import blake3

from statevault.errors import CorruptStateError, ObjectNotFoundError, StorageError
from statevault.persistence.record import AdditionalFile, PolicyRecord, additional_folder
from statevault.persistence.staged import FileBody
from statevault.storage import Storage

__all__ = ["AdditionalFiles", "described"]

_logger = logging.getLogger(__name__)
_PIECE = 8 * 1024**2
_DEBRIS_AFTER = timedelta(days=1)


class AdditionalFiles:
    """The additional states of the policies of one name.

    Args:
        storage: Where the policy lies.
        name: The name of its file.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._folder = additional_folder(name)

    def put(self, record: PolicyRecord, files: Mapping[str, Path]) -> None:
        """Put the files of a policy that is saved afterwards.

        Raises:
            InvalidNameError: A file's name can't be used.
            StorageError: The storage failed; what was put is deleted again, as far as that is possible.
        """
        keys = []
        try:
            for path, file in files.items():
                keys.append(self._key(record, path))
                self._storage.put(keys[-1], FileBody(file))
        except Exception:
            # Nothing refers to them, and nothing will.
            with suppress(StorageError):
                self._storage.delete(keys)
            raise

    def read(
        self,
        record: PolicyRecord,
        path: str,
        use: Callable[[bytes], object],
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Read a file of a policy, and verify it.

        Args:
            record: The policy, which has such a file.
            path: The file's logical path.
            use: Is called with one piece after the other; they are known to be right when this method has returned.
            on_progress: Is called with the size of each piece.

        Raises:
            CorruptStateError: It is damaged, or not there.
            StorageError: The storage failed.
        """
        expected = (record.additional or {})[path]
        key = self._key(record, path)
        hasher = blake3()
        try:
            size = self._storage.head(key).size
            for start in range(0, size if size == expected.size else 0, _PIECE):
                piece = self._storage.get(key, start, min(size, start + _PIECE))
                hasher.update(piece)
                use(piece)
                if on_progress is not None:
                    on_progress(len(piece))
        except ObjectNotFoundError:
            raise CorruptStateError(
                f"{self._storage.url}/{key}, which belongs to {self._name}, is missing: restore another policy"
            ) from None
        if size != expected.size or hasher.hexdigest() != expected.digest:
            raise CorruptStateError(
                f"{self._storage.url}/{key}, which belongs to {self._name}, does not match its digest: it is damaged. "
                "Restore another policy"
            )

    def clean_up(self, record: PolicyRecord, previous: PolicyRecord | None) -> None:
        """Delete the files of a policy that was replaced, and what saves that died have left long ago.

        Args:
            record: The policy that is there.
            previous: The one in whose place it came.
        """
        try:
            waste = [self._key(previous, path) for path in previous.additional or ()] if previous is not None else []
            # A copy may come in the place of the same policy that was damaged.
            own = {self._key(record, path) for path in record.additional or ()}
            waste = [key for key in waste if key not in own]
            if record.additional:
                waste += self._debris(record)
            if waste:
                self._storage.delete(waste)
        except StorageError as error:
            # The policy is saved, and restores: not worth ending a training for. The next save looks again.
            _logger.warning(
                "%s/%s is saved, but what it replaced could not be deleted: %s", self._storage.url, self._name, error
            )

    def _debris(self, record: PolicyRecord) -> Iterator[str]:
        """What no save that may still be running has put, by the backend's clock: ours may be wrong."""
        own = self._key(record, "")
        found = [info for info in self._storage.list(self._folder) if info.modified is not None]
        newest = max((info.modified for info in found if info.modified and info.key.startswith(own)), default=None)
        for info in found:
            if newest is None or info.modified is None or info.key.startswith(own):
                continue
            if info.modified < newest - _DEBRIS_AFTER:
                yield info.key

    def _key(self, record: PolicyRecord, path: str) -> str:
        return f"{self._folder}{record.id}/{path}"


def described(file: Path) -> AdditionalFile:
    """Describe a local file, as it lies there."""
    hasher = blake3()
    for piece in FileBody(file):
        hasher.update(piece)
    return AdditionalFile(size=file.stat().st_size, digest=hasher.hexdigest())
