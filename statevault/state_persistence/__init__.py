"""Saving and loading states: the store, its snapshots, its publishes, its catalog and its policies."""

from statevault.codecs import load_pickle, read_tree, save_pickle, write_tree
from statevault.state_persistence.collection import CollectionResult
from statevault.state_persistence.commit import check_metadata
from statevault.state_persistence.conditions import PeriodicSaveCondition
from statevault.state_persistence.info import EXIT, LoadedState, StateInfo
from statevault.state_persistence.keepers import LatestStatesKeeper, StatesKeeper
from statevault.state_persistence.mixin import PersistentMembers, PersistentState, PersistentStateMixin
from statevault.state_persistence.prune import PruneResult
from statevault.state_persistence.random_state import RandomGenerators
from statevault.state_persistence.store import LATEST, StateStore

__all__ = [
    "EXIT",
    "LATEST",
    "CollectionResult",
    "LatestStatesKeeper",
    "LoadedState",
    "PeriodicSaveCondition",
    "PersistentMembers",
    "PersistentState",
    "PersistentStateMixin",
    "PruneResult",
    "RandomGenerators",
    "StateInfo",
    "StateStore",
    "StatesKeeper",
    "check_metadata",
    "load_pickle",
    "read_tree",
    "save_pickle",
    "write_tree",
]
