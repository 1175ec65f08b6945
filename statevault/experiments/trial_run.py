"""One trial of one algorithm, from wherever it stands to its last iteration.

A trial is run inside its claim, with the global generators to itself. Everything that it needs to go on, its
algorithm, network and the generators, is in each checkpoint; so what comes after a checkpoint does not depend on
whether the process that wrote it went on or another one did.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

from statevault.errors import TrialTakenError
from statevault.experiments.algorithm import InitializedAlgorithm, network_of
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.seeds import borrowed_generators, seed_generators, unmoved_generators
from statevault.state_persistence.random_state import set_generator_states

__all__ = ["Ending", "Outcome", "TrialId", "TrialRunner", "Watch"]

_logger = logging.getLogger(__name__)


class TrialId(NamedTuple):
    """One trial of one algorithm; sorted, all algorithms of a trial come before those of the next one.

    Attributes:
        trial: The number of the trial, from 0.
        alg_idx: The number of the algorithm, from 0.
    """

    trial: int
    alg_idx: int


class Ending(Enum):
    """How an attempt to run a trial ended."""

    COMPLETE = "complete"
    TAKEN = "taken"
    """Another worker works on it, or has taken it over."""
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt to run a trial.

    Attributes:
        trial: Which.
        ending: How it ended.
        iterations: How many iterations are done.
        error: Why it failed, with a note that says where.
    """

    trial: TrialId
    ending: Ending
    iterations: int = 0
    error: Exception | None = None


class Watch:
    """Is told how far trials are, and says whether to stop. This one does neither; others derive from it."""

    def advance(self, trial: TrialId, iterations: int) -> None:
        """A trial has done so many iterations."""

    def is_stopped(self) -> bool:
        """Whether the trial is to be left where it stands."""
        return False


class TrialRunner:
    """Runs trials of one experiment, one after the other.

    Args:
        manager: Where the experiment lies. Algorithms and problem are loaded from there when they are first needed.
        make_network: Makes a trial's network from the problem, which is a copy that belongs to the trial.
        watch: Is told how far trials are.
    """

    def __init__(self, manager: CheckpointManager, make_network: Callable[[Any], Any], watch: Watch) -> None:
        self._manager = manager
        self._beginning = _Beginning(manager, make_network)
        self._watch = watch

    def run(self, trial: TrialId) -> Outcome:
        """Run a trial to its end, if nobody else does.

        Returns:
            How it ended. An exception of the algorithm or of the storage is in there, and not raised.
        """
        run = _Run(self._manager, self._beginning, self._watch, trial)
        try:
            # The generators first: a claim is held while a trial runs, and not while it waits for another one.
            with borrowed_generators(), self._manager.working_on(trial.alg_idx, trial.trial):
                return Outcome(trial, run.to_its_end(), run.iterations)
        except TrialTakenError as error:
            _logger.info("Trial %d of algorithm %d is left to another worker: %s", *trial, error)
            return Outcome(trial, Ending.TAKEN, run.iterations)
        except Exception as error:  # noqa: BLE001 - one trial's failure does not end the others; it is raised at the end
            error.add_note(f"in {self._describe(trial)}, {run.place}, of the experiment in {self._manager.url}")
            return Outcome(trial, Ending.FAILED, run.iterations, error)

    def _describe(self, trial: TrialId) -> str:
        name = ""
        with contextlib.suppress(Exception):  # what failed may be the storage
            name = f" {self._manager.load_metadata()['algorithms'][trial.alg_idx]['name']!r}"
        return f"algorithm{name} (number {trial.alg_idx}), trial {trial.trial}"


class _Beginning:
    """What all trials begin with, loaded when the first one of this process does; each takes copies."""

    def __init__(self, manager: CheckpointManager, make_network: Callable[[Any], Any]) -> None:
        self._manager = manager
        self._make_network = make_network

    @cached_property
    def seed(self) -> int:
        seed = self._manager.load_metadata().get("rng_seed")
        if seed is None:
            _logger.warning("%s has no rng_seed: its trials are seeded from 0", self._manager.url)
        return 0 if seed is None else int(seed)

    @cached_property
    def algorithms(self) -> list[Any]:
        return self._manager.load_initial_algorithms()

    @cached_property
    def problem(self) -> Any:
        return self._manager.load_benchmark_problem()

    def load(self) -> None:
        """Load everything, with the modules that it comes from: they may bring generators that are to be seeded."""
        _ = self.algorithms, self.problem

    def network(self) -> Any:
        if self._make_network is network_of:
            return network_of(self.problem)  # which makes a copy
        return self._make_network(copy.deepcopy(self.problem))


class _Run:
    """One attempt."""

    def __init__(self, manager: CheckpointManager, beginning: _Beginning, watch: Watch, trial: TrialId) -> None:
        self._manager = manager
        self._beginning = beginning
        self._watch = watch
        self._trial = trial
        self._where = {"alg_idx": trial.alg_idx, "trial": trial.trial}
        self.iterations = 0
        self.place = "before its first iteration"

    def to_its_end(self) -> Ending:
        manager, where = self._manager, self._where
        if manager.is_trial_complete(**where):
            return Ending.COMPLETE
        algorithm, network = self._begin()
        torch_was_loaded = "torch" in sys.modules
        total = self._total(algorithm)
        self._watch.advance(self._trial, self.iterations)
        while True:
            while self.iterations < total:
                if self._watch.is_stopped():
                    return Ending.STOPPED
                iteration = self.iterations
                self.place = f"iteration {iteration}"
                algorithm.step(network, iteration)
                if torch_was_loaded is not (torch_was_loaded := "torch" in sys.modules):
                    _warn_about_torch(self._trial)
                self.iterations += 1
                if self.iterations < total and manager.should_checkpoint(iteration):
                    self._save(manager.save_checkpoint, algorithm, network)
                self._watch.advance(self._trial, self.iterations)
            self._save(manager.mark_trial_complete, algorithm, network)
            # Behind the mark: who extends takes marks away, but may have looked before this one was there.
            total = self._total(algorithm)
            if self.iterations >= total:
                return Ending.COMPLETE
            manager.unmark_trial_complete(**where)

    def _begin(self) -> tuple[Any, Any]:
        """The algorithm and the network as they are before the next iteration, and the generators likewise."""
        trial, beginning = self._trial, self._beginning
        self.place = "while its checkpoint was loaded"
        checkpoint = self._manager.load_checkpoint(trial.alg_idx, trial.trial)
        if checkpoint is not None:
            algorithm, network, last, states = checkpoint
            # The states are set on top: they may come from a process that had not loaded all generators.
            seed_generators(beginning.seed, trial.trial)
            if isinstance(states, Mapping) and "python" in states:
                set_generator_states(states)
            self.iterations = last + 1
            _logger.info("Trial %d of algorithm %d goes on at iteration %d", *trial, self.iterations)
            return algorithm, network
        self.place = "while algorithms and problem were loaded"
        beginning.load()
        algorithm = copy.deepcopy(beginning.algorithms[trial.alg_idx])
        seed_generators(beginning.seed, trial.trial)
        self.place = "while its network was made"
        network = beginning.network()
        if isinstance(algorithm, InitializedAlgorithm):
            self.place = "in initialize()"
            algorithm.initialize(network)
        return algorithm, network

    def _total(self, algorithm: Any) -> int:
        """How many iterations there are to be: by the metadata, whatever the algorithm remembers; it is told."""
        with unmoved_generators():
            total = int(self._manager.load_metadata()["algorithms"][self._trial.alg_idx]["iterations"])
        if algorithm.iterations != total:
            with contextlib.suppress(AttributeError):  # it does not let itself be told
                algorithm.iterations = total
        return total

    def _save(self, save: Callable[..., object], algorithm: Any, network: Any) -> None:
        iteration = self.iterations - 1
        with unmoved_generators() as states:
            save(**self._where, iteration=iteration, algorithm=algorithm, network=network, rng_state=states)


def _warn_about_torch(trial: TrialId) -> None:
    _logger.warning(
        "torch was imported while trial %d of algorithm %d ran, when the generators had been seeded: what it drew until"
        " now is different in a process that had imported it before. Import torch where the algorithm is defined",
        *trial,
    )
