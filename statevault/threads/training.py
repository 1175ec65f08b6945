"""The training thread: the agent learns."""

from __future__ import annotations

from typing_extensions import override

from statevault.threads.controller import ThreadController
from statevault.threads.worker import WorkerThread
from statevault.trainer import TrainersDict

__all__ = ["TrainingThread"]

_SHORTEST_IDLE_S = 0.001
_LONGEST_IDLE_S = 0.05


class TrainingThread(WorkerThread):
    """Runs trainers in turn; one run is one step. Sleeps while none of them has anything to do."""

    def __init__(self, trainers: TrainersDict, controller: ThreadController) -> None:
        """Make the thread.

        Args:
            trainers: The trainers by name, run in this order.
            controller: Who pauses and stops it.
        """
        super().__init__("training", controller)
        self._trainers = trainers
        self._in_turn = list(trainers.values())
        self._next = 0
        self._idle_runs = 0
        self._idle_s = _SHORTEST_IDLE_S

    @override
    def on_tick(self) -> None:
        """Run the next trainer, or sleep if a whole round had nothing to do."""
        if self._idle_runs >= len(self._in_turn):
            self.controller.wait_idle(self.status, self._idle_s)
            # Longer and longer, so that an idle thread costs nothing, a busy one hardly waits.
            self._idle_s = min(2 * self._idle_s, _LONGEST_IDLE_S)
            self._idle_runs = 0
        if not self._in_turn:
            return
        trainer = self._in_turn[self._next]
        self._next = (self._next + 1) % len(self._in_turn)
        if trainer.run():
            self._idle_runs = 0
            self._idle_s = _SHORTEST_IDLE_S
        else:
            self._idle_runs += 1

    @override
    def on_paused(self) -> None:
        """Tell the trainers."""
        self._trainers.on_paused()

    @override
    def on_resumed(self) -> None:
        """Tell the trainers."""
        self._trainers.on_resumed()
