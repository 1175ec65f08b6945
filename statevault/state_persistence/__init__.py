"""Saving and loading states.

:class:`StateStore` is what users hold: states as they lie there (``stored_states``), what takes them away or keeps them
(``kept_states``), a local folder before a remote store (``spool``), and components that are saved and loaded
(``store``). Below it, each package knows only those under it:

==========================  ==========================================================================
``retention``, ``keepers``  which states stay: pure functions, and what a launched agent is given
``copies``                  states of one store in another
``publish``                 from a snapshot to a committed state
``pruning``                 removal, collection, pins
``restore``                 from a committed state back into components
``snapshot``                the cut, and where it is held
``content``                 the bytes of a file, as chunks
``records``                 what the store says of its states
``concurrency``             threads that work together
==========================  ==========================================================================
"""

from statevault.codecs import load_pickle, read_tree, save_pickle, write_tree
from statevault.state_persistence.conditions import PeriodicSaveCondition
from statevault.state_persistence.copies.copying import CopiedState, CopyReport
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
from statevault.state_persistence.pruning.collection import CollectionResult
from statevault.state_persistence.pruning.prune import PruneResult
from statevault.state_persistence.random_state import RandomGenerators
from statevault.state_persistence.retention import (
    CannotJudge,
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
    Verdict,
)
from statevault.state_persistence.store import LATEST, StateStore

__all__ = [
    "EXIT",
    "LATEST",
    "BestStatesKeeper",
    "CannotJudge",
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
    "Verdict",
    "check_metadata",
    "load_pickle",
    "read_tree",
    "save_pickle",
    "write_tree",
]
