"""The states of a store as they lie there: to list, to describe, to read and to verify."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from upath import UPath

from statevault.errors import CorruptStateError, StateNotFoundError, StatePrunedError
from statevault.format.keys import StateKey
from statevault.format.names import check_state_name
from statevault.format.records import CommitRecord
from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import Storage, normalized_url, open_storage, parent_and_name

__all__ = ["LATEST", "StatePath", "StoredStates"]

_logger = logging.getLogger(__name__)
LATEST = "latest"
_ROUNDS = 5

StatePath: TypeAlias = str | os.PathLike[str] | UPath
"""A path or a URL. (A remote UPath is no ``os.PathLike``.)"""


class StoredStates:
    """The committed states of one store, and the way to those of others.

    Args:
        states_dir: A path, the URL of any storage that fsspec reaches, or a storage of the caller's own.
        storage_options: What fsspec's filesystem of that protocol takes.

    Raises:
        InvalidNameError: The URL can't be used.
        StorageOptionError: A storage option can't be used.
        MissingExtraError: The protocol needs a package that is not installed.
    """

    def __init__(self, states_dir: StatePath | Storage, storage_options: Mapping[str, Any] | None = None) -> None:
        if isinstance(states_dir, UPath) and storage_options is None:
            storage_options = states_dir.storage_options
        self._storage = states_dir if isinstance(states_dir, Storage) else open_storage(states_dir, storage_options)
        self._storage_options = dict(storage_options or {})
        with suppress(OSError):
            self._storage.path()  # loads modules at the first call, for which there may be no descriptor later
        self._catalog = Catalog(self._storage)
        self._shown_generation = 0
        self._others: dict[str, StoredStates] = {}

    @property
    def url(self) -> str:
        """The store's root, without credentials."""
        return self._storage.url

    @property
    def generation(self) -> int:
        """Grows whenever another store was found under this URL: the one before was wiped, or replaced."""
        return self._catalog.generation

    def _show(self) -> Listing:
        """LIST the records for the caller, who may choose from them what to remove."""
        listing = self._catalog.listing()
        self._shown_generation = self._catalog.generation
        return listing

    def exists(self) -> bool:
        """Whether a state was ever saved here. A store is made by its first save.

        One that has lost its ``_vault/format.json`` is there as well; whatever reads its states says what to do.

        Raises:
            FormatError: The folder holds something else, or was written by a newer version.
            StorageError: The storage failed.
        """
        return self._catalog.check_format()

    def states(self) -> list[StateInfo]:
        """All committed states, oldest first.

        A state whose commit marker is damaged is not among them; it is reported in the log, and by :meth:`verify`.

        Raises:
            UnsupportedVersionError: The store was written by a newer version.
            FormatError: The folder holds something else than a store.
            StorageError: The storage failed.
        """
        infos = []
        for record in self._catalog.records_to_show(self._show()):
            if isinstance(record, CorruptStateError):
                _logger.warning("%s", record)
            else:
                infos.append(self._info(record))
        return infos

    def names(self) -> list[str]:
        """The names of all committed states, oldest first, also of those whose marker is damaged.

        Raises:
            StorageError: And the others of :meth:`states`.
        """
        return [key.state for key in self._show().visible]

    def damaged(self, names: Iterable[str]) -> set[str]:
        """Which of the states that :meth:`names` has told have a marker that can't be read. Nothing is listed again.

        Args:
            names: Names of states.

        Raises:
            StorageError: And the others of :meth:`states`.
        """
        return self._catalog.damaged(names)

    def path(self, name: str) -> UPath:
        """Where the state of a name lies, or would lie: its folder, a :class:`pathlib.Path` as well when that is local.

        Raises:
            InvalidNameError: `name` can't be the name of a state.
        """
        return self._storage.path(check_state_name(name))

    def latest(self) -> StateInfo | None:
        """The newest committed state whose marker is readable, None if there is none.

        Raises:
            StorageError: And the others of :meth:`states`.
        """
        for _ in range(_ROUNDS):
            pruned = False
            for key in reversed(self._show().visible):
                try:
                    return self._info(self._catalog.record(key))
                except StatePrunedError:
                    pruned = True
                except CorruptStateError as error:
                    _logger.warning("%s", error)
            if not pruned:
                return None
        raise StatePrunedError(f"the states of {self.url} are removed faster than they can be looked at: try again")

    def info(self, state: StatePath = LATEST) -> StateInfo:
        """Describe a state.

        Args:
            state: As for :meth:`load_state`.

        Raises:
            StateNotFoundError: It is not there.
            CorruptStateError: Its marker is damaged.
            StorageError: The storage failed.
        """
        store, key = self._resolve(state)
        return store._info(store._catalog.record(key))  # noqa: SLF001 - another one of this class

    def verify(self, state: StatePath = LATEST, *, on_progress: Callable[[int], None] | None = None) -> StateInfo:
        """Check every byte of a state against its digest.

        Args:
            state: As for :meth:`load_state`; never falls back to another state.
            on_progress: Called with the number of bytes checked since the last call, by several threads.

        Returns:
            The state, all of which is right.

        Raises:
            CorruptStateError: Something is missing or damaged; the message names it.
            StateNotFoundError: It is not there.
            StorageError: The storage failed.
        """
        reader = self.open_state(state)
        reader.verify(on_progress=on_progress)
        return self._info(reader.record)

    def open_state(self, state: StatePath = LATEST) -> StateReader:
        """Open a state to read single files of it.

        Args:
            state: As for :meth:`load_state`; never falls back to another state.

        Raises:
            StateNotFoundError: It is not there.
            CorruptStateError: Its manifest is damaged.
            StorageError: The storage failed.
        """
        store, key = self._resolve(state)
        return store._open(key)  # noqa: SLF001 - another one of this class

    def _close_storages(self) -> None:
        for other in self._others.values():
            other._close_storages()  # noqa: SLF001 - another one of this class
        self._storage.close()

    def _info(self, record: CommitRecord) -> StateInfo:
        return StateInfo.from_record(record, self._storage.path(record.state))

    def _open(self, key: StateKey) -> StateReader:
        return StateReader(self._storage, self._catalog, self._catalog.record(key))

    def _resolve(self, state: StatePath) -> tuple[StoredStates, StateKey]:
        """Find a state by ``"latest"``, name, path or URL: in this store, or in the one that the path is in."""
        text = str(state)
        if text == LATEST:
            visible = self._catalog.listing().visible
            if not visible:
                raise StateNotFoundError(f"{self.url} has no states")
            return self, visible[-1]
        if isinstance(state, str) and "/" not in text:
            return self, self._catalog.find(text)
        root, name = parent_and_name(text)
        if root == normalized_url(self._storage.url):
            return self, self._catalog.find(name)
        if root not in self._others:
            self._others[root] = StoredStates(root, storage_options=self._options_for(root, state))
        other = self._others[root]
        return other, other._catalog.find(name)  # noqa: SLF001 - another one of this class

    def _options_for(self, root: str, state: StatePath) -> Mapping[str, Any] | None:
        """The storage options of another store: the path's own, or ours where they are for the same protocol."""
        if isinstance(state, UPath):
            return state.storage_options
        same = root.partition("://")[0] == normalized_url(self.url).partition("://")[0]
        return self._storage_options if same else None
