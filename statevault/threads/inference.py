"""The inference thread: the agent acts."""

from __future__ import annotations

import copy
import logging
import threading
import time
from typing import Any

from typing_extensions import override

from statevault.interaction import Interaction
from statevault.threads.controller import ThreadController
from statevault.threads.tick_statistics import TickStatistics
from statevault.threads.worker import WorkerThread

__all__ = ["InferenceThread"]

_logger = logging.getLogger(__name__)


class InferenceThread(WorkerThread):
    """Steps an interaction, and logs how long the steps take."""

    def __init__(
        self,
        interaction: Interaction[Any, Any],
        controller: ThreadController,
        *,
        log_tick_time_statistics_interval: float = 60.0,
    ) -> None:
        """Make the thread.

        Args:
            interaction: What it steps.
            controller: Who pauses and stops it.
            log_tick_time_statistics_interval: Seconds between two lines of statistics in the log.
        """
        super().__init__("inference", controller)
        self._interaction = interaction
        self._interval_s = log_tick_time_statistics_interval
        self._lock = threading.Lock()
        self._statistics = TickStatistics()
        self._all_statistics = TickStatistics()
        self._logged_at = time.perf_counter()

    @property
    def tick_statistics(self) -> TickStatistics:
        """How long all steps took so far, a copy; for any thread."""
        with self._lock:
            return copy.copy(self._all_statistics)

    @override
    def on_start(self) -> None:
        """Set the interaction up."""
        self._interaction.setup()
        self._logged_at = time.perf_counter()

    @override
    def on_tick(self) -> None:
        """Take a step."""
        started = time.perf_counter()
        self._interaction.step()
        now = time.perf_counter()
        self._statistics.add(now - started)
        with self._lock:
            self._all_statistics.add(now - started)
        if now - self._logged_at >= self._interval_s:
            self._log_statistics()
            self._logged_at = now

    @override
    def on_paused(self) -> None:
        """Tell the interaction."""
        self._interaction.on_paused()

    @override
    def on_resumed(self) -> None:
        """Tell the interaction."""
        self._interaction.on_resumed()

    @override
    def on_end(self) -> None:
        """Tear the interaction down."""
        self._log_statistics()
        self._interaction.teardown()

    def _log_statistics(self) -> None:
        statistics, self._statistics = self._statistics, TickStatistics()
        if statistics.count:
            _logger.info(
                "%d steps: %.3g s on average, standard deviation %.3g s, %.3g to %.3g s",
                statistics.count,
                statistics.mean_s,
                statistics.stdev_s,
                statistics.min_s,
                statistics.max_s,
            )
