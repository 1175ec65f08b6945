"""The life of a running system as a pure state machine: events in; the next state and instructions out.

Nothing here waits, locks or calls anybody. The control thread turns what it sees into events, gives them to
:func:`transition`, and carries out the instructions in their order. What the machine guarantees:

* A snapshot is taken only while all threads are paused and the clock stands still; what only the training thread
  changes may be saved before, while that one stands still and the agent acts on.
* Whatever the outcome of a save or of a pause, the threads go on unless somebody asked for a pause.
* Once the system shuts down nothing but the end of its threads matters, and they are told to stop once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

__all__ = [
    "Event",
    "Instruction",
    "Lifecycle",
    "Phase",
    "transition",
]


class Phase(Enum):
    """Where the system is in its life."""

    STARTING = "starting"
    ACTIVE = "active"
    PREPARING = "preparing"
    PAUSING = "pausing"
    PAUSED = "paused"
    SAVING = "saving"
    RESUMING = "resuming"
    SHUTTING_DOWN = "shutting down"
    STOPPED = "stopped"
    FAILED = "failed"


class Event(Enum):
    """What may happen to the system."""

    STARTED = "all threads have begun"
    PAUSE_REQUESTED = "somebody asks for a pause"
    RESUME_REQUESTED = "somebody asks to go on"
    SAVE_REQUESTED = "a state is to be saved"
    SHUTDOWN_REQUESTED = "somebody asks for the end"
    TRAINING_PAUSED = "all threads but the acting one stand at their boundaries"
    PREPARED = "what only the training thread changes was saved, or that failed"
    THREADS_PAUSED = "all threads stand at their boundaries"
    PAUSE_TIMED_OUT = "not all threads that were asked to came to a stand in time"
    THREADS_RESUMED = "all threads run again"
    SNAPSHOT_ENDED = "the snapshot was taken, or failed"
    THREAD_FAILED = "a thread died of an exception"
    THREADS_STOPPED = "all threads have ended"


class Instruction(Enum):
    """What the control thread is to do."""

    PAUSE_TRAINING = "ask all threads but the acting one to pause, and begin the time-out"
    PREPARE_SNAPSHOT = "save what only the training thread changes"
    PAUSE_THREADS = "ask the threads to pause, and begin the time-out"
    RESUME_THREADS = "let the threads go on"
    PAUSE_CLOCK = "stop the agent's clock"
    RESUME_CLOCK = "let the agent's clock go on"
    TAKE_SNAPSHOT = "snapshot the components, and publish in the background"
    REPORT_PAUSE_TIMEOUT = "log and count that a pause failed"
    STOP_THREADS = "tell the threads to end"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The state of the machine.

    Attributes:
        phase: Where the system is.
        max_attempts: How often a pause is tried before it is given up.
        attempt: Which try of the current pause this is, from 1; 0 outside of :attr:`Phase.PREPARING` and
            :attr:`Phase.PAUSING`, and while the first phase of a snapshot is taken.
        hold: Whether somebody wants the system to stay paused.
        save: Whether a state is to be saved once the threads are paused.
        failed: Whether a thread died.
    """

    phase: Phase = Phase.STARTING
    max_attempts: int = 3
    attempt: int = 0
    hold: bool = False
    save: bool = False
    failed: bool = False

    @property
    def ended(self) -> bool:
        """Whether all threads have ended."""
        return self.phase in {Phase.STOPPED, Phase.FAILED}


Step: TypeAlias = tuple[Lifecycle, tuple[Instruction, ...]]

_LAST_PHASES = frozenset({Phase.SHUTTING_DOWN, Phase.STOPPED, Phase.FAILED})


def transition(life: Lifecycle, event: Event) -> Step:
    """Say what follows from an event.

    An event that means nothing in the present phase (a late or a second one) changes nothing.

    Returns:
        The next state, and the instructions to carry out, in this order.
    """
    if life.phase in _LAST_PHASES:
        return _while_ending(life, event)
    match event:
        case Event.SHUTDOWN_REQUESTED:
            return _end(life)
        case Event.THREAD_FAILED:
            return _end(replace(life, failed=True))
        case Event.THREADS_STOPPED:
            # Threads that end by themselves leave nothing to run.
            return _end(life)
    match life.phase:
        case Phase.STARTING:
            return _while_starting(life, event)
        case Phase.ACTIVE | Phase.RESUMING:
            return _while_running(life, event)
        case Phase.PREPARING:
            return _while_preparing(life, event)
        case Phase.PAUSING:
            return _while_pausing(life, event)
        case Phase.SAVING:
            return _while_saving(life, event)
        case _:
            return _while_paused(life, event)


def _while_starting(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.STARTED if life.save:
            return _prepare(life)
        case Event.STARTED if life.hold:
            return _pause(life)
        case Event.STARTED:
            return replace(life, phase=Phase.ACTIVE), ()
        case _:
            return _note_request(life, event)


def _while_running(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.PAUSE_REQUESTED:
            return _pause(replace(life, hold=True))
        case Event.SAVE_REQUESTED:
            return _prepare(replace(life, save=True))
        case Event.THREADS_RESUMED if life.phase is Phase.RESUMING:
            return replace(life, phase=Phase.ACTIVE), ()
        case _:
            return life, ()


def _while_preparing(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.TRAINING_PAUSED if life.attempt:
            return replace(life, attempt=0), (Instruction.PREPARE_SNAPSHOT,)
        case Event.PREPARED if not life.attempt:
            return _pause(life)
        case Event.PAUSE_TIMED_OUT if life.attempt:
            return _try_again(life, Instruction.PAUSE_TRAINING)
        case _:
            return _note_request(life, event)


def _while_pausing(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.THREADS_PAUSED:
            return _stand(life)
        case Event.PAUSE_TIMED_OUT:
            return _try_again(life, Instruction.PAUSE_THREADS)
        case Event.RESUME_REQUESTED if not life.save:
            return replace(life, phase=Phase.RESUMING, attempt=0, hold=False), (Instruction.RESUME_THREADS,)
        case _:
            return _note_request(life, event)


def _while_saving(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.SNAPSHOT_ENDED if life.save:
            # Asked for while the last one was taken: it may hold less than the asker has seen.
            return replace(life, save=False), (Instruction.TAKE_SNAPSHOT,)
        case Event.SNAPSHOT_ENDED if life.hold:
            return replace(life, phase=Phase.PAUSED), ()
        case Event.SNAPSHOT_ENDED:
            return _go_on(life)
        case _:
            return _note_request(life, event)


def _while_paused(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.RESUME_REQUESTED:
            return _go_on(replace(life, hold=False))
        case Event.SAVE_REQUESTED:
            return replace(life, phase=Phase.SAVING), (Instruction.TAKE_SNAPSHOT,)
        case _:
            return life, ()


def _while_ending(life: Lifecycle, event: Event) -> Step:
    if life.phase is not Phase.SHUTTING_DOWN:
        return life, ()
    match event:
        case Event.THREAD_FAILED:
            return replace(life, failed=True), ()
        case Event.THREADS_STOPPED:
            return replace(life, phase=Phase.FAILED if life.failed else Phase.STOPPED), ()
        case _:
            return life, ()


def _note_request(life: Lifecycle, event: Event) -> Step:
    match event:
        case Event.PAUSE_REQUESTED:
            return replace(life, hold=True), ()
        case Event.RESUME_REQUESTED:
            return replace(life, hold=False), ()
        case Event.SAVE_REQUESTED:
            return replace(life, save=True), ()
        case _:
            return life, ()


def _try_again(life: Lifecycle, instruction: Instruction) -> Step:
    if life.attempt < life.max_attempts:
        return replace(life, attempt=life.attempt + 1), (instruction,)
    return (
        replace(life, phase=Phase.RESUMING, attempt=0, hold=False, save=False),
        (Instruction.REPORT_PAUSE_TIMEOUT, Instruction.RESUME_THREADS),
    )


def _prepare(life: Lifecycle) -> Step:
    return replace(life, phase=Phase.PREPARING, attempt=1), (Instruction.PAUSE_TRAINING,)


def _pause(life: Lifecycle) -> Step:
    return replace(life, phase=Phase.PAUSING, attempt=1), (Instruction.PAUSE_THREADS,)


def _stand(life: Lifecycle) -> Step:
    if life.save:
        # The clock stops first: the state holds one time, that of the cut.
        return (
            replace(life, phase=Phase.SAVING, attempt=0, save=False),
            (Instruction.PAUSE_CLOCK, Instruction.TAKE_SNAPSHOT),
        )
    return replace(life, phase=Phase.PAUSED, attempt=0), (Instruction.PAUSE_CLOCK,)


def _go_on(life: Lifecycle) -> Step:
    # The clock goes first: no thread takes a step while it stands still.
    return replace(life, phase=Phase.RESUMING), (Instruction.RESUME_CLOCK, Instruction.RESUME_THREADS)


def _end(life: Lifecycle) -> Step:
    ending = replace(life, phase=Phase.SHUTTING_DOWN, attempt=0, hold=False, save=False)
    return ending, (Instruction.STOP_THREADS,)
