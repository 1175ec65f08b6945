"""Saving and restoring a policy with its additional state, as a training asks for it."""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

from upath import UPath

from statevault.persistence.codec import load_policy, read_state_dict, size_of, write_policy
from statevault.persistence.events import Persistence, PersistEvent, RestoreEvent, check_persistence
from statevault.persistence.home import PolicyHome
from statevault.persistence.mode import PolicyMode
from statevault.persistence.policy_states import PolicyStates
from statevault.persistence.progress import ScoreOf, as_score, best_score_of_trainer, progress_of, to_record
from statevault.persistence.record import PolicyRecord
from statevault.persistence.staged import StagedPolicy
from statevault.persistence.world import WorldLike, WorldView, gives_text, module_of
from statevault.persistence.world_files import WorldFiles
from statevault.state_persistence import RetentionPolicy, StatesKeeper, StateStore
from statevault.state_persistence.keepers import Retention

__all__ = ["PolicyPersistence"]

_logger = logging.getLogger(__name__)


class PolicyPersistence:
    """Saves a policy when it is the best so far, and after epochs; restores it.

    As files: ``policy.pt`` and ``policy_epoch_<n>.pt`` lie where the world says (:meth:`WorldLike.persist_path`), on
    any storage. With a `store`: each is a committed state, ``policy_best_epoch_<n>.state`` or
    ``policy_epoch_<n>.state``. Either way a policy is saved together with its own additional state, or not at all, and
    verified before it is restored. For one thread at a time.

    Args:
        additional_persistence: What else belongs to the policy; it is saved and restored with it.
        enabled: Whether policies are saved. They are restored in any case.
        mode: How a policy is written.
        allow_pickle: Whether restoring may unpickle, which runs code of whoever can write to the storage: whole
            policies need it. What an additional persistence unpickles by itself is its own affair.
        store: A store, or its path or URL, in which each policy becomes a state. It should hold nothing else.
        storage_options: What fsspec needs for `store`, and for paths of worlds that bring no options.
        keeper: Which policies stay in the store after each save: a keeper, or a retention policy such as
            ``KeepAny((KeepLatest(3), KeepBest(1, metric="score")))``.
        score_of: Says what the policy that is being saved has scored, the higher, the better; it is given the world.
            None: the best policy's score is that of the world's trainer, an epoch's is not known.

    Raises:
        TypeError: `additional_persistence` is no :class:`Persistence`, or `keeper` no keeper.
        ValueError: There is no such mode, or `keeper` comes without `store`.
        KeyError: Something else is registered in `store` as ``"policy"``.
        InvalidNameError: The URL of the store can't be used.
        MissingExtraError: Its protocol needs a package that is not installed.
    """

    Mode: TypeAlias = PolicyMode

    def __init__(
        self,
        additional_persistence: Persistence | None = None,
        enabled: bool = True,
        mode: PolicyMode = PolicyMode.POLICY,
        *,
        allow_pickle: bool = False,
        store: StateStore | str | os.PathLike[str] | UPath | None = None,
        storage_options: Mapping[str, Any] | None = None,
        keeper: StatesKeeper | RetentionPolicy | None = None,
        score_of: ScoreOf | None = None,
    ) -> None:
        self.additional_persistence = (
            None if additional_persistence is None else check_persistence(additional_persistence)
        )
        self.enabled = enabled
        self.mode = PolicyMode.of(mode)
        self.allow_pickle = allow_pickle
        self._score_of = score_of
        self._own_store: StateStore | None = None
        self._home: PolicyHome
        if store is None:
            if keeper is not None:
                raise ValueError("a keeper decides on states: give a store as well, in which policies become such")
            self._home = WorldFiles(self.mode, storage_options)
            return
        if not isinstance(store, StateStore):
            store = StateStore(store, storage_options=storage_options, allow_pickle=allow_pickle)
            self._own_store = store
        self._home = PolicyStates(store, None if keeper is None else Retention(store, keeper))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def persist(self, policy: Any, world: WorldLike) -> None:
        """Save a policy as the best, whatever was saved before; nothing if persistence is not enabled.

        Args:
            policy: A :class:`torch.nn.Module`.
            world: Where, and what the additional persistence works on.

        Raises:
            UnsupportedTypeError: The state dict, or the additional state, has something in it that can't be stored.
            StorageError: The storage failed. What was saved before is whole, with its own additional state.
            StateVaultError: With a store, whatever else :meth:`StateStore.save_state` and the keeper raise.
            Exception: Whatever torch raises when it can't pickle the policy, and the additional persistence.
        """
        if self.enabled:
            self._save_best(policy, world, self._score_of_best(world))

    def get_save_best_fn(self, world: WorldLike) -> Callable[[Any], None]:
        """Make the function that a trainer calls with each new best policy.

        It saves as :meth:`persist` does, unless a better one was saved before, by this run or an earlier one: the first
        test of a second run is its best so far, and may still be worse. Where one of the two scores is not known, it
        saves. A score that is not finite, as that of a training that has diverged, is worse than all: it saves only
        where no policy is.

        Args:
            world: As for :meth:`persist`; its trainer may be set later.
        """

        def save_best(policy: Any) -> None:
            if not self.enabled:
                return
            score = self._score_of_best(world)
            if score is not None and not math.isfinite(score):
                if self._home.has_best(world):
                    _logger.warning("The policy is not saved: its score %s is not finite, and there is another", score)
                    return
            elif score is not None and (better := self._home.best_score(world, above=score)) is not None:
                _logger.info("The policy is not saved: its score %s is below the %s of the best one", score, better)
                return
            self._save_best(policy, world, score)

        return save_best

    def get_save_checkpoint_fn(self, world: WorldLike) -> Callable[[int, int, int], Any] | None:
        """Make the function that a trainer calls after epochs: ``(epoch, env_step, gradient_step) -> path``.

        Args:
            world: As for :meth:`persist`; what is saved is its ``algorithm``, or else its ``policy``.

        Returns:
            The function, which raises what :meth:`persist` does, and returns where the policy was saved, as
            ``world.persist_path()`` would: as a string, or as a path. None if persistence is not enabled.
        """
        if not self.enabled:
            return None

        def save_checkpoint(epoch: int, env_step: int, gradient_step: int) -> Any:
            record = PolicyRecord(
                id=secrets.token_hex(8),
                mode=self.mode.value,
                epoch=int(epoch),
                env_step=int(env_step),
                gradient_step=int(gradient_step),
                # What the trainer knows as the best score is not that of this policy, which was not tested yet.
                score=None if self._score_of is None else to_record(as_score(self._score_of(world))),
            )
            return self._save(module_of(world), world, record)

        return save_checkpoint

    def restore(
        self, policy: Any, world: WorldLike, device: Any, *, name: str | None = None, epoch: int | None = None
    ) -> None:
        """Load a saved policy's parameters into a policy, and restore its additional state.

        All is fetched and verified before anything is changed. A file that Tianshou wrote is restored as well.

        Args:
            policy: A :class:`torch.nn.Module`, built as the saved one was.
            world: Where from, and what the additional persistence works on. With a store, its paths do not matter.
            device: Where tensors go on their way, such as ``"cpu"``: what :func:`torch.load` takes as ``map_location``.
                They end where those of `policy` are.
            name: The name of the file or state; None for the best policy. In a store that is the one with the highest
                score, the newest of several; if it is damaged, the next one.
            epoch: The policy of this epoch instead; in a store the newest of it.

        Raises:
            ValueError: The world has no place to restore from; or both `name` and `epoch` are given.
            StateNotFoundError: There is no such policy.
            CorruptStateError: It is damaged, or its additional state is: nothing was changed.
            PickleNotAllowedError: It takes a pickle, and ``allow_pickle=True`` was not given.
            FormatError: It is no policy, or does not fit this one, which is as it was then.
            StorageError: The storage failed.
            StateVaultError: The device is not there.
            Exception: Whatever the additional persistence raises; the policy is restored then.
        """
        if name is not None and epoch is not None:
            raise ValueError(f"restore either the policy {name!r} or that of epoch {epoch}, not both")

        def load(staged: StagedPolicy, mode: PolicyMode, where: str) -> None:
            state = read_state_dict(staged.file, mode, device, allow_pickle=self.allow_pickle, where=where)
            load_policy(policy, state, where=where)
            if self.additional_persistence is not None:
                self.additional_persistence.restore(RestoreEvent.RESTORE_POLICY, _view_to_restore(world, staged))

        where = self._home.load(world, load, name=name, epoch=epoch)
        _logger.info("Restored the policy from %s", where)

    def close(self) -> None:
        """Give back connections; a store that was given as such stays open. Nothing is saved or restored afterwards."""
        self._home.close()
        if self._own_store is not None:
            self._own_store.close()

    def _score_of_best(self, world: WorldLike) -> float | None:
        return as_score((self._score_of or best_score_of_trainer)(world))

    def _save_best(self, policy: Any, world: WorldLike, score: float | None) -> None:
        progress = progress_of(world)._asdict()
        record = PolicyRecord(
            id=secrets.token_hex(8), mode=self.mode.value, score=to_record(score), best=True, **progress
        )
        self._save(policy, world, record)

    def _save(self, policy: Any, world: WorldLike, record: PolicyRecord) -> Any:
        def write(staged: StagedPolicy) -> None:
            write_policy(policy, self.mode, staged.file, allow_pickle=self.allow_pickle)
            if self.additional_persistence is not None:
                staged.additional.mkdir()
                view = WorldView(world, staged.additional, None, as_text=gives_text(world))
                self.additional_persistence.persist(PersistEvent.PERSIST_POLICY, view)

        path = self._home.save(world, record, write, size=size_of(policy))
        _logger.info("Saved the policy in %s (epoch %s, score %s)", path, record.epoch, record.score)
        return path


def _view_to_restore(world: WorldLike, staged: StagedPolicy) -> WorldLike:
    if staged.additional.is_dir():
        return WorldView(world, None, staged.additional, as_text=gives_text(world))
    # It was saved without additional state, perhaps by Tianshou: if there is some all the same, the world knows where.
    return world
