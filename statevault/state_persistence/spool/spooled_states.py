"""The states of a store, and those on their way to it.

With a spool, a store speaks of the states at the remote and, after them, of those that are pending: a state that is
saved is there from its commit in the spool on, and nobody needs to know where it lies. What decides on many states at
once (retention, freed bytes, garbage collection, copies to other stores) is about the remote alone: the spool has a
bound of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from typing_extensions import override

from statevault.errors import InvalidNameError, StateNotFoundError, StateVaultError, StorageError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.concurrency.patience import Patience
from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.kept_states import KeptStates
from statevault.state_persistence.pruning.pins import pin_state
from statevault.state_persistence.pruning.prune import PruneResult
from statevault.state_persistence.publish.commit import SaveRequest, commit_snapshot
from statevault.state_persistence.publish.names import StateNames
from statevault.state_persistence.publish.reuse import Base
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.replicator import Replicator
from statevault.state_persistence.spool.status import ReplicationStatus
from statevault.state_persistence.spool.view import SpoolView
from statevault.state_persistence.stored_states import LATEST, StatePath, StoredStates
from statevault.storage import Storage, normalized_url, parent_and_name

__all__ = ["SpooledStates"]

_logger = logging.getLogger(__name__)


class SpooledStates(KeptStates):
    """The states of a store, with a spool before it or without one.

    Args:
        states_dir: As for :class:`StoredStates`.
        storage_options: As for :class:`StoredStates`.
        spool: Where states are committed and wait until they are at the store; None to save to it directly.

    Raises:
        InvalidNameError: The spool is no local folder, or the store itself.
    """

    def __init__(
        self,
        states_dir: StatePath | Storage,
        storage_options: Mapping[str, Any] | None = None,
        spool: Spool | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(states_dir, storage_options)
        self._spool: SpoolFolder | None = None
        self._replicator: Replicator | None = None
        if spool is not None:
            config = Spool.of(spool)
            remote = normalized_url(self._storage.url)
            if "://" not in remote and os.path.realpath(config.root) == os.path.realpath(remote):
                raise InvalidNameError(f"the spool {config.root} is the store itself: name another folder")
            self._spool = SpoolFolder(config, remote)
            self._replicator = Replicator(self._spool, self._storage, by=self._writer)
            # What an earlier process has left goes on at once.
            self._replicator.notify()

    # -- replication

    def replication(self) -> ReplicationStatus | None:
        """How replication goes; None without a spool. Nothing is asked of the remote.

        Errors of the spool's disk are told in the status.
        """
        return None if self._replicator is None else self._replicator.status()

    def _flush(self, patience: Patience) -> None:
        if self._replicator is not None:
            self._replicator.wait(patience)

    def _close_replication(self, patience: Patience) -> None:
        if self._replicator is not None and self._spool is not None:
            self._replicator.close(patience)
            if self._replicator.has_ended:
                self._spool.close()

    @override
    def _close_storages(self) -> None:
        # A thread that hangs in a call still needs them; they go with the process.
        if self._replicator is None or self._replicator.has_ended:
            super()._close_storages()

    # -- saving

    @property
    def _home(self) -> StoredStates:
        """The store in which states are committed."""
        return self if self._spool is None else self._spool.states

    def _commit(self, names: StateNames, request: SaveRequest) -> tuple[CommitRecord, Base]:
        if self._spool is None or self._replicator is None:
            return commit_snapshot(self._storage, self._catalog, names, request)
        committed = self._spool.commit(names, request)
        self._replicator.notify()
        return committed

    # -- what is there

    @override
    def exists(self) -> bool:
        return bool(self._pending()) or super().exists()

    @override
    def states(self) -> list[StateInfo]:
        pending = self._pending()  # before the others: what is replicated in between must not be missed
        infos = super().states()
        there = {(info.writer, info.created_at) for info in infos}
        waiting = (record for record in pending if (record.writer, record.created_at) not in there)
        return [*infos, *map(self._spool_info, waiting)]

    @override
    def names(self) -> list[str]:
        pending = [record.state for record in self._pending()]
        names = super().names()
        there = set(names)
        return [*names, *(name for name in pending if name not in there)]

    @override
    def latest(self) -> StateInfo | None:
        pending = self._pending()
        if pending:
            return self._spool_info(pending[-1])
        try:
            return super().latest()
        except StorageError as error:
            kept = () if self._spool is None else self._spool.view().done
            if not kept:
                raise
            self._warn_unreachable(error)
            return self._spool_info(kept[-1])

    @override
    def pins(self) -> dict[str, tuple[str, ...]]:
        waiting = self._waiting_pins()  # before the others: what is carried over in between must not be missed
        there = super().pins()
        return there | {name: tuple(sorted({*pins, *there.get(name, ())})) for name, pins in waiting.items()}

    @override
    def protected(self, *, resumed_from: str | None = None) -> dict[str, tuple[str, ...]]:
        pending = {record.state for record in self._pending()}
        spooled = {} if self._spool is None else self._spool.states.protected(resumed_from=resumed_from)
        waiting = {name: reasons for name, reasons in spooled.items() if name in pending}
        late = self._waiting_pins().items()
        there = super().protected(resumed_from=resumed_from)
        pinned = {name: [*there.get(name, ()), *(f"pinned as {pin!r}" for pin in pins)] for name, pins in late}
        return there | {name: tuple(dict.fromkeys(reasons)) for name, reasons in pinned.items()} | waiting

    # -- what becomes of single states

    @override
    def remove(self, states: Iterable[StatePath], *, reason: str = "removed by the user") -> PruneResult:
        if self._spool is None or self._replicator is None:
            return super().remove(states, reason=reason)
        names = self._own_names(states, "remove")
        # Told first: of one that is just being copied, what arrives after this is taken back.
        self._replicator.forget(names)
        view = self._spool.view()
        local = self._spool.states.remove(names & {record.state for record in view.records}, reason=reason)
        # A name as the remote lists it comes before one that only the spool knows by.
        there = {key.state for key in self._catalog.listing(generation=self._shown_generation).visible}
        known = {name if name in there else view.name_at_remote(name) for name in names - set(local.spared)}
        spared = known & self._waiting_pins(view).keys()
        remote = super().remove(known - spared, reason=reason)
        waiting = {record.state for record in view.pending}
        return PruneResult(
            removed=(*remote.removed, *(name for name in local.removed if name in waiting)),
            spared=(*remote.spared, *sorted(spared), *(name for name in local.spared if name in waiting)),
            objects=local.objects + remote.objects,
            freed=local.freed + remote.freed,
        )

    @override
    def pin(self, state: StatePath, name: str = "pin") -> None:
        if self._spool is None:
            super().pin(state, name)
            return
        store, key = self._resolve(state)
        if store is self:
            super().pin(key.state, name)
            return
        if store is not self._spool.states:
            super().pin(state, name)  # which says that it is of another store
            return
        if key in self._spool.pending_keys():
            pin_state(self._spool.storage, key, name, by=self._writer)
            if key in self._spool.pending_keys():
                return  # it goes to the remote with its state
        remote = self._catalog.find(self._spool.view().name_at_remote(key.state))
        pin_state(self._storage, remote, name, by=self._writer)

    @override
    def unpin(self, state: StatePath, name: str | None = None) -> int:
        if self._spool is None:
            return super().unpin(state, name)
        own = self._own_name(state)
        is_unfinished = own in {key.state for key in self._spool.unfinished_keys()}
        local = self._spool.states.unpin(own, name)
        remote = super().unpin(self._spool.view().name_at_remote(own), name)
        return local if is_unfinished else remote

    # -- where things are

    def _newest_first_everywhere(self, *, but_local: bool = False) -> Iterator[tuple[StoredStates, StateKey]]:
        """All states with the stores that they are to be loaded from: pending ones, then those at the remote.

        A state that is at the remote and still in the spool is loaded from there. Where the remote can't be listed,
        what the spool has kept of it comes instead.

        Args:
            but_local: Whether the remote is not asked.

        Raises:
            StorageError: The remote can't be listed, and the spool is empty.
        """
        if self._spool is None:
            yield from ((self, key) for key in reversed(self._catalog.listing().visible))
            return
        spooled = self._spool.states
        view = self._spool.view()
        pending = _keys(view.pending)
        yield from ((spooled, key) for key in reversed(pending))
        if not but_local:
            try:
                listing = self._catalog.listing()
            except StorageError as error:
                if not view.records:
                    raise
                self._warn_unreachable(error)
            else:
                here = view.at(listing)
                if self._replicator is not None and len(here.pending) > len(pending):
                    # The remote was wiped: what the spool has kept of it is to be replicated again.
                    self._replicator.look_again()
                    yield from ((spooled, key) for key in reversed(_keys(here.pending)) if key not in pending)
                kept = here.kept
                for key in reversed(listing.visible):
                    yield (spooled, kept[key.state]) if key.state in kept else (self, key)
                return
        yield from ((spooled, key) for key in reversed(view.kept.values()))

    @override
    def _resolve(self, state: StatePath) -> tuple[StoredStates, StateKey]:
        if self._spool is None:
            return super()._resolve(state)
        if str(state) == LATEST:
            for found in self._newest_first_everywhere():
                return found
            raise StateNotFoundError(f"{self.url} has no states, nor has the spool {self._spool.config.root}")
        name = self._name_here(state)
        if name is None:
            return super()._resolve(state)
        for key in reversed(self._spool.side.catalog.listing().visible):
            if key.state == name:
                return self._spool.states, key
        return super()._resolve(self._spool.view().name_at_remote(name))

    @override
    def _own_key(self, state: StatePath) -> StateKey:
        if self._spool is not None:  # of the remote: what is pending is copied there first
            if str(state) == LATEST:
                return super()._resolve(LATEST)[1]
            name = self._name_here(state)
            if name is not None:
                return self._catalog.find(self._spool.view().name_at_remote(name))
        return super()._own_key(state)

    @override
    def _own_name(self, state: StatePath) -> str:
        name = self._name_here(state) if self._spool is not None and str(state) != LATEST else None
        return super()._own_name(state) if name is None else name

    def _looked_in(self, root: str) -> StoredStates:
        """The store of a root, in which a state was looked for before."""
        if self._spool is not None and root == self._spool.config.root:
            return self._spool.states
        return self if root == normalized_url(self._storage.url) else self._others[root]

    def _name_here(self, state: StatePath) -> str | None:
        """The name of a state of this store or of its spool; None for the path of one of another store."""
        text = str(state)
        if isinstance(state, str) and "/" not in text:
            return text
        root, name = parent_and_name(text)
        roots = {normalized_url(self._storage.url), "" if self._spool is None else self._spool.config.root}
        return name if root in roots else None

    def _pending(self) -> list[CommitRecord]:
        return [] if self._spool is None else self._spool.view().pending

    def _waiting_pins(self, view: SpoolView | None = None) -> dict[str, tuple[str, ...]]:
        """The pins that are in the spool and may not be at the remote yet, by the names of their states there."""
        if self._spool is None:
            return {}
        view = view or self._spool.view()
        names = {record.state: record.state for record in view.pending}
        names |= {record.state: name for record, name in view.with_waiting_pins}
        pins = self._spool.states.pins() if names else {}
        return {there: pins[name] for name, there in names.items() if name in pins}

    def _spool_info(self, record: CommitRecord) -> StateInfo:
        if self._spool is None:
            raise StateVaultError("the store has no spool")
        return StateInfo.from_record(record, self._spool.storage.path(record.state))

    def _warn_unreachable(self, error: StorageError) -> None:
        root = "" if self._spool is None else self._spool.config.root
        _logger.warning("%s can't be reached; going by what is in the spool %s: %s", self.url, root, error)


def _keys(records: Iterable[CommitRecord]) -> list[StateKey]:
    return [StateKey(record.sequence, record.state) for record in records]
