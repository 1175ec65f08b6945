"""The files of an experiment as files: every byte against its digest, copies of them. Nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from statevault.errors import CorruptStateError, FormatError, ObjectNotFoundError
from statevault.experiments.layout import METADATA_KEY, METRICS_MARKER_KEY, RESULTS, is_sealed_key
from statevault.sealed import SealedFiles, from_sealed_json
from statevault.storage import ObjectInfo, Storage

__all__ = ["CheckedFile", "CopiedFile", "check_files", "copy_files", "own_files"]


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file that was checked.

    Attributes:
        key: Where it lies.
        size: Bytes.
        has_digest: Whether it states one; a file of an older run does not.
        error: What is wrong with it; None if nothing is.
    """

    key: str
    size: int
    has_digest: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file that was to be copied.

    Attributes:
        key: Where it lies.
        size: Bytes.
        outcome: What became of it; ``"gone"`` if retention took it meanwhile.
        error: What is wrong with it; None if nothing is.
    """

    key: str
    size: int
    outcome: Literal["copied", "present", "damaged", "gone"]
    error: str | None = None


def own_files(storage: Storage, folders: Iterable[str] | None = None) -> list[ObjectInfo]:
    """The files of an experiment, but claims: in the order in which they are written.

    So that a copy which breaks off is never taken for more than it is: ``metadata.json`` comes last, and what says that
    a trial is complete after its checkpoints.

    Args:
        storage: The folder of the experiment.
        folders: The trials to take (``algorithm_0/trial_3``), beside what belongs to all; None for all.

    Raises:
        StorageError: The storage failed.
    """
    chosen = None if folders is None else tuple(f"{folder.strip('/')}/" for folder in folders)
    found = [
        info
        for info in storage.list()
        if (_is_file(info.key) or info.key.startswith(RESULTS))
        and (chosen is None or not info.key.startswith("algorithm_") or info.key.startswith(chosen))
    ]
    return sorted(found, key=lambda info: (_rank(info.key), info.key))


def check_files(
    storage: Storage, files: Iterable[ObjectInfo], on_progress: Callable[[int], None] | None = None
) -> Iterator[CheckedFile]:
    """Check every byte of files against the digests that they state.

    Args:
        storage: The folder of the experiment.
        files: Which.
        on_progress: Is called with the number of bytes that were checked since the last call.

    Yields:
        What was found. Files that went meanwhile are passed over, and so are tables and plots, which state none.

    Raises:
        StorageError: The storage failed.
    """
    for info in files:
        if info.key.startswith(RESULTS):
            continue
        try:
            has_digest = _check(storage, info.key)
            yield CheckedFile(info.key, info.size, has_digest, None)
        except ObjectNotFoundError:
            continue
        except (CorruptStateError, FormatError) as error:
            yield CheckedFile(info.key, info.size, True, str(error))
        if on_progress is not None:
            on_progress(info.size)


def copy_files(
    source: Storage, target: Storage, files: Iterable[ObjectInfo], on_progress: Callable[[int], None] | None = None
) -> Iterator[CopiedFile]:
    """Copy files, each checked before and compared after.

    What is the same in the target already is passed over: a copy that broke off is gone on with.

    Args:
        source: The folder to copy from.
        target: The folder to copy to.
        files: Which.
        on_progress: Is called with the number of bytes that were done since the last call.

    Yields:
        What became of each. Damaged files are not copied.

    Raises:
        StorageError: A storage failed.
    """
    for info in files:
        try:
            yield _copy(source, target, info)
        except ObjectNotFoundError:
            yield CopiedFile(info.key, info.size, "gone")
        except (CorruptStateError, FormatError) as error:
            yield CopiedFile(info.key, info.size, "damaged", str(error))
        if on_progress is not None:
            on_progress(info.size)


def _copy(source: Storage, target: Storage, info: ObjectInfo) -> CopiedFile:
    if _is_json(info.key) or info.key.startswith(RESULTS):
        content = source.get(info.key)
        if _is_json(info.key):
            from_sealed_json(content, where=f"{info.key} in {source.url}")
        try:
            if target.get(info.key) == content:
                return CopiedFile(info.key, info.size, "present")
        except ObjectNotFoundError:
            pass
        target.put(info.key, content)
        return CopiedFile(info.key, info.size, "copied")
    here, there = SealedFiles(source), SealedFiles(target)
    described = here.look(info.key)
    try:
        if described.digest and there.verify(info.key).digest == described.digest:
            return CopiedFile(info.key, info.size, "present")
    except (ObjectNotFoundError, CorruptStateError):
        pass
    here.copy(info.key, target)
    return CopiedFile(info.key, info.size, "copied")


def _check(storage: Storage, key: str) -> bool:
    if not _is_json(key):
        return SealedFiles(storage).verify(key).info is not None
    content = storage.get(key)
    from_sealed_json(content, where=f"{key} in {storage.url}")
    return "digest" in json.loads(content)


def _is_json(key: str) -> bool:
    return key.endswith(".json") and not key.startswith(RESULTS)


def _is_file(key: str) -> bool:
    return is_sealed_key(key) or is_sealed_key(f"{key}.zst")


def _rank(key: str) -> int:
    name = key.rpartition("/")[2]
    if key in (METADATA_KEY, METRICS_MARKER_KEY):
        return 3 if key == METADATA_KEY else 2
    return 1 if name in ("complete.json", "progress.json") else 0
