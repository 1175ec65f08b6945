"""Keepers: retention in the form that ``launch`` takes. They choose; :class:`Retention` has removed what they chose."""

from statevault.state_persistence.keepers.by_policy import PolicyStatesKeeper
from statevault.state_persistence.keepers.interface import StatesKeeper, StoreStatesKeeper
from statevault.state_persistence.keepers.latest import LatestStatesKeeper
from statevault.state_persistence.keepers.retention import Retention
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
    "Retention",
    "SizeBasedStatesKeeper",
    "StatesKeeper",
    "StoreStatesKeeper",
    "TimeBasedStatesKeeper",
]
