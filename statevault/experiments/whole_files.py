"""The files of an experiment as files: every byte against its digest, copies of them. Nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from statevault.errors import CorruptStateError, ExperimentExistsError, FormatError, ObjectNotFoundError
from statevault.experiments.layout import (
    ALGORITHMS_KEY,
    METADATA_KEY,
    METRICS_MARKER_KEY,
    PROBLEM_KEY,
    RESULTS,
    is_completion_key,
    is_sealed_key,
    older_key,
    parse_checkpoint,
)
from statevault.experiments.own_objects import own_objects
from statevault.experiments.records import CompletionRecord, ExperimentMetadata
from statevault.experiments.unsealed import check_unsealed
from statevault.sealed import SealedFiles, from_sealed_json
from statevault.storage import ObjectInfo, Storage

__all__ = ["CheckedFile", "CopiedFile", "check_files", "copy_files", "missing_files", "own_files", "refuse_another"]

# What no key may hold: the listing of a local disk shows such names, which are somebody else's.
_NO_KEY = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


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
        for info in own_objects(storage)
        if (_is_file(info.key) or (info.key.startswith(RESULTS) and not _NO_KEY.search(info.key)))
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
        What was found. Of a file of an older run, which states none, it is told whether it was cut short. Files that
        went meanwhile are passed over, and so are tables and plots.

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


def missing_files(storage: Storage, files: Iterable[ObjectInfo]) -> Iterator[CheckedFile]:
    """Look for what an experiment must have and has not.

    Args:
        storage: The folder of the experiment.
        files: All of its files, or those of some trials and what belongs to all.

    Yields:
        The files that are not there: what it began with, and checkpoints that complete trials end with.

    Raises:
        StorageError: The storage failed.
    """
    keys = {info.key for info in files}
    for key in (PROBLEM_KEY, ALGORITHMS_KEY):
        if METADATA_KEY in keys and not keys & {key, older_key(key)}:
            yield _missing(storage, key, "an experiment begins with it")
    for completion in sorted(filter(is_completion_key, keys)):
        checkpoint = _final_checkpoint(storage, completion)
        # One that came while the folder was listed is not among the files.
        if checkpoint is None or checkpoint in keys or storage.exists(checkpoint):
            continue
        # Who goes on with the trial replaces the record, and then the checkpoint goes.
        if _final_checkpoint(storage, completion) == checkpoint:
            yield _missing(storage, checkpoint, f"{completion} names it")


def refuse_another(source: Storage, target: Storage) -> None:
    """Make sure that a copy goes to where nothing is, or to where the same experiment is.

    Args:
        source: The folder to copy from.
        target: The folder to copy to.

    Raises:
        ExperimentExistsError: `target` holds another experiment, or nobody can tell which.
        CorruptStateError: The metadata in `source` is damaged, so that nobody can tell.
        FormatError: It is not as it must be.
        StorageError: A storage failed.
    """
    try:
        data = target.get(METADATA_KEY)
    except ObjectNotFoundError:
        return
    remedy = "copy to another folder"
    try:
        there = ExperimentMetadata.from_bytes(data, where=f"{METADATA_KEY} in {target.url}")
    except (CorruptStateError, FormatError) as error:
        raise ExperimentExistsError(f"{error}: it may be another experiment's than {source.url}, {remedy}") from error
    here = ExperimentMetadata.from_bytes(source.get(METADATA_KEY), where=f"{METADATA_KEY} in {source.url}")
    if _identity(here) != _identity(there):
        raise ExperimentExistsError(f"{target.url} holds another experiment than {source.url}: {remedy}")


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
    if not described.digest:
        check_unsealed(source, info.key)
    here.copy(info.key, target)
    return CopiedFile(info.key, info.size, "copied")


def _check(storage: Storage, key: str) -> bool:
    if not _is_json(key):
        if SealedFiles(storage).verify(key).info is not None:
            return True
        check_unsealed(storage, key)
        return False
    content, where = storage.get(key), f"{key} in {storage.url}"
    if key == METADATA_KEY:
        ExperimentMetadata.from_bytes(content, where=where)
    elif is_completion_key(key):
        CompletionRecord.from_bytes(content, where=where)
    else:
        from_sealed_json(content, where=where)  # nothing depends on what these say
    return "digest" in json.loads(content)


def _missing(storage: Storage, key: str, why: str) -> CheckedFile:
    return CheckedFile(key, 0, has_digest=False, error=f"{key} in {storage.url} is missing: {why}")


def _final_checkpoint(storage: Storage, completion: str) -> str | None:
    """The checkpoint that the record of a complete trial names; None if the record can't be read: it is damaged."""
    try:
        record = CompletionRecord.from_bytes(storage.get(completion), where=completion)
    except (ObjectNotFoundError, CorruptStateError, FormatError):
        return None
    if parse_checkpoint(record.checkpoint_name) is None:
        return None  # it counts for nothing
    return f"{completion.rpartition('/')[0]}/{record.checkpoint_name}"


def _identity(metadata: ExperimentMetadata) -> object:
    """What tells experiments apart; those of older runs have no `id`."""
    return metadata.id or (metadata.rng_seed, [entry.name for entry in metadata.algorithms])


def _is_json(key: str) -> bool:
    return key.endswith(".json") and not key.startswith(RESULTS)


def _is_file(key: str) -> bool:
    return is_sealed_key(key) or is_sealed_key(f"{key}.zst")


def _rank(key: str) -> int:
    name = key.rpartition("/")[2]
    if key in (METADATA_KEY, METRICS_MARKER_KEY):
        return 3 if key == METADATA_KEY else 2
    return 1 if name in ("complete.json", "progress.json") else 0
