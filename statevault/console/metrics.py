"""Numbers for operators, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from statevault.console.source import SystemSource
from statevault.state_persistence.spool import ReplicationStatus
from statevault.threads import Phase

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _SystemCollector(Collector):
    def __init__(self, source: SystemSource) -> None:
        self._source = source

    @override
    def collect(self) -> Iterator[Metric]:
        status = self._source.system.status
        ticks = self._source.ticks()
        saves = status.saves

        phase = GaugeMetricFamily("statevault_phase", "1 for the phase that the system is in.", labels=["phase"])
        for each in Phase:
            phase.add_metric([each.value], float(each is status.phase))
        yield phase
        yield GaugeMetricFamily("statevault_uptime_seconds", "Seconds since the launch.", status.uptime_s)
        yield CounterMetricFamily("statevault_pause_timeouts", "Pauses that were given up.", status.pause_timeouts)
        yield SummaryMetricFamily(
            "statevault_tick_seconds", "The agent's steps.", ticks.count, ticks.count * ticks.mean_s
        )

        yield CounterMetricFamily("statevault_saves", "Committed states.", saves.saves)
        yield CounterMetricFamily("statevault_save_failures", "Saves that failed.", saves.failures)
        yield CounterMetricFamily("statevault_cleanup_failures", "Retentions that failed.", saves.cleanup_failures)
        seconds = CounterMetricFamily("statevault_save_seconds", "Time spent in saves.", labels=["phase"])
        seconds.add_metric(["snapshot"], saves.snapshot_s)
        seconds.add_metric(["publish"], saves.publish_s)
        seconds.add_metric(["final"], saves.final_s)
        yield seconds
        yield SummaryMetricFamily(
            "statevault_save_stall_seconds", "Time for which the agent stood still.", saves.stalls, saves.stall_s
        )
        yield CounterMetricFamily("statevault_saved_bytes", "Bytes of the files of committed states.", saves.size_bytes)
        yield GaugeMetricFamily("statevault_publishing", "Whether a save is being published.", float(saves.pending))
        if saves.last_committed_at is not None:
            yield GaugeMetricFamily(
                "statevault_last_commit_timestamp_seconds",
                "When a state was committed last, in Unix time.",
                saves.last_committed_at.timestamp(),
            )
        replication = self._source.replication()
        if replication is not None:
            yield from _replication(replication)


def _replication(status: ReplicationStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily("statevault_replication_pending", "States that wait in the spool.", status.pending)
    yield GaugeMetricFamily("statevault_replication_pending_bytes", "Bytes of them.", status.pending_bytes)
    yield GaugeMetricFamily(
        "statevault_replication_oldest_pending_seconds",
        "For how long the oldest of them has waited.",
        status.oldest_pending_age_s or 0.0,
    )
    yield CounterMetricFamily("statevault_replicated", "States that were replicated.", status.replicated)
    yield CounterMetricFamily("statevault_replicated_bytes", "Bytes that were put for them.", status.sent_bytes)
    yield CounterMetricFamily("statevault_replication_dropped", "States dropped to bound the spool.", status.dropped)
    yield CounterMetricFamily("statevault_replication_failures", "Calls to the storage that failed.", status.failures)


def exposition(source: SystemSource) -> bytes:
    """The numbers of a system as Prometheus scrapes them (text format 0.0.4). Nothing is asked of the storage."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SystemCollector(source))
    return generate_latest(registry)
