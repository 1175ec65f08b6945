"""The control thread: drives the lifecycle of the system, in the thread that called ``launch``."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from statevault.errors import PauseTimeoutError
from statevault.threads.controller import ThreadController, ThreadPhase
from statevault.threads.lifecycle import Event, Instruction, Lifecycle, Phase, transition
from statevault.threads.notes import told
from statevault.threads.save_log import SaveLog, SaveReport
from statevault.threads.save_supervisor import SaveStatus, SaveSupervisor
from statevault.threads.worker import WorkerThread
from statevault.time import TimeController

__all__ = ["ControlThread", "SystemStatus"]

_logger = logging.getLogger(__name__)

# How long at most until a save condition, a signal or the end of the uptime is noticed. Whatever a thread or
# a caller does is noticed at once.
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the system is.

    Attributes:
        phase: Where it is in its life.
        uptime_s: Seconds since it was started.
        threads: Where its threads are, by name.
        pause_timeouts: How many pauses were given up because a thread did not come to a stand.
        last_pause_error: Why the last one was; empty if none was.
        saves: How its saves went.
    """

    phase: Phase
    uptime_s: float
    threads: dict[str, ThreadPhase]
    pause_timeouts: int
    last_pause_error: str
    saves: SaveStatus


class ControlThread:
    """Starts the workers, and runs until they have ended.

    It has no thread of its own: :meth:`run` occupies the caller's. The ``request_…`` methods may be called
    from any thread.
    """

    def __init__(
        self,
        workers: Sequence[WorkerThread],
        controller: ThreadController,
        supervisor: SaveSupervisor,
        *,
        clock: TimeController,
        timeout_for_all_threads_pause: float = 60.0,
        max_attempts_to_pause_all_threads: int = 3,
        max_uptime: float = math.inf,
        stop_signal: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Make the control thread.

        Args:
            workers: The threads to run; all of them registered with `controller`.
            controller: What it pauses and stops them with.
            supervisor: What it saves with.
            clock: The agent's clock, which stands still while the threads do.
            timeout_for_all_threads_pause: Seconds until a try to pause is given up.
            max_attempts_to_pause_all_threads: How many tries a pause has. The end of the threads is
                waited for as long as all tries together take.
            max_uptime: Seconds after which the system ends by itself.
            stop_signal: The name of a signal to end, once there was one. Asked several times a second.
        """
        self._workers = list(workers)
        self._controller = controller
        self._supervisor = supervisor
        self._clock = clock
        self._pause_timeout_s = timeout_for_all_threads_pause
        self._stop_timeout_s = timeout_for_all_threads_pause * max_attempts_to_pause_all_threads
        self._max_uptime_s = max_uptime
        self._stop_signal = stop_signal
        self._life = Lifecycle(max_attempts=max_attempts_to_pause_all_threads)
        self._requests: deque[Event] = deque()
        self._started_at = time.perf_counter()
        self._deadline = math.inf
        self._snapshot_taken = False
        self._done: deque[Event] = deque()
        self._pause_timeouts = 0
        self._last_pause_error = ""

    def request_pause(self) -> None:
        """Ask the system to pause until it is asked to resume."""
        self._request(Event.PAUSE_REQUESTED)

    def request_resume(self) -> None:
        """Ask the system to go on."""
        self._request(Event.RESUME_REQUESTED)

    def request_save(self) -> SaveReport:
        """Ask for a state to be saved, as soon as no other save is under way.

        Returns:
            What is known of it now; :attr:`save_log` has under its id what becomes of it.
        """
        report = self._supervisor.request()
        self._controller.wake()
        return report

    def request_shutdown(self) -> None:
        """Ask the system to end."""
        self._request(Event.SHUTDOWN_REQUESTED)

    @property
    def waiting_requests(self) -> int:
        """How many requests to pause, resume or end were not taken up yet."""
        return len(self._requests)

    @property
    def save_log(self) -> SaveLog:
        """What became of the last saves."""
        return self._supervisor.log

    @property
    def status(self) -> SystemStatus:
        """How the system is now."""
        return SystemStatus(
            phase=self._life.phase,
            uptime_s=time.perf_counter() - self._started_at,
            threads=self._controller.phases(),
            pause_timeouts=self._pause_timeouts,
            last_pause_error=self._last_pause_error,
            saves=self._supervisor.status,
        )

    @property
    def at_rest(self) -> bool:
        """Whether no worker runs, so that the components hold still."""
        return all(phase.ended or phase is ThreadPhase.NOT_STARTED for phase in self._controller.phases().values())

    def run(self) -> None:
        """Start the workers, and return when all of them have ended.

        Raises:
            BaseException: What a worker died of, with its traceback.
            PauseTimeoutError: A worker did not end in time; it is still running.
        """
        self._started_at = time.perf_counter()
        try:
            for worker in self._workers:
                worker.start()
            self._loop()
        except BaseException as error:
            # A failure of this thread, or Ctrl-C where its signal is not handled: end in order all the same. But a
            # second signal, while that goes on, ends it.
            if isinstance(error, Exception) or self._life.phase is not Phase.SHUTTING_DOWN:
                self._stop_workers()
            raise
        for worker in self._workers:
            worker.join(self._stop_timeout_s)
        self._raise_failure()

    def _loop(self) -> None:
        while not self._life.ended:
            version = self._controller.version()
            event = self._next_event()
            if event is None:
                self._controller.wait_for_change(version, _TICK_S)
                continue
            before = self._life.phase
            self._life, instructions = transition(self._life, event)
            if self._life.phase is not before:
                _logger.debug("%s -> %s: %s", before.value, self._life.phase.value, event.value)
            for instruction in instructions:
                self._carry_out(instruction)

    def _next_event(self) -> Event | None:
        phases = self._controller.phases()
        if all(phase.ended for phase in phases.values()):
            return Event.THREADS_STOPPED if not self._failure_unseen(phases) else Event.THREAD_FAILED
        if self._failure_unseen(phases):
            return Event.THREAD_FAILED
        if self._life.phase is Phase.SHUTTING_DOWN:
            self._check_stop_deadline()
            return None
        if self._is_to_end():
            return Event.SHUTDOWN_REQUESTED
        if self._done:
            return self._done.popleft()
        if self._requests:
            return self._requests.popleft()
        return self._thread_event(phases)

    def _thread_event(self, phases: dict[str, ThreadPhase]) -> Event | None:
        standing = {ThreadPhase.PAUSED, ThreadPhase.STOPPED, ThreadPhase.FAILED}
        match self._life.phase:
            case Phase.STARTING if not set(phases.values()) & {ThreadPhase.NOT_STARTED, ThreadPhase.STARTING}:
                return Event.STARTED
            case Phase.PREPARING if self._life.attempt and set(list(phases.values())[:-1]) <= standing:
                return Event.TRAINING_PAUSED
            case Phase.PAUSING if set(phases.values()) <= standing:
                return Event.THREADS_PAUSED
            case Phase.PREPARING | Phase.PAUSING if self._life.attempt and time.perf_counter() >= self._deadline:
                return Event.PAUSE_TIMED_OUT
            case Phase.RESUMING if ThreadPhase.PAUSED not in phases.values():
                return Event.THREADS_RESUMED
            case Phase.ACTIVE if self._supervisor.is_due():
                return Event.SAVE_REQUESTED
            # While nothing changes only somebody's wish is a reason to save.
            case Phase.PAUSED if self._supervisor.is_wanted():
                return Event.SAVE_REQUESTED
        return None

    def _failure_unseen(self, phases: dict[str, ThreadPhase]) -> bool:
        return not self._life.failed and ThreadPhase.FAILED in phases.values()

    def _is_to_end(self) -> bool:
        signal = self._stop_signal()
        if signal is not None:
            _logger.info("received %s, shutting down", signal)
            return True
        if time.perf_counter() - self._started_at >= self._max_uptime_s:
            _logger.info("the system has run for %g s, shutting down", self._max_uptime_s)
            return True
        return False

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Instruction.PAUSE_THREADS | Instruction.PAUSE_TRAINING:
                if self._life.attempt > 1:
                    _logger.warning(
                        "the threads %s are not at a step boundary yet: attempt %d of %d to pause",
                        self._controller.holding_up(),
                        self._life.attempt,
                        self._life.max_attempts,
                    )
                self._deadline = time.perf_counter() + self._pause_timeout_s
                if instruction is Instruction.PAUSE_TRAINING:
                    self._controller.pause_training()
                else:
                    self._controller.pause()
            case Instruction.PREPARE_SNAPSHOT:
                self._supervisor.prepare_snapshot()
                self._done.append(Event.PREPARED)
            case Instruction.RESUME_THREADS:
                if self._snapshot_taken:
                    self._supervisor.record_stall(self._controller.stood_still_s())
                    self._snapshot_taken = False
                self._controller.resume()
            case Instruction.PAUSE_CLOCK:
                self._clock.pause()
            case Instruction.RESUME_CLOCK:
                self._clock.resume()
            case Instruction.TAKE_SNAPSHOT:
                self._supervisor.take_snapshot()
                self._snapshot_taken = True
                self._done.append(Event.SNAPSHOT_ENDED)
            case Instruction.REPORT_PAUSE_TIMEOUT:
                self._report_pause_timeout()
            case Instruction.STOP_THREADS:
                self._deadline = time.perf_counter() + self._stop_timeout_s
                self._controller.shutdown()
                self._clock.interrupt_sleeps()

    def _report_pause_timeout(self) -> None:
        self._pause_timeouts += 1
        error = PauseTimeoutError(
            f"the threads {self._controller.holding_up()} did not reach a step boundary within "
            f"{self._life.max_attempts} x {self._pause_timeout_s:g} s; raise timeout_for_all_threads_pause, "
            "or take shorter steps"
        )
        self._last_pause_error = str(error)
        self._supervisor.give_up(error)
        _logger.error("pause given up, the agent goes on: %s", error)

    def _check_stop_deadline(self) -> None:
        if time.perf_counter() < self._deadline:
            return
        error = PauseTimeoutError(
            f"the threads {self._running()} did not end within {self._stop_timeout_s:g} s of the shutdown; "
            "they are left behind, and no final state is saved because they may still change it"
        )
        for name, failure in self._controller.errors().items():
            error.add_note(f"before that the thread {name!r} failed: {failure!r}")
        raise error

    def _stop_workers(self) -> None:
        self._controller.shutdown()
        self._clock.interrupt_sleeps()
        deadline = time.perf_counter() + self._stop_timeout_s
        if self._life.phase is Phase.SHUTTING_DOWN:
            # They had their time already.
            deadline = min(deadline, self._deadline)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.perf_counter()))

    def _running(self) -> list[str]:
        phases = self._controller.phases()
        return sorted(name for name, phase in phases.items() if not phase.ended)

    def _raise_failure(self) -> None:
        errors = self._controller.errors()
        if not errors:
            return
        (_, first), *others = errors.items()
        for name, other in others:
            first.add_note(f"the thread {name!r} failed as well: {told(other)}")
        raise first

    def _request(self, event: Event) -> None:
        self._requests.append(event)
        self._controller.wake()
