"""Retention: which states to keep, and why.

Policies are pure functions over :class:`Holdings`, which an :class:`Inventory` makes of a store; only a prune deletes.
"""

from statevault.state_persistence.retention.best import KeepBest
from statevault.state_persistence.retention.combined import KeepAll, KeepAny
from statevault.state_persistence.retention.holdings import DatedState, Holdings, Sizes
from statevault.state_persistence.retention.inventory import Inventory
from statevault.state_persistence.retention.plan import Decision, RetentionPlan, plan_retention, protections
from statevault.state_persistence.retention.policies import (
    CannotJudge,
    KeepLatest,
    KeepWithinSize,
    RetentionPolicy,
    Verdict,
)
from statevault.state_persistence.retention.stored_sizes import StoredSizes
from statevault.state_persistence.retention.times import KeepPeriodic, KeepWithin

__all__ = [
    "CannotJudge",
    "DatedState",
    "Decision",
    "Holdings",
    "Inventory",
    "KeepAll",
    "KeepAny",
    "KeepBest",
    "KeepLatest",
    "KeepPeriodic",
    "KeepWithin",
    "KeepWithinSize",
    "RetentionPlan",
    "RetentionPolicy",
    "Sizes",
    "StoredSizes",
    "Verdict",
    "plan_retention",
    "protections",
]
