"""The plug for Tianshou's high-level experiments: their policies on any storage.

An experiment is given a factory around its own one, through the interface that Tianshou's experiments have for
factories: what trains is what trained before, and asks us where Tianshou's ``PolicyPersistence`` was asked. This is for
Tianshou 2.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from statevault.errors import MissingExtraError
from statevault.persistence.events import Persistence, PersistEvent, RestoreEvent
from statevault.persistence.mode import PolicyMode
from statevault.persistence.policy_persistence import PolicyPersistence
from statevault.persistence.progress import ScoreOf
from statevault.persistence.world import WorldView
from statevault.state_persistence import RetentionPolicy, StatesKeeper
from statevault.storage import join_url

# Tianshou is no dependency, so that type checkers may not know it.
try:
    from tianshou.highlevel import persistence as theirs  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from tianshou.highlevel.algorithm import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        AlgorithmFactory,
    )
    from tianshou.highlevel.world import World  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from tianshou.utils import LazyLogger  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError as error:
    raise MissingExtraError(
        f"statevault.persistence.tianshou needs Tianshou 2 ({error}): install it with `pip install 'tianshou>=2'`"
    ) from error

__all__ = ["FromTianshou", "PersistedAlgorithmFactory", "policy_directory", "with_policy_persistence"]


class FromTianshou(Persistence):
    """A persistence of Tianshou's as one of ours. It is given Tianshou's own events, which it compares with.

    Args:
        persistence: An object of ``tianshou.highlevel.persistence.Persistence``.
    """

    def __init__(self, persistence: Any) -> None:
        self._persistence = persistence

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        self._persistence.persist(theirs.PersistEvent(event.value), world)

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        self._persistence.restore(theirs.RestoreEvent(event.value), world)


@dataclass(frozen=True)
class _Settings:
    """What :func:`with_policy_persistence` was given."""

    directory: str
    base_directory: str
    restore_from: str | None
    restore_name: str | None
    restore_epoch: int | None
    as_states: bool
    keeper: StatesKeeper | RetentionPolicy | None
    mode: PolicyMode
    allow_pickle: bool
    # Tianshou logs what an experiment consists of.
    storage_options: Mapping[str, Any] | None = field(repr=False)
    score_of: ScoreOf | None

    def directory_of(self, run_directory: str) -> str:
        """Where the policies of a run go, whose other files Tianshou puts into a local folder."""
        return join_url(self.directory, os.path.relpath(run_directory, self.base_directory).replace(os.sep, "/"))

    def open(self, directory: str, additional: Any, *, enabled: bool) -> PolicyPersistence:
        """The persistence of one run."""
        return PolicyPersistence(
            FromTianshou(additional) if additional is not None and additional.items else None,
            enabled,
            self.mode,
            allow_pickle=self.allow_pickle,
            store=directory if self.as_states else None,
            storage_options=self.storage_options,
            keeper=self.keeper if self.as_states else None,
            score_of=self.score_of,
        )


class PersistedAlgorithmFactory(AlgorithmFactory):  # type: ignore[misc,unused-ignore]
    """A factory as another one, whose algorithms are restored, and saved in training, by statevault.

    :func:`with_policy_persistence` makes it.
    """

    # Not that of the superclass: all that it sets up is the other factory's.
    def __init__(self, factory: Any, settings: _Settings) -> None:
        self.factory = factory
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "factory" not in vars(self):  # as copy and pickle ask, before there is one
            raise AttributeError(name)
        return getattr(self.factory, name)

    def set_collector_factory(self, collector_factory: Any) -> None:
        """As that of the other factory."""
        self.factory.set_collector_factory(collector_factory)

    def set_policy_wrapper_factory(self, policy_wrapper_factory: Any) -> None:
        """As that of the other factory."""
        self.factory.set_policy_wrapper_factory(policy_wrapper_factory)

    def set_trainer_callbacks(self, callbacks: Any) -> None:
        """As that of the other factory."""
        self.factory.set_trainer_callbacks(callbacks)

    def create_train_test_collectors(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the other factory."""
        return self.factory.create_train_test_collectors(*args, **kwargs)

    def _create_algorithm(self, envs: Any, device: Any) -> Any:
        return self.factory._create_algorithm(envs, device)  # noqa: SLF001 - as the superclass has it

    def create_algorithm(self, envs: Any, device: Any) -> Any:
        """Create an algorithm, and restore its policy, and what belongs to it, if that is what the experiment is for.

        Raises:
            StateVaultError: As for :meth:`PolicyPersistence.restore`.
        """
        algorithm = self.factory.create_algorithm(envs, device)
        settings = self._settings
        if settings.restore_from is not None:
            # An experiment that only evaluates calls this, and nothing after it that it could be restored in.
            world = World(
                envs=envs,
                algorithm=algorithm,
                logger=LazyLogger(),
                persist_directory="",
                restore_directory=settings.restore_from,
            )
            view = WorldView(world, None, settings.restore_from, storage_options=settings.storage_options)
            additional = theirs.PersistenceGroup(*envs.persistence)
            with settings.open(settings.restore_from, additional, enabled=False) as persistence:
                name, epoch = settings.restore_name, settings.restore_epoch
                persistence.restore(algorithm, view, device, name=name, epoch=epoch)
        return algorithm

    def create_trainer(self, world: Any, policy_persistence: Any) -> Any:
        """Create the trainer, which saves through statevault: the best policy, and those of epochs.

        Raises:
            StateVaultError: As for :class:`PolicyPersistence`.
        """
        settings = self._settings
        directory = settings.directory_of(world.persist_directory)
        view = WorldView(world, directory, None, storage_options=settings.storage_options)
        additional, enabled = policy_persistence.additional_persistence, policy_persistence.enabled
        persistence = settings.open(directory, additional, enabled=enabled)
        trainer = self.factory.create_trainer(view, persistence)
        if trainer.params.save_checkpoint_fn is None:
            # Tianshou's factories for off-policy algorithms give the trainer none.
            trainer.params.save_checkpoint_fn = persistence.get_save_checkpoint_fn(view)
        return trainer


def with_policy_persistence(
    experiment: Any,
    directory: str,
    *,
    restore_from: str | None = None,
    restore_name: str | None = None,
    restore_epoch: int | None = None,
    as_states: bool = False,
    keeper: StatesKeeper | RetentionPolicy | None = None,
    mode: Any = None,
    allow_pickle: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    score_of: ScoreOf | None = None,
) -> Any:
    """Make an experiment of Tianshou's save and restore its policies on any storage.

    Its other files (the log, ``experiment.pkl``) stay in its local ``persistence_base_dir``.

    Args:
        experiment: A ``tianshou.highlevel.experiment.Experiment``; it is left as it is.
        directory: A path or URL. The policies of a run go below it as its other files go below
            ``persistence_base_dir``: into ``<directory>/<name>/exp_seed=<seed>`` (:func:`policy_directory`).
        restore_from: The directory of a run to restore the policy from, before training or to evaluate it; None for the
            experiment's ``policy_restore_directory``.
        restore_name: As `name` of :meth:`PolicyPersistence.restore`.
        restore_epoch: As `epoch` of :meth:`PolicyPersistence.restore`.
        as_states: Whether the directory of each run is a store, in which each policy is a state.
        keeper: Which of these stay, as for :class:`PolicyPersistence`.
        mode: How policies are written; None for the experiment's ``policy_persistence_mode``.
        allow_pickle: As for :class:`PolicyPersistence`: whole policies can't be restored without.
        storage_options: What fsspec needs. Tianshou pickles them into the run's ``experiment.pkl``: secrets are better
            left to environment variables.
        score_of: As for :class:`PolicyPersistence`; a function that can be pickled.

    Returns:
        The new experiment.

    Raises:
        ValueError: There is no such mode, or `keeper` comes without `as_states`.
    """
    if keeper is not None and not as_states:
        raise ValueError("a keeper decides on states: give as_states=True as well, so that policies become such")
    config = experiment.config
    persisted = copy.copy(experiment)
    # Ours to do: Tianshou would look for a local file.
    persisted.config = dataclasses.replace(config, policy_restore_directory=None)
    factory = experiment.algorithm_factory
    persisted.algorithm_factory = PersistedAlgorithmFactory(
        factory.factory if isinstance(factory, PersistedAlgorithmFactory) else factory,
        _Settings(
            directory=directory,
            base_directory=config.persistence_base_dir,
            restore_from=config.policy_restore_directory if restore_from is None else restore_from,
            restore_name=restore_name,
            restore_epoch=restore_epoch,
            as_states=as_states,
            keeper=keeper,
            mode=PolicyMode.of(config.policy_persistence_mode if mode is None else mode),
            allow_pickle=allow_pickle,
            storage_options=storage_options,
            score_of=score_of,
        ),
    )
    return persisted


def policy_directory(experiment: Any, directory: str, *, run_name: str | None = None) -> str:
    """Where the policies of an experiment's run are, if `directory` was given to :func:`with_policy_persistence`.

    Args:
        experiment: The experiment.
        directory: What was given.
        run_name: The name that was given to ``experiment.run()``; None for the experiment's own.
    """
    name = experiment.name if run_name is None else run_name
    return join_url(directory, f"{name.replace(os.sep, '/')}/{experiment.get_seeding_info_as_str()}")
