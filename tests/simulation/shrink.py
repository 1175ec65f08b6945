"""Makes a schedule that violates an invariant shorter, so that a person can read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.beginnings import Beginnings
from tests.simulation.schedule import Outcome, Variant, run_schedule

__all__ = ["shrink"]

_ORDERS = 150


def shrink(seed: int, beginnings: Beginnings) -> tuple[Variant, Outcome]:
    """Leave out of a schedule what its violation does not need.

    What is left has other steps, so that its order is sought anew, in some hundred ways; then the shortest is taken.

    Args:
        seed: Of a schedule that violates an invariant.
        beginnings: What is there at first.

    Returns:
        The smallest variant that was found, and what became of it. Its violation may be another one.
    """
    best, outcome = Variant(), run_schedule(seed, beginnings)
    for simpler in (*_less(best, outcome), *_less(best, outcome)):
        candidate = replace(
            best,
            without=best.without | simpler.without,
            is_calm=best.is_calm or simpler.is_calm,
            whole_lists=best.whole_lists or simpler.whole_lists,
        )
        if candidate != best and (found := _shortest(seed, beginnings, candidate, enough=1)):
            best, outcome = found
    return _shortest(seed, beginnings, best, enough=_ORDERS) or (best, outcome)


def _less(variant: Variant, outcome: Outcome) -> Iterator[Variant]:
    yield replace(variant, is_calm=True)
    for actor in range(outcome.actors):
        yield replace(variant, without=variant.without | {actor})
    yield replace(variant, whole_lists=True)


def _shortest(seed: int, beginnings: Beginnings, variant: Variant, *, enough: int) -> tuple[Variant, Outcome] | None:
    """The shortest violation among some orders; the first that is found if one is enough."""
    found: list[tuple[Variant, Outcome]] = []
    for order in dict.fromkeys((variant.order, *range(_ORDERS))):
        candidate = replace(variant, order=order)
        outcome = run_schedule(seed, beginnings, candidate)
        if outcome.violation is not None:
            found.append((candidate, outcome))
            if len(found) >= enough:
                break
    return min(found, key=lambda pair: pair[1].steps, default=None)
