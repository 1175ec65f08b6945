"""Saving and loading states: the store, its snapshots, its publishes, its catalog and its policies."""

from statevault.codecs import load_pickle, read_tree, save_pickle, write_tree
from statevault.state_persistence.collection import CollectionResult
from statevault.state_persistence.conditions import PeriodicSaveCondition
from statevault.state_persistence.copying import CopiedState, CopyReport
from statevault.state_persistence.info import EXIT, LoadedState, StateInfo
from statevault.state_persistence.keepers import (
    BestStatesKeeper,
    LatestStatesKeeper,
    PeriodicStatesKeeper,
    PolicyStatesKeeper,
    SizeBasedStatesKeeper,
    StatesKeeper,
    StoreStatesKeeper,
    TimeBasedStatesKeeper,
)
from statevault.state_persistence.metadata import check_metadata
from statevault.state_persistence.mixin import PersistentMembers, PersistentState, PersistentStateMixin, PhasedState
from statevault.state_persistence.prune import PruneResult
from statevault.state_persistence.random_state import RandomGenerators
from statevault.state_persistence.retention import (
    Decision,
    Holdings,
    KeepAll,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithin,
    KeepWithinSize,
    RetentionPlan,
    RetentionPolicy,
)
from statevault.state_persistence.store import LATEST, StateStore

__all__ = [
    "EXIT",
    "LATEST",
    "BestStatesKeeper",
    "CollectionResult",
    "CopiedState",
    "CopyReport",
    "Decision",
    "Holdings",
    "KeepAll",
    "KeepAny",
    "KeepBest",
    "KeepLatest",
    "KeepPeriodic",
    "KeepWithin",
    "KeepWithinSize",
    "LatestStatesKeeper",
    "LoadedState",
    "PeriodicSaveCondition",
    "PeriodicStatesKeeper",
    "PersistentMembers",
    "PersistentState",
    "PersistentStateMixin",
    "PhasedState",
    "PolicyStatesKeeper",
    "PruneResult",
    "RandomGenerators",
    "RetentionPlan",
    "RetentionPolicy",
    "SizeBasedStatesKeeper",
    "StateInfo",
    "StateStore",
    "StatesKeeper",
    "StoreStatesKeeper",
    "TimeBasedStatesKeeper",
    "check_metadata",
    "load_pickle",
    "read_tree",
    "save_pickle",
    "write_tree",
]
