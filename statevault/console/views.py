"""The JSON that the web API sends, as models: they make the answers, the OpenAPI document and the client's results."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from statevault.console.source import SystemSource
from statevault.state_persistence.spool import ReplicationStatus
from statevault.threads import Phase, SaveReport, TickStatistics

__all__ = [
    "ErrorView",
    "ReplicationView",
    "ResultView",
    "SaveView",
    "SavesView",
    "StatesView",
    "StatusName",
    "StatusView",
    "SystemView",
    "TicksView",
    "status_name",
]

_SHOWN_SAVES = 10
_SHOWN_STATES = 10

StatusName: TypeAlias = Literal["active", "pausing", "paused", "resuming", "shutting down"]

_STATUS: dict[Phase, StatusName] = {
    Phase.STARTING: "active",
    Phase.ACTIVE: "active",
    Phase.PREPARING: "active",  # the agent acts on
    Phase.PAUSING: "pausing",
    Phase.PAUSED: "paused",
    Phase.SAVING: "paused",  # the threads stand still
    Phase.RESUMING: "resuming",
    # The final state may still be under way.
    Phase.SHUTTING_DOWN: "shutting down",
    Phase.STOPPED: "shutting down",
    Phase.FAILED: "shutting down",
}


def status_name(phase: Phase) -> StatusName:
    """The coarse name of a phase."""
    return _STATUS[phase]


class _View(BaseModel):
    # A client must bear the fields of a newer server.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StatusView(_View):
    """Where the system is, coarsely."""

    status: StatusName


class ResultView(_View):
    """The command was accepted."""

    result: Literal["ok"] = "ok"


class ErrorView(_View):
    """Why a request failed."""

    error: str = Field(description="A sentence for people.")
    code: str = Field(description="A word for programs, such as queue_full.")


class SaveView(_View):
    """One save."""

    id: str
    status: Literal["waiting", "snapshot", "publishing", "committed", "failed"]
    requested: bool = Field(description="Whether somebody asked for it, rather than the save condition.")
    asked_at: datetime
    state: str | None = Field(description="The name of the committed state.")
    snapshot_s: float | None
    duration_s: float | None = Field(description="Seconds from the begin of the snapshot to the commit.")
    stall_s: float | None = Field(description="Seconds for which the agent stood still.")
    size_bytes: int | None
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether it is committed or has failed."""
        return self.status in {"committed", "failed"}

    @classmethod
    def of(cls, report: SaveReport) -> Self:
        """View a report."""
        return cls(
            id=report.id,
            status=report.phase.value,
            requested=report.requested,
            asked_at=report.asked_at,
            state=report.name,
            snapshot_s=report.snapshot_s,
            duration_s=report.duration_s,
            stall_s=report.stall_s,
            size_bytes=report.size_bytes,
            error=report.error or None,
        )


class TicksView(_View):
    """How long the agent's steps took since the launch."""

    count: int
    mean_s: float
    stdev_s: float
    min_s: float | None
    max_s: float | None

    @classmethod
    def of(cls, ticks: TickStatistics) -> Self:
        """View statistics; without a step there is no shortest one."""
        return cls(
            count=ticks.count,
            mean_s=ticks.mean_s,
            stdev_s=ticks.stdev_s,
            min_s=ticks.min_s if ticks.count else None,
            max_s=ticks.max_s if ticks.count else None,
        )


class SavesView(_View):
    """How the saves of this run went."""

    committed: int
    failed: int
    cleanups_failed: int
    publishing: bool
    last_state: str | None
    last_error: str | None
    recent: list[SaveView] = Field(description=f"The last {_SHOWN_SAVES}, newest first.")


class StatesView(_View):
    """The states of the store."""

    url: str
    count: int
    newest: list[str] = Field(description=f"The last {_SHOWN_STATES} names, newest first.")
    error: str | None = Field(description="Why they could not be listed; the others are of the last time, then.")


class ReplicationView(_View):
    """How the states of a spool get to the store."""

    status: Literal["idle", "copying", "retrying", "refused", "elsewhere", "stopped"]
    spool: str
    pending: int = Field(description="How many states wait, the one under way included.")
    pending_bytes: int
    oldest_pending_age_s: float | None
    copying: str | None = Field(description="The name of the state under way.")
    replicated: int = Field(description="How many were replicated by this process.")
    sent_bytes: int
    dropped: int = Field(description="How many were dropped to bound the spool, before they were replicated.")
    damaged: int
    failures: int = Field(description="Calls to the storage that failed, each try of them.")
    last_state: str | None
    last_replicated_at: datetime | None
    last_error: str | None

    @classmethod
    def of(cls, status: ReplicationStatus) -> Self:
        """View a status."""
        return cls(
            status=status.phase.value,
            spool=status.spool,
            pending=status.pending,
            pending_bytes=status.pending_bytes,
            oldest_pending_age_s=status.oldest_pending_age_s,
            copying=status.copying,
            replicated=status.replicated,
            sent_bytes=status.sent_bytes,
            dropped=status.dropped,
            damaged=status.damaged,
            failures=status.failures,
            last_state=status.last_replicated,
            last_replicated_at=status.last_replicated_at,
            last_error=status.last_error or None,
        )


class SystemView(_View):
    """The whole system."""

    status: StatusName
    phase: str
    uptime_s: float
    threads: dict[str, str]
    pause_timeouts: int
    last_pause_error: str | None
    ticks: TicksView
    saves: SavesView
    replication: ReplicationView | None = Field(default=None, description="Null where there is no spool.")
    states: StatesView

    @classmethod
    def of(cls, source: SystemSource) -> Self:
        """View a system. Lists its states, which may take as long as the storage does."""
        status = source.system.status
        names, error = source.states(status.saves.saves)
        replication = source.replication()
        return cls(
            status=status_name(status.phase),
            phase=status.phase.value,
            uptime_s=status.uptime_s,
            threads={name: phase.value for name, phase in status.threads.items()},
            pause_timeouts=status.pause_timeouts,
            last_pause_error=status.last_pause_error or None,
            ticks=TicksView.of(source.ticks()),
            saves=SavesView(
                committed=status.saves.saves,
                failed=status.saves.failures,
                cleanups_failed=status.saves.cleanup_failures,
                publishing=status.saves.pending,
                last_state=status.saves.last_name,
                last_error=status.saves.last_error or None,
                recent=[SaveView.of(report) for report in source.system.save_log.recent(_SHOWN_SAVES)],
            ),
            replication=None if replication is None else ReplicationView.of(replication),
            states=StatesView(
                url=source.states.url,
                count=len(names),
                newest=names[: -_SHOWN_STATES - 1 : -1],
                error=error or None,
            ),
        )
