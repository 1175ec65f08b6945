"""What the runner asks of an algorithm and of a problem: nearly nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["Algorithm", "InitializedAlgorithm", "check_algorithms", "check_runnable", "network_of"]


@runtime_checkable
class Algorithm(Protocol):
    """Something that works on a network, one iteration after the other.

    All that it learns is in itself and in the network: both are pickled together for a checkpoint. What it draws, it
    draws from the global generators (:mod:`random`, ``numpy.random``, torch), which are seeded for it, or from
    generators of its own with a fixed seed.

    Attributes:
        name: What people call it; different for each algorithm of an experiment.
        iterations: How many iterations it is given. The runner sets it where an experiment was extended, if it can
            be set.
    """

    name: str
    iterations: int

    def step(self, network: Any, iteration: int) -> object:
        """Do one iteration; what is returned is not used.

        Args:
            network: What it works on.
            iteration: The number of the iteration, from 0.
        """


@runtime_checkable
class InitializedAlgorithm(Algorithm, Protocol):
    """An algorithm that does something with its network before the first iteration."""

    def initialize(self, network: Any) -> object:
        """Is called once, before iteration 0, and never when a trial goes on."""


def check_algorithms(algorithms: Sequence[Any]) -> None:
    """Refuse what can't be kept.

    Raises:
        TypeError: A name is no string, or a number of iterations no whole number.
        ValueError: There are none, two have the same name, or one has less than one iteration.
    """
    if not algorithms:
        raise ValueError("an experiment needs at least one algorithm")
    names: set[str] = set()
    for index, algorithm in enumerate(algorithms):
        _check_values(index, algorithm.name, algorithm.iterations)
        if algorithm.name in names:
            raise ValueError(f"two algorithms are called {algorithm.name!r}: results could not be told apart")
        names.add(algorithm.name)


def check_runnable(algorithms: Sequence[Any]) -> None:
    """Refuse what can't be run.

    Raises:
        TypeError: One is no algorithm.
    """
    for index, algorithm in enumerate(algorithms):
        if not isinstance(algorithm, Algorithm) or not callable(algorithm.step):
            raise TypeError(
                f"algorithms[{index}], a {type(algorithm).__name__}, is no algorithm: it needs a name, iterations and "
                f"step(network, iteration)"
            )


def _check_values(index: int, name: Any, iterations: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"algorithms[{index}].name is {name!r}, and must be a string that is not empty")
    whole_number(f"iterations of the algorithm {name!r}", iterations, minimum=1)


def network_of(problem: Any) -> Any:
    """A trial's network, unless the caller makes it: a copy of ``problem.network``, or else of the problem."""
    return copy.deepcopy(getattr(problem, "network", problem))
