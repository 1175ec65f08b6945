"""Policies as files where the world of each says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from statevault.errors import CorruptStateError, FormatError, ObjectNotFoundError, StateNotFoundError
from statevault.persistence.home import Use, Write
from statevault.persistence.mode import PolicyMode
from statevault.persistence.policy_files import PolicyFiles
from statevault.persistence.record import PolicyRecord
from statevault.persistence.staged import StagedPolicy, staged_folder
from statevault.persistence.world import WorldLike, options_of
from statevault.storage import open_storage, parent_and_name

__all__ = ["WorldFiles"]

_logger = logging.getLogger(__name__)


class WorldFiles:
    """Policies as sealed files, ``policy.pt`` and ``policy_epoch_<n>.pt``. A :class:`PolicyHome`.

    Args:
        mode: How policies are written, which is in their names.
        storage_options: What fsspec needs for the paths of worlds that bring no options.
    """

    def __init__(self, mode: PolicyMode, storage_options: Mapping[str, Any] | None = None) -> None:
        self._mode = mode
        self._storage_options = storage_options
        self._opened: dict[str, tuple[Mapping[str, Any] | None, PolicyFiles]] = {}
        self._verified: set[str] = set()

    def save(self, world: WorldLike, record: PolicyRecord, write: Write, *, size: int) -> Any:
        """Save a policy in the place of the one of its name, as :meth:`PolicyHome.save` says."""
        path = world.persist_path(self._filename(None if record.best else record.epoch))
        files, name = self._place(world, path)
        with staged_folder(size) as folder:
            staged = StagedPolicy(folder, name)
            write(staged)
            files.put(name, staged, record)
        return path

    def best_score(self, world: WorldLike, *, above: float) -> float | None:
        """The score of the policy that the next best one will replace, as :meth:`PolicyHome.best_score` says."""
        files, name = self._place(world, world.persist_path(self._mode.get_filename()))
        try:
            _, record = files.look(name)
        except (ObjectNotFoundError, FormatError):
            return None
        if record is None or record.score is None:
            _logger.info("%s/%s is replaced: its score is not known", files.storage.url, name)
            return None
        return record.score if record.score > above and self._is_whole(files, name, record) else None

    def has_best(self, world: WorldLike) -> bool:
        """Whether the policy that the next best one will replace is whole, as :meth:`PolicyHome.has_best` says."""
        files, name = self._place(world, world.persist_path(self._mode.get_filename()))
        try:
            _, record = files.look(name)
        except (ObjectNotFoundError, FormatError):
            return False
        return self._is_whole(files, name, record)

    def load(self, world: WorldLike, use: Use, *, name: str | None, epoch: int | None) -> object:
        """Fetch a file from the world's place to restore from, as :meth:`PolicyHome.load` says."""
        filename = self._filename(epoch) if name is None else f"{name.removesuffix('.pt')}.pt"
        path = world.restore_path(filename)
        files, key = self._place(world, path)
        with staged_folder(_size_of(files, key)) as folder:
            staged, record = files.fetch(key, folder)
            use(staged, self._mode if record is None else PolicyMode(record.mode), str(path))
        return path

    def close(self) -> None:
        """Give back connections."""
        for _, files in self._opened.values():
            files.storage.close()
        self._opened.clear()

    def _is_whole(self, files: PolicyFiles, name: str, record: PolicyRecord | None) -> bool:
        """Verify a policy, once: one that can't be restored must not be in the way of those that can."""
        if record is None or record.id not in self._verified:
            try:
                files.verify(name)
            except (CorruptStateError, StateNotFoundError, FormatError) as error:
                _logger.warning("%s; it is replaced", error)
                return False
            if record is not None:
                self._verified.add(record.id)
        return True

    def _filename(self, epoch: int | None) -> str:
        return self._mode.get_filename() if epoch is None else self._mode.get_checkpoint_filename(epoch)

    def _place(self, world: WorldLike, path: Any) -> tuple[PolicyFiles, str]:
        """The folder of a path, which is opened once, and the name in it."""
        root, name = parent_and_name(path)
        options = options_of(world, path)
        options = self._storage_options if options is None else options
        options = options if "://" in root else None  # what is meant for a store says nothing of a folder
        opened = self._opened.get(root)
        if opened is None or opened[0] != options:
            opened = self._opened[root] = (options, PolicyFiles(open_storage(root, options)))
        return opened[1], name


def _size_of(files: PolicyFiles, name: str) -> int:
    """Bytes of a policy and its additional state."""
    try:
        file, record = files.look(name)
    except ObjectNotFoundError:
        others = [other for mode in PolicyMode if files.storage.exists(other := mode.get_filename())]
        hint = f"there is {others[0]}: give its name=, or its mode=" if others else "nor another one"
        raise StateNotFoundError(f"there is no policy {name} in {files.storage.url}; {hint}") from None
    additional = (record.additional if record is not None else None) or {}
    return file.size + sum(one.size for one in additional.values())
