"""Policies as committed states of a store: each for itself, with metadata that retention policies decide on."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override
from upath import UPath

from statevault.errors import CorruptStateError, StateExistsError, StateNotFoundError, StatePrunedError, StorageError
from statevault.persistence.home import Use, Write
from statevault.persistence.mode import PolicyMode
from statevault.persistence.record import KIND, PolicyRecord
from statevault.persistence.staged import StagedPolicy, staged_folder
from statevault.persistence.world import WorldLike, gives_text
from statevault.state_persistence import PersistentStateMixin, StateInfo, StateStore
from statevault.state_persistence.keepers import Retention

__all__ = ["PolicyStates"]

_logger = logging.getLogger(__name__)
_COMPONENT = "policy"
_SUFFIX = ".state"
_ROUNDS = 5


class PolicyStates:
    """The policies in a store. A :class:`PolicyHome`.

    Args:
        store: The store. A keeper decides on all of its states, so that it should hold nothing else.
        retention: Removes after each save what is not kept; None to keep all.

    Raises:
        KeyError: Something else is registered there as ``"policy"``.
    """

    def __init__(self, store: StateStore, retention: Retention | None = None) -> None:
        self._store = store
        self._retention = retention
        self._component = _Component()
        self._verified: set[str] = set()
        store.register(_COMPONENT, self._component)

    def save(self, world: WorldLike, record: PolicyRecord, write: Write, *, size: int) -> UPath | str:
        """Save a policy as a state of its own, as :meth:`PolicyHome.save` says.

        Its name is ``policy_best_epoch_<n>.state`` or ``policy_epoch_<n>.state``; where that is taken, with a number.
        """
        stem = "policy_best" if record.best else "policy"
        stem += "" if record.epoch is None else f"_epoch_{record.epoch}"
        metadata = record.model_dump(mode="json", exclude={"id", "additional"})
        filename = PolicyMode(record.mode).get_filename()
        pattern = re.compile(rf"{re.escape(stem)}(?:-(\d+))?{re.escape(_SUFFIX)}")
        found = filter(None, map(pattern.fullmatch, self._store.names()))
        number = 1 + max((int(match[1] or 1) for match in found), default=0)
        with staged_folder(size) as folder:
            write(StagedPolicy(folder, filename))
            with self._component.doing(partial(_put_into, folder)):
                while True:
                    name = f"{stem}{_SUFFIX}" if number == 1 else f"{stem}-{number}{_SUFFIX}"
                    try:
                        path = self._store.save_state(name=name, metadata=metadata)
                        break
                    except StateExistsError:
                        number += 1  # no name is used twice, also not that of a state which was removed
                    except StorageError:
                        if self._retention is not None:
                            self._retention.look_again()  # the state may be there all the same
                        raise
        if self._retention is not None:
            self._retention(path)
        return str(path) if gives_text(world) else path

    def best_score(self, world: WorldLike, *, above: float) -> float | None:
        """The highest score that a policy was saved with as the best, as :meth:`PolicyHome.best_score` says."""
        scores = [(state, _best_score(state)) for state in self._policies()]
        best = self._best_of([state for state, score in scores if score is not None and score > above])
        return None if best is None else _best_score(best)

    def has_best(self, world: WorldLike) -> bool:
        """Whether a whole policy was saved as the best, as :meth:`PolicyHome.has_best` says."""
        return self._best_of([state for state in self._policies() if state.metadata.get("best") is True]) is not None

    def load(self, world: WorldLike, use: Use, *, name: str | None, epoch: int | None) -> object:
        """Fetch the policy of a state, as :meth:`PolicyHome.load` says.

        The best is the one with the highest score of those that were saved as the best, the newest of several; the
        newest of all, if none was. If it is damaged, that is reported in the log, and the next one is taken. Of several
        of one epoch it is the newest.
        """
        for _ in range(_ROUNDS):
            candidates = self._candidates(name, epoch)
            for state in candidates:
                try:
                    with self._component.doing(partial(_use, use, state)):
                        return self._store.load_state(state.name, components=[_COMPONENT]).path
                except StatePrunedError:
                    if name is not None:
                        raise
                    break  # a keeper was faster: look again
                except CorruptStateError as error:
                    if state is candidates[-1]:
                        raise
                    _logger.error("%s; trying the next one", error)
        raise StatePrunedError(
            f"the policies in {self._store.url} are removed faster than they can be loaded: try again"
        )

    def close(self) -> None:
        """Nothing to give back: the store is somebody else's."""

    def _best_of(self, policies: list[StateInfo]) -> StateInfo | None:
        """The best whole one of some policies: one that can't be restored must not be in the way of those that can."""
        for state in sorted(policies, key=_rank, reverse=True):
            try:
                if state.name not in self._verified:
                    self._store.verify(state.name)
                    self._verified.add(state.name)
            except (CorruptStateError, StatePrunedError) as error:
                _logger.warning("%s", error)
            else:
                return state
        return None

    def _candidates(self, name: str | None, epoch: int | None) -> list[StateInfo]:
        if name is not None:
            return [self._store.info(name if name.endswith(_SUFFIX) else f"{name}{_SUFFIX}")]
        policies = self._policies()
        if epoch is not None:
            policies = [state for state in policies if state.metadata.get("epoch") == epoch][-1:]
        if not policies:
            which = "policy" if epoch is None else f"policy of epoch {epoch}"
            raise StateNotFoundError(f"there is no {which} in {self._store.url}")
        best = [state for state in policies if state.metadata.get("best") is True]
        return sorted(best or policies, key=_rank, reverse=True)

    def _policies(self) -> list[StateInfo]:
        return [state for state in self._store.states() if state.metadata.get("kind") == KIND]


class _Component(PersistentStateMixin):
    """A policy as a component: what happens at a save or a load is set before it."""

    def __init__(self) -> None:
        self._act: Callable[[Path], Any] | None = None

    @contextmanager
    def doing(self, act: Callable[[Path], Any]) -> Iterator[None]:
        """Set what happens to the component's folder inside a ``with`` block."""
        self._act = act
        try:
            yield
        finally:
            self._act = None

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        self._do(path)

    @override
    def load_state(self, path: Path) -> None:
        self._do(path)

    def _do(self, path: Path) -> None:
        if self._act is None:
            raise RuntimeError(
                "a policy is saved and restored by its PolicyPersistence alone: give that a store of its own"
            )
        self._act(path)


def _put_into(source: Path, target: Path) -> None:
    """Bring all files of a folder into another one."""
    shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the one folder is in memory, and the other is not
        shutil.copyfile(source, target, follow_symlinks=False)


def _use(use: Use, state: StateInfo, folder: Path) -> None:
    mode = PolicyMode.of(state.metadata.get("mode"))
    use(StagedPolicy(folder, mode.get_filename()), mode, str(state.path))


def _best_score(state: StateInfo) -> float | None:
    """The score of a policy that was saved as the best."""
    score = state.metadata.get("score")
    is_best = state.metadata.get("best") is True
    return float(score) if is_best and isinstance(score, int | float) else None


def _rank(state: StateInfo) -> tuple[bool, float, int]:
    """Good ones last: those with a score above all others, and of equals the newest."""
    score = _best_score(state)
    return score is not None, score or 0.0, state.sequence
