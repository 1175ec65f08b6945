"""Who takes part in a schedule, by role (:data:`tests.simulation.actors.ROLES`)."""

from __future__ import annotations

import random

__all__ = ["crowd", "duel"]

_DUELS: tuple[tuple[str, ...], ...] = (
    ("saver", "remover"),
    ("saver", "remover", "remover"),
    ("saver", "remover", "doubter"),
    ("saver", "saver", "remover"),
    ("saver", "doubter"),
    ("saver", "doubter", "doubter"),
    ("loader", "remover"),
    ("loader", "saver", "remover"),
    ("fixer", "remover"),
    ("fixer", "remover", "remover"),
    ("saver", "remover", "sweeper"),
    ("saver", "remover", "sweeper"),
    ("saver", "saver", "remover", "sweeper"),
)
_DUELS_OF_NAMES: tuple[tuple[str, ...], ...] = (
    ("rival", "rival"),
    ("rival", "rival", "doubter"),
    ("rival", "rival", "remover"),
    ("copier", "copier"),
    ("copier", "copier", "remover"),
)
_SHARES = {"agent": 4, "writer": 3, "reader": 2, "pruner": 4, "collector": 1, "pinner": 2, "copier": 1}
_SHARES_OF_NAMES = _SHARES | {"rival": 8, "copier": 8}


def duel(source: random.Random, *, same_names: bool) -> tuple[str, ...]:
    """Two or three or four, each of whom does one thing.

    Args:
        source: Of the choice.
        same_names: Whether they may choose the same names.
    """
    return source.choice(_DUELS_OF_NAMES if same_names else _DUELS)


def crowd(source: random.Random, *, same_names: bool) -> tuple[str, ...]:
    """Two to four, each of whom does several things.

    Args:
        source: Of the choice.
        same_names: Whether they may choose the same names.
    """
    shares = _SHARES_OF_NAMES if same_names else _SHARES
    roles = [source.choice(("agent", "writer", "agent", "copier"))]
    roles += source.choices(list(shares), list(shares.values()), k=source.randint(1, 3))
    if not same_names and "copier" in roles:
        # Two copies of a state are two states, of one name where that is free.
        first = roles.index("copier")
        roles = [role for index, role in enumerate(roles) if role != "copier" or index == first]
    return tuple(roles)
