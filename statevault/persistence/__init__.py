"""Policies of a training, saved with what belongs to them when they are the best so far, and after epochs.

The interface is that of Tianshou's ``tianshou.highlevel.persistence``, for any library; the plug for Tianshou's own
experiments is :mod:`statevault.persistence.tianshou`. Torch is imported when a policy is saved or restored.
"""

from statevault.persistence.events import Persistence, PersistenceGroup, PersistEvent, RestoreEvent
from statevault.persistence.mode import PolicyMode
from statevault.persistence.policy_persistence import PolicyPersistence
from statevault.persistence.progress import ScoreOf
from statevault.persistence.record import AdditionalFile
from statevault.persistence.saved_policies import (
    CopiedPolicy,
    SavedPolicy,
    copy_policies,
    list_policies,
    verify_policy,
)
from statevault.persistence.world import World, WorldLike, WorldView

__all__ = [
    "AdditionalFile",
    "CopiedPolicy",
    "PersistEvent",
    "Persistence",
    "PersistenceGroup",
    "PolicyMode",
    "PolicyPersistence",
    "RestoreEvent",
    "SavedPolicy",
    "ScoreOf",
    "World",
    "WorldLike",
    "WorldView",
    "copy_policies",
    "list_policies",
    "verify_policy",
]
