"""Policies as sealed files of one folder, each with an additional state of its own beside it.

The file of a policy is the commit marker of both: additional files are put under a fresh name first, the policy's seal
names them with their digests, and those of the policy that was there before are deleted last. So a policy and its
additional state change together or not at all, whatever dies when, and a reader gets both of the same save.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import IO

from statevault.codecs import SealWriter
from statevault.codecs.tree.layout import MAGIC, PREAMBLE_SIZE, parse_preamble, segment_offsets
from statevault.errors import (
    CorruptStateError,
    FormatError,
    ObjectNotFoundError,
    StateNotFoundError,
    UnsupportedTypeError,
)
from statevault.format.names import check_logical_path
from statevault.persistence.additional import AdditionalFiles, described
from statevault.persistence.record import PolicyRecord
from statevault.persistence.staged import StagedPolicy
from statevault.sealed import SealedFile, SealedFiles
from statevault.storage import Storage

__all__ = ["PolicyFiles"]

_PIECE = 8 * 1024**2
_ROUNDS = 5
_ARCHIVE, _ARCHIVE_END, _ARCHIVE_END_SIZE = b"PK\x03\x04", b"PK\x05\x06", 22

OnProgress = Callable[[int], None]


class PolicyFiles:
    """The policies in a folder.

    Args:
        storage: The folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._sealed = SealedFiles(storage)

    def put(self, name: str, staged: StagedPolicy, record: PolicyRecord) -> PolicyRecord:
        """Save a policy with its additional state, in the place of the one of that name.

        Args:
            name: The name of the policy's file.
            staged: The policy.
            record: What it says of itself, but for its additional files.

        Returns:
            The record as it was saved.

        Raises:
            UnsupportedTypeError: The additional state is not of regular files, or of too many.
            InvalidNameError: A file's name can't be used.
            StorageError: The storage failed. The policy that was there is, with all that belongs to it; or this one, if
                an answer was lost.
        """
        if staged.additional.is_dir():
            additional = {check_logical_path(path): described(file) for path, file in staged.additional_files().items()}
            record = PolicyRecord(**{**record.model_dump(exclude={"additional"}), "additional": additional})
        _check_fits_a_seal(name, record)
        previous = self._record_of_previous(name)
        additional_files = AdditionalFiles(self.storage, name)
        additional_files.put(record, staged.additional_files())
        # Only now the policy: what its seal names is there.
        with staged.file.open("rb") as payload:
            self._sealed.put(name, payload, record.to_info())
        additional_files.clean_up(record, previous)
        return record

    def look(self, name: str, size: int | None = None) -> tuple[SealedFile, PolicyRecord | None]:
        """Read what a policy's file says of itself; nothing is verified.

        Args:
            name: Its name.
            size: Its size, if a listing has told it.

        Returns:
            The file, and its record: None if it has no seal, or is no policy.

        Raises:
            ObjectNotFoundError: It is not there.
            FormatError: Its seal is malformed.
            StorageError: The storage failed.
        """
        file = self._sealed.look(name, size)
        return file, PolicyRecord.from_info(file.info, where=self._where(name))

    def fetch(
        self, name: str, folder: Path, on_progress: OnProgress | None = None
    ) -> tuple[StagedPolicy, PolicyRecord | None]:
        """Fetch a policy and its additional state, all verified.

        Args:
            name: The name of the policy's file.
            folder: A local folder.
            on_progress: Is called with the number of bytes that were read since the last call.

        Returns:
            The policy below `folder`, without additional state if it was saved without; and its record, None if it has
            no seal.

        Raises:
            StateNotFoundError: It is not there.
            CorruptStateError: It is damaged, or its additional state is.
            FormatError: It is a file of another kind.
            StorageError: The storage failed.
        """
        for number in range(_ROUNDS):
            # A folder of its own for each round: nothing of a policy that was replaced meanwhile is left in it.
            staged = StagedPolicy(folder / str(number), name)
            staged.folder.mkdir()
            record = self._read(name, partial(_copy, staged.file), on_progress)
            if record is not None and record.additional is not None:
                staged.additional.mkdir()
            if self._read_additional(name, record, partial(_new_file, staged.additional), on_progress):
                return staged, record
        raise CorruptStateError(f"{self._where(name)} is replaced faster than it can be read: try again")

    def verify(self, name: str, on_progress: OnProgress | None = None) -> PolicyRecord | None:
        """Check every byte of a policy and of its additional state against its digest.

        Args:
            name: The name of the policy's file.
            on_progress: Is called with the number of bytes that were read since the last call.

        Returns:
            Its record; None if it has no seal, so that nothing can be told.

        Raises:
            As for :meth:`fetch`.
        """
        for _ in range(_ROUNDS):
            record = self._read(name, lambda payload: None, on_progress)
            if self._read_additional(name, record, lambda path: nullcontext(lambda piece: None), on_progress):
                return record
        raise CorruptStateError(f"{self._where(name)} is replaced faster than it can be read: try again")

    def _read(self, name: str, use: Callable[[IO[bytes]], None], on_progress: OnProgress | None) -> PolicyRecord | None:
        try:
            payload, file = self._sealed.open(name, on_progress)
        except ObjectNotFoundError:
            raise StateNotFoundError(f"there is no policy {self._where(name)}") from None
        with payload:
            record = PolicyRecord.from_info(file.info, where=self._where(name))
            if record is None and file.info is not None:
                raise FormatError(
                    f"{self._where(name)} is no policy, but a sealed file of the kind {file.info.get('kind')!r}"
                )
            if file.info is None:
                _check_not_cut(payload, self._where(name))
            use(payload)
        return record

    def _read_additional(
        self,
        name: str,
        record: PolicyRecord | None,
        open_file: Callable[[str], AbstractContextManager[Callable[[bytes], object]]],
        on_progress: OnProgress | None,
    ) -> bool:
        """Read all additional files of a policy; False if it was replaced meanwhile, so that they may be gone."""
        try:
            if record is not None:
                for path in record.additional or ():
                    with open_file(path) as write:
                        AdditionalFiles(self.storage, name).read(record, path, write, on_progress)
        except CorruptStateError:
            with suppress(ObjectNotFoundError):
                if self.look(name)[1] != record:
                    return False
            raise
        return True

    def _record_of_previous(self, name: str) -> PolicyRecord | None:
        try:
            return self.look(name)[1]
        except (ObjectNotFoundError, FormatError):
            return None

    def _where(self, key: str) -> str:
        return f"{self.storage.url}/{key}"


def _check_fits_a_seal(name: str, record: PolicyRecord) -> None:
    try:
        SealWriter(record.to_info())
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(
            f"the additional state of {name} has {len(record.additional or ())} files, more than a policy can have: "
            f"write one archive instead ({error})"
        ) from error


def _check_not_cut(payload: IO[bytes], where: str) -> None:
    """Check that a file without a seal ends where its format says: one that was cut short has lost its seal as well.

    Torch reads an archive also when it has lost a part of its seal. Of the format that :func:`torch.save` wrote before
    archives nothing can be told.

    Raises:
        CorruptStateError: It is empty, or ends in another way than archives of :func:`torch.save` or tree files do.
        UnsupportedVersionError: It is a tree file that a newer version wrote.
    """
    size = payload.seek(0, os.SEEK_END)
    payload.seek(0)
    magic = payload.read(len(MAGIC))
    if not magic:
        raise CorruptStateError(f"{where} is empty")
    if _ARCHIVE.startswith(magic[: len(_ARCHIVE)]):
        payload.seek(max(0, size - _ARCHIVE_END_SIZE))
        end = payload.read()
        if not (end.startswith(_ARCHIVE_END) and end.endswith(b"\0\0")):
            raise CorruptStateError(f"{where} does not end as an archive does: it was cut short")
    elif MAGIC.startswith(magic) and _size_of_tree(payload, size) != size:
        raise CorruptStateError(f"{where} does not end as a tree file does: it was cut short")
    payload.seek(0)


def _size_of_tree(payload: IO[bytes], size: int) -> int | None:
    """The size that a tree file should have; None if it ends before it says so."""
    payload.seek(0)
    try:
        preamble = parse_preamble(payload.read(PREAMBLE_SIZE))
    except CorruptStateError:
        return None
    if preamble.head_length > size:  # also where damage made it absurd: nobody reads gigabytes of "table"
        return None
    _, _, expected = segment_offsets(preamble, memoryview(payload.read(8 * preamble.segment_count)))
    return expected


@contextmanager
def _new_file(folder: Path, path: str) -> Iterator[Callable[[bytes], object]]:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        yield file.write


def _copy(file: Path, payload: IO[bytes]) -> None:
    with file.open("wb") as target:
        shutil.copyfileobj(payload, target, _PIECE)
