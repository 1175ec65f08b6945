"""Any retention policy as a keeper."""

from __future__ import annotations

import logging
from pathlib import Path

from typing_extensions import override

from statevault.state_persistence.keepers.interface import StoreStatesKeeper
from statevault.state_persistence.retention import CannotJudge, RetentionPolicy
from statevault.state_persistence.store import StateStore

__all__ = ["PolicyStatesKeeper"]

_logger = logging.getLogger(__name__)


class PolicyStatesKeeper(StoreStatesKeeper):
    """Keeps what a retention policy keeps, and what no retention removes (:meth:`StateStore.plan_retention`).

    A policy that can't judge, as where no state has its metric, removes nothing; that is logged as a warning, once
    until something changes.

    Args:
        policy: What to keep: ``KeepAny((KeepLatest(5), KeepPeriodic(daily=7)))``.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: `policy` is no retention policy.
    """

    def __init__(self, policy: RetentionPolicy, state_name_pattern: str = "*.state") -> None:
        if isinstance(policy, type) or not isinstance(policy, RetentionPolicy):
            raise TypeError(f"{policy!r} is no retention policy: give an object with a keep() method, as KeepLatest(5)")
        self.policy = policy
        self.state_name_pattern = state_name_pattern
        self._paths: dict[str, Path] = {}
        self._store: StateStore | None = None
        self._problems: dict[str, tuple[CannotJudge, ...]] = {}

    @override
    def append(self, path: Path) -> None:
        """Take note of a committed state.

        Raises:
            ValueError: It is of another store than those before.
        """
        known = next(iter(self._paths.values()), path)
        if path.parent != known.parent:
            raise ValueError(f"{path} is not of the same store as {known}: take a keeper for each store")
        self._paths[path.name] = path

    @override
    def select_removal_states(self) -> list[Path]:
        """Choose out of the states that were appended. The policy is shown all states of their store, which is opened.

        Raises:
            StorageError: And the others of :meth:`StateStore.plan_retention`.
        """
        if not self._paths:
            return []
        if self._store is None:
            # A path brings the options of its storage with it; what somebody was told to keep may not have them.
            self._store = StateStore(next(iter(self._paths.values())).parent)
        selected = [name for name in self.select_from(self._store) if name in self._paths]
        return [self._paths.pop(name) for name in selected]

    @override
    def select_from(self, store: StateStore, *, resumed_from: str | None = None) -> list[str]:
        plan = store.plan_retention(self.policy, pattern=self.state_name_pattern, resumed_from=resumed_from)
        if plan.problems != self._problems.get(store.url, ()):
            self._problems[store.url] = plan.problems
            for problem in plan.problems:
                _logger.warning("%s can't judge the states of %s: %s", type(self).__name__, store.url, problem)
        return [state.name for state in plan.removed]
