"""Store and forward: states are committed on the local disk, and replicated to a remote store in the background."""

from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.status import ReplicationPhase, ReplicationStatus

__all__ = ["ReplicationPhase", "ReplicationStatus", "Spool"]
