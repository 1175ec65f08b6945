"""Crash-safe state persistence for learning agents on any storage, and the runtime that runs them.

The names here are imported when they are first used: ``import statevault`` is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statevault.errors import (
        ComponentNotFoundError,
        CorruptStateError,
        FormatError,
        StateExistsError,
        StateNotFoundError,
        StatePrunedError,
        StateVaultError,
        StorageError,
        UnsupportedTypeError,
    )
    from statevault.interaction import Agent, Environment, FixedIntervalInteraction, Interaction
    from statevault.launcher import LaunchConfig, launch
    from statevault.state_persistence import (
        BestStatesKeeper,
        KeepAll,
        KeepAny,
        KeepBest,
        KeepLatest,
        KeepPeriodic,
        KeepWithin,
        KeepWithinSize,
        LatestStatesKeeper,
        PeriodicSaveCondition,
        PeriodicStatesKeeper,
        PersistentStateMixin,
        PolicyStatesKeeper,
        SizeBasedStatesKeeper,
        StateInfo,
        StatesKeeper,
        StateStore,
        TimeBasedStatesKeeper,
        load_pickle,
        read_tree,
        save_pickle,
        write_tree,
    )
    from statevault.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "BestStatesKeeper",
    "ComponentNotFoundError",
    "CorruptStateError",
    "Environment",
    "FixedIntervalInteraction",
    "FormatError",
    "Interaction",
    "KeepAll",
    "KeepAny",
    "KeepBest",
    "KeepLatest",
    "KeepPeriodic",
    "KeepWithin",
    "KeepWithinSize",
    "LatestStatesKeeper",
    "LaunchConfig",
    "PeriodicSaveCondition",
    "PeriodicStatesKeeper",
    "PersistentStateMixin",
    "PolicyStatesKeeper",
    "SizeBasedStatesKeeper",
    "StateExistsError",
    "StateInfo",
    "StateNotFoundError",
    "StatePrunedError",
    "StateStore",
    "StateVaultError",
    "StatesKeeper",
    "StorageError",
    "TimeBasedStatesKeeper",
    "Trainer",
    "UnsupportedTypeError",
    "launch",
    "load_pickle",
    "read_tree",
    "save_pickle",
    "write_tree",
]

_HOMES = {
    "statevault.interaction": {"Agent", "Environment", "FixedIntervalInteraction", "Interaction"},
    "statevault.launcher": {"LaunchConfig", "launch"},
    "statevault.state_persistence": {
        "BestStatesKeeper",
        "KeepAll",
        "KeepAny",
        "KeepBest",
        "KeepLatest",
        "KeepPeriodic",
        "KeepWithin",
        "KeepWithinSize",
        "LatestStatesKeeper",
        "PeriodicSaveCondition",
        "PeriodicStatesKeeper",
        "PersistentStateMixin",
        "PolicyStatesKeeper",
        "SizeBasedStatesKeeper",
        "StateInfo",
        "StateStore",
        "StatesKeeper",
        "TimeBasedStatesKeeper",
        "load_pickle",
        "read_tree",
        "save_pickle",
        "write_tree",
    },
    "statevault.trainer": {"Trainer"},
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        try:
            return import_module(f"{__name__}.{name}")  # `from statevault import time`
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    home = next((home for home, names in _HOMES.items() if name in names), "statevault.errors")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
