"""Seeds: one for the experiment, and from it one for each trial.

The seed of a trial follows from that of the experiment and from its number alone. So all algorithms of a trial draw
the same numbers, as long as they draw in the same way (common random numbers: their difference has less variance than
with independent ones), and a trial is the same in whichever order, company and process it runs.

The global generators belong to the process. What runs a trial takes them for as long as it runs, one trial at a time
in a process, and gives them back.
"""

from __future__ import annotations

import contextlib
import operator
import random
import secrets
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

from statevault.state_persistence.random_state import generator_states, set_generator_states

if TYPE_CHECKING:
    from numpy import unsignedinteger
    from numpy.typing import NDArray

__all__ = ["borrowed_generators", "checked_seed", "new_seed", "seed_generators", "unmoved_generators"]

# A re-entrant one: a step may itself run an experiment.
_generators = threading.RLock()


def new_seed() -> int:
    """A seed for an experiment, drawn from the system: small enough that every JSON reader reads it exactly."""
    return secrets.randbits(53)


def checked_seed(seed: SupportsIndex) -> int:
    """A seed as a plain number, if it is one.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed is {seed!r}, and must be a whole number") from None
    if number < 0:
        raise ValueError(f"seed is {number}, and must not be negative")
    return number


def seed_generators(seed: int, trial: int) -> None:
    """Seed the global generators of what is loaded for a trial.

    Each generator gets words of its own of ``numpy.random.SeedSequence(seed, spawn_key=(trial,))``, whether torch is
    loaded or not, so that loading it changes no other generator.

    Args:
        seed: That of the experiment.
        trial: The number of the trial, from 0.
    """
    import numpy as np  # noqa: PLC0415 - heavy

    words = np.random.SeedSequence(seed, spawn_key=(trial,)).generate_state(10, np.uint32)
    random.seed(_number(words[:4]))
    np.random.seed(words[4:8])
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(_number(words[8:]))


@contextlib.contextmanager
def borrowed_generators() -> Iterator[None]:
    """Keep other trials of this process away from the global generators, and leave them afterwards as they were."""
    with _generators, unmoved_generators():
        yield


@contextlib.contextmanager
def unmoved_generators() -> Iterator[dict[str, Any]]:
    """Leave the global generators afterwards as they were, whatever draws from them.

    Clients of storages do: they wait for a random time before they try again.

    Yields:
        Their states, as :func:`~statevault.state_persistence.random_state.generator_states` returns them.
    """
    states = generator_states()
    try:
        yield states
    finally:
        set_generator_states(states)


def _number(words: NDArray[unsignedinteger[Any]]) -> int:
    """The number of which these are the digits, the lowest first: the same on every machine."""
    return sum(int(word) << (32 * place) for place, word in enumerate(words))
