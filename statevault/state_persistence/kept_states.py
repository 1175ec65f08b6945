"""Which states of a store stay: removing, pinning, copying, and what a policy would do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from upath import UPath

from statevault.errors import StateNotFoundError
from statevault.format.keys import StateKey
from statevault.state_persistence.copies.copying import CopiedState, CopyReport, CopySide, copy_states
from statevault.state_persistence.pruning.collection import CollectionResult, collect, rehearse_collection
from statevault.state_persistence.pruning.pins import pin_state, unpin_state
from statevault.state_persistence.pruning.prune import PruneResult, prune
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.publish.commit import writer_name
from statevault.state_persistence.records.sessions import STALE_AFTER
from statevault.state_persistence.retention import (
    Inventory,
    RetentionPlan,
    RetentionPolicy,
    plan_retention,
    protections,
)
from statevault.state_persistence.stored_states import LATEST, StatePath, StoredStates
from statevault.storage import Storage, normalized_url, parent_and_name
from statevault.storage.redaction import redacted

__all__ = ["KeptStates"]


class KeptStates(StoredStates):
    """The states of a store, and who decides which of them stay.

    Args:
        states_dir: As for :class:`StoredStates`.
        storage_options: As for :class:`StoredStates`.
    """

    def __init__(self, states_dir: StatePath | Storage, storage_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(states_dir, storage_options)
        self._shared = SharedObjects.in_store(self._storage, self._catalog)
        self._inventory = Inventory(self._storage, self._catalog, self._shared)
        self._writer = writer_name()

    def remove(self, states: Iterable[StatePath], *, reason: str = "removed by the user") -> PruneResult:
        """Remove states for good.

        What it costs grows with what it removes; only the first removal of a process reads the markers of all states,
        and the manifests of those that share with what goes. It also clears away what earlier removals and crashed
        saves left in the folders of which the records tell; :meth:`gc` looks through the whole store.

        Args:
            states: Names or paths of states of this store. Those that are gone, and pinned ones, are passed over.
            reason: Kept in the store, beside the name.

        Returns:
            What was removed, what was spared, and the bytes that were freed: not those that other states need.

        Raises:
            TypeError: `states` is one state, and not several.
            StateNotFoundError: A path is not one of this store, or it is ``"latest"``.
            StoreReplacedError: Another store lies there than when this object was last asked which states there are:
                nothing was removed, since these were chosen in the one that is no more. Ask again, and choose again.
            FormatError: A record of the store can't be read that may protect something: nothing was removed. (If it was
                damaged in this very moment, the error's notes name the states that are gone; the next removal frees
                what they took.)
            CorruptStateError: Likewise for the commit marker or the manifest of another state.
            StorageError: The storage failed; call again to go on.
        """
        names = self._own_names(states, "remove")
        return prune(
            self._storage,
            self._catalog,
            names,
            by=self._writer,
            reason=reason,
            shared=self._shared,
            generation=self._shown_generation,
        )

    def plan_retention(
        self,
        policy: RetentionPolicy,
        *,
        pattern: str = "*.state",
        resumed_from: str | None = None,
        may_remove_newest: bool = False,
        now: datetime | None = None,
    ) -> RetentionPlan:
        """Decide by a policy which states stay and which go. Nothing is removed.

        Whatever the policy says, these stay: the newest state, the newest that was not saved after an error, pinned
        ones, the one that a run has resumed from, and those of other names. What was read is remembered: the next plan
        reads what is new.

        Args:
            policy: What to keep, such as ``KeepLatest(5)``.
            pattern: Glob pattern of the names of the states that the policy decides on.
            resumed_from: The name of the state that the run has begun with.
            may_remove_newest: Do not protect the newest state as such.
            now: The instant at which ages are taken; None for now.

        Returns:
            A decision for each state, with its reasons; ``store.remove([state.name for state in plan.removed])``
            carries it out. ``plan.problems`` says why a policy could judge no state; what it might have kept stays.
            States whose marker is damaged are left out, and reported in the log.

        Raises:
            TypeError: What the policy returns is no mapping of names to reasons.
            ValueError: The policy wants to keep a state that it was not shown, or `now` has no time zone.
            StorageError: And the others of :meth:`states`.
            Exception: Whatever the policy raises.
        """
        listing = self._show()
        return plan_retention(
            policy,
            self._inventory.holdings(listing, now=datetime.now(UTC) if now is None else now),
            pinned=listing.pins,
            resumed_from=resumed_from,
            pattern=pattern,
            may_remove_newest=may_remove_newest,
        )

    def protected(self, *, resumed_from: str | None = None) -> dict[str, tuple[str, ...]]:
        """Say which states no retention removes, and why.

        No more markers are read than are needed for that.

        Args:
            resumed_from: As for :meth:`plan_retention`.

        Returns:
            The reasons by name. Names of states that are gone may be among them.

        Raises:
            StorageError: And the others of :meth:`states`.
        """
        listing = self._catalog.listing()
        return protections(self._inventory.newest_first(listing), pinned=listing.pins, resumed_from=resumed_from)

    def freed_by(self, states: Iterable[StatePath]) -> int:
        """How many bytes :meth:`remove` would free; what other states need as well stays.

        Args:
            states: As for :meth:`remove`: those that are gone, and pinned ones, are passed over.

        Raises:
            TypeError: `states` is one state, and not several.
            StateNotFoundError: A path is not one of this store.
            StorageError: And the others of :meth:`states`.
        """
        names = self._own_names(states, "freed_by")
        listing = self._catalog.listing()
        return self._inventory.sizes(listing).freed(names - listing.pins.keys())

    def gc(self, *, stale_after: timedelta = STALE_AFTER, dry_run: bool = False) -> CollectionResult:
        """Look through the whole store, and delete what no state needs: debris of crashed saves, old records.

        Safe at any time, beside any number of writers and readers. Once a day is often enough.

        Args:
            stale_after: How old a save that has not ended is when its writer is taken for dead. If it lives all the
                same, it notices, and saves again.
            dry_run: Only find out what would be done; nothing is written or deleted, and unfinished uploads are not
                counted.

        Returns:
            What was deleted and given up, or would be.

        Raises:
            FormatError: A record of the store can't be read: nothing was deleted.
            CorruptStateError: A manifest that is needed to know what is garbage is damaged: nothing was deleted.
            StorageError: The storage failed; call again to go on.
        """
        if dry_run:
            return rehearse_collection(self._storage, by=self._writer, stale_after=stale_after)
        return collect(self._storage, self._catalog, by=self._writer, stale_after=stale_after, shared=self._shared)

    def pin(self, state: StatePath, name: str = "pin") -> None:
        """Keep a state whatever retention says, until it is unpinned.

        When this returns, the pin holds.

        Args:
            state: The name or path of a state of this store, or ``"latest"``.
            name: The pin's name, for those who wonder why the state is kept.

        Raises:
            StateNotFoundError: There is no such state in this store.
            StatePrunedError: It was removed.
            PinConflictError: A prune may be removing it just now: nothing was pinned.
            InvalidNameError: `name` can't be the name of a pin.
            StorageError: The storage failed; if the pin may be there all the same, the error's notes say so.
        """
        store, key = self._resolve(state)
        if store is not self:
            raise StateNotFoundError(
                f"{redacted(str(state))} is not in {self.url}: make a StateStore for {store.url} to pin it"
            )
        pin_state(self._storage, key, name, by=self._writer)

    def unpin(self, state: StatePath, name: str | None = None) -> int:
        """Take pins off a state.

        Args:
            state: The name or path of a state of this store.
            name: The name of the pins to take off; None for all.

        Returns:
            How many pins there were.

        Raises:
            StateNotFoundError: The path is not one of this store.
            StorageError: The storage failed; call again to go on.
        """
        return unpin_state(self._storage, self._own_name(state), name)

    def pins(self) -> dict[str, tuple[str, ...]]:
        """The names of the pins of each pinned state, in the order of states.

        Raises:
            StorageError: And the others of :meth:`states`.
        """
        listing = self._show()
        return {key.state: listing.pins[key.state] for key in listing.visible if key.state in listing.pins}

    def copy_states(
        self,
        target: KeptStates,
        states: Iterable[StatePath] | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
        on_state: Callable[[CopiedState], None] | None = None,
    ) -> CopyReport:
        """Copy states of this store to another one, on whatever storage it is.

        Oldest first, each published there as a save is; every byte is verified on its way. A state keeps its name where
        that is free, and gets a suffix (``-2``) where it is not. What is there already is passed over, so that a copy
        that was interrupted goes on when it is called again. States share chunks there as they do here. Pins are not
        copied.

        Args:
            target: The other store, which need not exist yet.
            states: Names or paths of states of this store, or ``"latest"``; None for all.
            on_progress: Called with the number of bytes done since the last call, by several threads.
            on_state: Called after each state.

        Returns:
            What became of each. States that are damaged, or were removed meanwhile, are among them, not copied.

        Raises:
            TypeError: `states` is one state, and not several.
            StateNotFoundError: One of them is not in this store: nothing was copied.
            StorageError: One of the storages failed; call again to go on.
        """
        if isinstance(states, str | os.PathLike | UPath):
            raise TypeError(f"copy_states() takes several states: copy_states(target, [{str(states)!r}])")
        visible = self._catalog.listing().visible
        keys = visible if states is None else sorted({self._own_key(state) for state in states})
        there = target._copy_side()
        return copy_states(self._copy_side(), there, keys, on_progress=on_progress, on_state=on_state)

    def _copy_side(self) -> CopySide:
        return CopySide(self._storage, self._catalog, self._writer)

    def _own_key(self, state: StatePath) -> StateKey:
        store, key = self._resolve(state)
        if store is not self:
            raise StateNotFoundError(
                f"{redacted(str(state))} is not in {self.url}: make a StateStore for {store.url} to copy from it"
            )
        return key

    def _own_names(self, states: Iterable[StatePath], asker: str) -> set[str]:
        if isinstance(states, str | os.PathLike | UPath):
            raise TypeError(f"{asker}() takes several states: {asker}([{str(states)!r}])")
        return {self._own_name(state) for state in states}

    def _own_name(self, state: StatePath) -> str:
        """The name of a state of this store, by its name or path."""
        if str(state) == LATEST:
            # Rather than to do nothing and say nothing; and which one it is may change until it is removed.
            raise StateNotFoundError(f"{LATEST!r} is the name of no state: info({LATEST!r}).name tells which one it is")
        if isinstance(state, str) and "/" not in state:
            return state
        root, name = parent_and_name(state)
        if root != normalized_url(self._storage.url):
            raise StateNotFoundError(
                f"{redacted(str(state))} is not in {self.url}: make a StateStore for {redacted(root)} to remove it"
            )
        return name
