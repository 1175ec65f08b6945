"""Retention: which states to keep, and why. Pure functions over what a store says of its states; a prune deletes."""

from statevault.state_persistence.retention.combined import KeepAll, KeepAny
from statevault.state_persistence.retention.holdings import DatedState, Holdings
from statevault.state_persistence.retention.plan import Decision, RetentionPlan, plan_retention
from statevault.state_persistence.retention.policies import KeepBest, KeepLatest, KeepWithinSize, RetentionPolicy
from statevault.state_persistence.retention.times import KeepPeriodic, KeepWithin

__all__ = [
    "DatedState",
    "Decision",
    "Holdings",
    "KeepAll",
    "KeepAny",
    "KeepBest",
    "KeepLatest",
    "KeepPeriodic",
    "KeepWithin",
    "KeepWithinSize",
    "RetentionPlan",
    "RetentionPolicy",
    "plan_retention",
]
