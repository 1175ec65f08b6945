"""Keepers: retention in the form that ``launch`` takes. They choose; only a prune deletes."""

from statevault.state_persistence.keepers.by_policy import PolicyStatesKeeper
from statevault.state_persistence.keepers.interface import StatesKeeper, StoreStatesKeeper
from statevault.state_persistence.keepers.latest import LatestStatesKeeper
from statevault.state_persistence.keepers.shorthands import (
    BestStatesKeeper,
    PeriodicStatesKeeper,
    SizeBasedStatesKeeper,
    TimeBasedStatesKeeper,
)

__all__ = [
    "BestStatesKeeper",
    "LatestStatesKeeper",
    "PeriodicStatesKeeper",
    "PolicyStatesKeeper",
    "SizeBasedStatesKeeper",
    "StatesKeeper",
    "StoreStatesKeeper",
    "TimeBasedStatesKeeper",
]
