"""Which states a spool drops when it holds too much: a pure function.

States that are at the remote already go first. Of those that are not, it is better to have some from the whole outage
than all from its end: each time that one goes whose neighbours are nearest to each other, the oldest such. So what is
left lies evenly over the order of states, and gets sparser the longer the outage is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

__all__ = ["SpooledState", "states_to_drop"]


@dataclass(frozen=True, slots=True)
class SpooledState:
    """A state as thinning sees it.

    Attributes:
        name: Its name.
        sequence: Its place in the order of states.
        is_done: Whether nothing is to be replicated of it any more.
        is_protected: Whether it must stay, whatever it takes: pinned, or just being copied.
    """

    name: str
    sequence: int
    is_done: bool = False
    is_protected: bool = False


def states_to_drop(
    states: Sequence[SpooledState], size_of: Callable[[Collection[str]], int], max_bytes: int
) -> list[str]:
    """Choose the states to drop. The newest never is, nor one that is protected.

    Args:
        states: All states of the spool, oldest first.
        size_of: Bytes that exactly the states of these names need together; fewer states never need more.
        max_bytes: Bytes that those that stay should need at most.

    Returns:
        Their names, in the order in which they are chosen. What stays needs more than `max_bytes` only if nothing else
        may be dropped.
    """
    kept = list(states)
    dropped: list[str] = []
    while kept and size_of([state.name for state in kept]) > max_bytes:
        index = _next_to_drop(kept)
        if index is None:
            break
        dropped.append(kept.pop(index).name)
    return dropped


def _next_to_drop(states: Sequence[SpooledState]) -> int | None:
    """The index of the state that goes next; None if none may."""
    may_go = [index for index, state in enumerate(states[:-1]) if not state.is_protected]
    for index in may_go:
        if states[index].is_done:
            return index
    # The oldest bounds the outage, so it goes only when nothing between it and the newest is left.
    return min(may_go, key=lambda index: (index == 0, _gap(states, index)), default=None)


def _gap(states: Sequence[SpooledState], index: int) -> int:
    """How far the neighbours of a state are apart. Of equals, min() takes the first: the oldest."""
    return states[index + 1].sequence - states[max(0, index - 1)].sequence
