"""A keeper applied to a store, for launch, policies and loops alike: asked which states to remove, which then go.

Whatever the keeper says, those stay that no retention removes (:meth:`StateStore.protected`): the newest state, the
newest that was not saved after an error, pinned ones, and the one that the run has begun with. An agent that crashes
at each start must not push out the state from before it did.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from upath import UPath

from statevault.errors import InvalidNameError, StateVaultError
from statevault.state_persistence.keepers.by_policy import PolicyStatesKeeper
from statevault.state_persistence.keepers.interface import StatesKeeper, StoreStatesKeeper
from statevault.state_persistence.retention import RetentionPolicy
from statevault.state_persistence.store import StateStore
from statevault.storage import normalized_url, parent_and_name

__all__ = ["Retention"]

_logger = logging.getLogger(__name__)


class Retention:
    """Applies a keeper to a store, one save after the other. For one thread at a time.

    A :class:`StoreStatesKeeper` chooses each time out of what is in the store. Any other keeper is told of the states
    and forgets those that it has selected, so that what was not removed is remembered here.
    """

    def __init__(
        self, store: StateStore, keeper: StatesKeeper | RetentionPolicy, *, resumed_from: str | None = None
    ) -> None:
        """Make a retention. The store is not looked at before the first call.

        Args:
            store: The store.
            keeper: A keeper, or a policy.
            resumed_from: The name of the state that the run has begun with; never removed.

        Raises:
            TypeError: `keeper` is neither.
        """
        self._store = store
        self._keeper = keeper if isinstance(keeper, StatesKeeper) else PolicyStatesKeeper(keeper)
        self._name = type(self._keeper).__name__
        self._resumed_from = resumed_from
        self._known: set[str] = set()
        self._must_look = True
        self._to_tell: deque[UPath] = deque()
        self._due: dict[str, None] = {}
        self._removal_failed = False
        self._reported: set[str] = set()

    def __call__(self, path: UPath | None = None) -> None:
        """Remove what the keeper does not keep.

        Args:
            path: A state that was committed just now; None to look again without one.

        Raises:
            StorageError: The storage failed; what was not removed is tried again at the next call.
            StateVaultError: The keeper raised something, which is the cause; it is asked again at the next call.
        """
        if isinstance(self._keeper, StoreStatesKeeper) and not self._keeper.must_be_told:
            with self._keeper_at_work("select_from"):
                self._due = dict.fromkeys(self._keeper.select_from(self._store, resumed_from=self._resumed_from))
            self._remove()
            return
        try:
            self._tell(path)
            self._ask()
        finally:
            # Whatever the keeper raises, time after time: it has forgotten what it selected before.
            self._remove()

    def look_again(self) -> None:
        """List the store again at the next call: a save that failed may have committed its state all the same."""
        self._must_look = True

    def _tell(self, path: UPath | None) -> None:
        """Tell the keeper of the states that are there at first, and of each new one: in their order, each once."""
        if path is not None and path.name not in self._known:
            self._known.add(path.name)
            self._to_tell.append(path)
        if self._must_look:
            told = self._known - {path.name for path in self._to_tell}
            there = [name for name in self._store.names() if name not in told]
            new = [path for path in self._to_tell if path.name not in there]
            self._to_tell = deque([*map(self._store.path, there), *new])
            self._known.update(there)
            self._must_look = False
        while self._to_tell:
            with self._keeper_at_work("append"):
                # A UPath offers what a Path does, and is one where the store is local: see StatesKeeper.
                self._keeper.append(cast("Path", self._to_tell[0]))
            self._to_tell.popleft()

    def _ask(self) -> None:
        with self._keeper_at_work("select_removal_states"):
            for selected in self._keeper.select_removal_states():
                name = self._own_name(selected)
                if name is None:
                    _logger.warning("%s selected %s, which is no state of %s", self._name, selected, self._store.url)
                else:
                    self._due[name] = None

    def _remove(self) -> None:
        if not self._due and not self._removal_failed:
            return
        protected = self._store.protected(resumed_from=self._resumed_from)
        for name in protected.keys() & self._due.keys() - self._reported:
            _logger.info("%s selected %s, which stays: %s", self._name, name, ", ".join(protected[name]))
            self._reported.add(name)
        removable = [name for name in self._due if name not in protected]
        if not removable and not self._removal_failed:
            return
        # One that failed may have got so far that the states are not visible any more, but still take up room.
        self._removal_failed = True
        result = self._store.remove(removable, reason=f"selected by {self._name}")
        self._removal_failed = False
        for name in set(removable).difference(result.removed, result.spared):
            _logger.info("%s selected %s, which is not in %s any more", self._name, name, self._store.url)
        self._due = {name: None for name in self._due if name in protected or name in result.spared}
        gone = set(result.removed)
        self._reported -= gone
        self._known -= gone

    def _own_name(self, selected: object) -> str | None:
        """The name of a state of this store, by its path; None for anything else."""
        if not isinstance(selected, str | os.PathLike | UPath):
            return None
        try:
            _, name = parent_and_name(selected)
            return name if normalized_url(selected) == normalized_url(self._store.path(name)) else None
        except InvalidNameError:
            return None

    @contextmanager
    def _keeper_at_work(self, method: str) -> Iterator[None]:
        """Name the keeper in whatever it raises."""
        try:
            yield
        except StateVaultError as error:
            error.add_note(f"in {self._name}.{method}()")
            raise
        except Exception as error:
            raise StateVaultError(f"{self._name}.{method}() failed: {error!r}") from error
