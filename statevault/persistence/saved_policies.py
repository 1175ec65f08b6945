"""The policies that lie in a folder as files: listing, verifying and copying them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from statevault.errors import CorruptStateError, FormatError, ObjectNotFoundError, StateNotFoundError
from statevault.persistence.policy_files import PolicyFiles
from statevault.persistence.record import (
    AdditionalFile,
    PolicyRecord,
    additional_folder,
    is_policy_name,
    parse_policy_name,
)
from statevault.persistence.staged import FileBody, staged_folder
from statevault.sealed import SealedFile
from statevault.storage import ObjectInfo, Storage

__all__ = ["CopiedPolicy", "SavedPolicy", "copy_policies", "list_policies", "verify_policy"]

_logger = logging.getLogger(__name__)
_PREFIX, _SUFFIX = "policy", ".pt"
_NO_ID = "0" * 16


@dataclass(frozen=True, slots=True)
class SavedPolicy:
    """A policy's file, as its seal describes it.

    Attributes:
        name: Its name, such as ``policy_epoch_3.pt``.
        key: Where it lies below the folder: its name.
        mode: How it is written: ``"policy"`` or ``"policy_state_dict"``.
        epoch: After which epoch it was saved; for a file without a seal, what its name says.
        env_step: After how many steps of the environment.
        gradient_step: After how many steps of the optimizer.
        score: What it has scored, as far as that was known.
        best: Whether it was saved as the best so far.
        size: Bytes of its file, without the seal.
        modified: When it was stored, by the backend's clock (UTC); None where the backend does not tell.
        additional: The files of its additional state by logical path; None if it was saved without such.
        additional_folder: The key below which they lie; empty if there are none.
        is_sealed: Whether it has a seal. Another program wrote one that has none, or it was cut short.
    """

    name: str
    key: str
    mode: str
    epoch: int | None
    env_step: int | None
    gradient_step: int | None
    score: float | None
    best: bool
    size: int
    modified: datetime | None
    additional: dict[str, AdditionalFile] | None
    additional_folder: str
    is_sealed: bool

    @property
    def total_size(self) -> int:
        """Bytes of its file and of its additional state."""
        return self.size + sum(file.size for file in (self.additional or {}).values())


@dataclass(frozen=True, slots=True)
class CopiedPolicy:
    """What became of a policy that was to be copied.

    Attributes:
        name: Its name.
        outcome: ``"copied"``; ``"present"``: the target has it, undamaged; ``"damaged"``, or ``"missing"`` by now, in
            the source, so that it was not copied.
        size: Bytes of its file and of its additional state; 0 if that is not known.
        error: What is damaged.
    """

    name: str
    outcome: Literal["copied", "present", "damaged", "missing"]
    size: int = 0
    error: str | None = None


def list_policies(storage: Storage) -> list[SavedPolicy]:
    """The policies in a folder, by name. Nothing is verified.

    Other files are passed over, and those whose seal can't be understood, which is reported in the log.

    Args:
        storage: The folder.

    Raises:
        StorageError: The storage failed.
    """
    files = PolicyFiles(storage)
    policies = []
    for info in storage.list(_PREFIX):
        if "/" in info.key or not info.key.endswith(_SUFFIX):
            continue
        try:
            file, record = files.look(info.key, info.size)
        except FormatError as error:
            # Quoted: its keys are those of a file that anybody may have written.
            _logger.warning("passed over: %r", str(error))
            continue
        except ObjectNotFoundError:
            continue  # it was deleted meanwhile
        if record is not None or (file.info is None and is_policy_name(info.key)):
            policies.append(_saved(info, file, record))
    return policies


def verify_policy(storage: Storage, name: str, *, on_progress: Callable[[int], None] | None = None) -> SavedPolicy:
    """Check every byte of a policy and of its additional state against its digest.

    Args:
        storage: The folder.
        name: The name of the policy's file, with or without ``.pt``.
        on_progress: Is called with the number of bytes that were read since the last call.

    Returns:
        The policy. Of one that has no seal nothing can be told (`is_sealed`).

    Raises:
        StateNotFoundError: It is not there.
        CorruptStateError: It is damaged, or its additional state is.
        FormatError: It is a file of another kind.
        StorageError: The storage failed.
    """
    files, key = PolicyFiles(storage), _key(name)
    record = files.verify(key, on_progress)
    try:
        info = storage.head(key)
        file, now = files.look(key, info.size)
    except ObjectNotFoundError:
        raise StateNotFoundError(f"the policy {key} was removed from {storage.url} meanwhile") from None
    if now != record:  # it was replaced meanwhile
        return verify_policy(storage, name)
    return _saved(info, file, record)


def copy_policies(
    source: Storage,
    target: Storage,
    names: Iterable[str] | None = None,
    *,
    on_progress: Callable[[int], None] | None = None,
    on_policy: Callable[[CopiedPolicy], None] | None = None,
) -> list[CopiedPolicy]:
    """Copy policies with their additional states to another folder, every byte verified.

    What the target has already, undamaged, is passed over, so that a copy that was interrupted goes on when it is
    called again. A policy of the same name that is another one, or is damaged there, is replaced as by a save.

    Args:
        source: The folder to copy from.
        target: The folder to copy to, which need not exist.
        names: Their names, with or without ``.pt``; None for all.
        on_progress: Is called with the number of bytes that are done since the last call.
        on_policy: Is called after each.

    Returns:
        What became of each. Those that are damaged are among them, not copied.

    Raises:
        TypeError: `names` is one name, and not several.
        StateNotFoundError: One of them is not there: nothing was copied.
        StorageError: One of the storages failed; call again to go on.
    """
    if isinstance(names, str):
        raise TypeError(f"copy_policies() takes several names: [{names!r}]")
    there = {policy.name: policy for policy in list_policies(source)}
    keys = list(there) if names is None else [_key(name) for name in names]
    for key in keys:
        if key not in there:
            raise StateNotFoundError(f"there is no policy {key} in {source.url}: nothing was copied")
    results = []
    for key in keys:
        results.append(_copied(PolicyFiles(source), PolicyFiles(target), there[key], on_progress))
        if on_policy is not None:
            on_policy(results[-1])
    return results


def _copied(
    source: PolicyFiles, target: PolicyFiles, policy: SavedPolicy, on_progress: Callable[[int], None] | None
) -> CopiedPolicy:
    name = policy.name
    with staged_folder(policy.total_size) as folder:
        try:
            if policy.is_sealed and _is_whole_in(target, name, source.look(name)[1], on_progress):
                return CopiedPolicy(name, "present", policy.total_size)
            staged, record = source.fetch(name, folder, on_progress)
        except (CorruptStateError, FormatError) as error:
            return CopiedPolicy(name, "damaged", error=str(error))
        except (StateNotFoundError, ObjectNotFoundError):
            return CopiedPolicy(name, "missing")
        size = staged.file.stat().st_size + sum(file.stat().st_size for file in staged.additional_files().values())
        if record is not None:
            target.put(name, staged, record)
        elif _has(target.storage, name, staged.file):
            return CopiedPolicy(name, "present", size)
        else:
            target.storage.put(name, FileBody(staged.file))
    return CopiedPolicy(name, "copied", size)


def _is_whole_in(
    target: PolicyFiles, name: str, record: PolicyRecord | None, on_progress: Callable[[int], None] | None
) -> bool:
    """Whether a target has this very policy, undamaged."""
    try:
        return target.look(name)[1] == record and target.verify(name, on_progress) == record
    except (ObjectNotFoundError, StateNotFoundError, FormatError):
        return False
    except CorruptStateError as error:
        _logger.warning("copied again: %r", str(error))
        return False


def _has(storage: Storage, key: str, file: Path) -> bool:
    """Whether an object is what a local file is."""
    try:
        if storage.head(key).size != file.stat().st_size:
            return False
        start = 0
        for piece in FileBody(file):
            if storage.get(key, start, start + len(piece)) != piece:
                return False
            start += len(piece)
    except ObjectNotFoundError:
        return False
    return True


def _saved(info: ObjectInfo, file: SealedFile, record: PolicyRecord | None) -> SavedPolicy:
    if record is None:
        mode, epoch = parse_policy_name(info.key)
        record = PolicyRecord(id=_NO_ID, mode=mode.value, epoch=epoch)
    return SavedPolicy(
        name=info.key,
        key=info.key,
        mode=record.mode,
        epoch=record.epoch,
        env_step=record.env_step,
        gradient_step=record.gradient_step,
        score=record.score,
        best=record.best,
        size=file.size,
        modified=info.modified,
        additional=record.additional,
        additional_folder=f"{additional_folder(info.key)}{record.id}/" if record.additional else "",
        is_sealed=file.info is not None,
    )


def _key(name: str) -> str:
    return f"{name.removesuffix(_SUFFIX)}{_SUFFIX}"
