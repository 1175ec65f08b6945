"""The state machine of the lifecycle, exhaustively."""

from __future__ import annotations

from collections import deque
from itertools import product

import pytest

from statevault.threads.lifecycle import Event, Instruction, Lifecycle, Phase, transition

E, I, P = Event, Instruction, Phase  # noqa: E741 - a table of them follows

MAX_ATTEMPTS = 2


def reachable() -> dict[Lifecycle, tuple[Event, ...]]:
    """Every state that any sequence of events leads to, with a shortest such sequence."""
    first = Lifecycle(max_attempts=MAX_ATTEMPTS)
    paths: dict[Lifecycle, tuple[Event, ...]] = {first: ()}
    queue = deque([first])
    while queue:
        life = queue.popleft()
        for event in Event:
            following, _ = transition(life, event)
            if following not in paths:
                paths[following] = (*paths[life], event)
                queue.append(following)
    return paths


REACHABLE = reachable()


def run(*events: Event, life: Lifecycle | None = None) -> tuple[Lifecycle, list[Instruction]]:
    life = life or Lifecycle(max_attempts=MAX_ATTEMPTS)
    instructions: list[Instruction] = []
    for event in events:
        life, given = transition(life, event)
        instructions.extend(given)
    return life, instructions


ACTIVE, _ = run(E.STARTED)
SAVE = (E.SAVE_REQUESTED, E.TRAINING_PAUSED, E.PREPARED)
PREPARED = (I.PAUSE_TRAINING, I.PREPARE_SNAPSHOT)


def test_every_phase_can_be_reached() -> None:
    assert {life.phase for life in REACHABLE} == set(Phase)


@pytest.mark.parametrize(
    ("events", "phase", "instructions"),
    [
        ([], P.ACTIVE, []),
        ([E.PAUSE_REQUESTED], P.PAUSING, [I.PAUSE_THREADS]),
        ([E.PAUSE_REQUESTED, E.THREADS_PAUSED], P.PAUSED, [I.PAUSE_THREADS, I.PAUSE_CLOCK]),
        (
            [E.PAUSE_REQUESTED, E.THREADS_PAUSED, E.RESUME_REQUESTED],
            P.RESUMING,
            [I.PAUSE_THREADS, I.PAUSE_CLOCK, I.RESUME_CLOCK, I.RESUME_THREADS],
        ),
        ([E.SAVE_REQUESTED], P.PREPARING, [I.PAUSE_TRAINING]),
        ([E.SAVE_REQUESTED, E.TRAINING_PAUSED], P.PREPARING, [I.PAUSE_TRAINING, I.PREPARE_SNAPSHOT]),
        ([*SAVE], P.PAUSING, [*PREPARED, I.PAUSE_THREADS]),
        ([*SAVE, E.THREADS_PAUSED], P.SAVING, [*PREPARED, I.PAUSE_THREADS, I.PAUSE_CLOCK, I.TAKE_SNAPSHOT]),
        (
            [*SAVE, E.THREADS_PAUSED, E.SNAPSHOT_ENDED, E.THREADS_RESUMED],
            P.ACTIVE,
            [*PREPARED, I.PAUSE_THREADS, I.PAUSE_CLOCK, I.TAKE_SNAPSHOT, I.RESUME_CLOCK, I.RESUME_THREADS],
        ),
        ([E.SAVE_REQUESTED, E.PAUSE_TIMED_OUT], P.PREPARING, [I.PAUSE_TRAINING, I.PAUSE_TRAINING]),
        (
            [E.SAVE_REQUESTED, E.PAUSE_TIMED_OUT, E.PAUSE_TIMED_OUT],
            P.RESUMING,
            [I.PAUSE_TRAINING, I.PAUSE_TRAINING, I.REPORT_PAUSE_TIMEOUT, I.RESUME_THREADS],
        ),
        ([*SAVE, E.PAUSE_TIMED_OUT], P.PAUSING, [*PREPARED, I.PAUSE_THREADS, I.PAUSE_THREADS]),
        (
            [*SAVE, E.PAUSE_TIMED_OUT, E.PAUSE_TIMED_OUT],
            P.RESUMING,
            [*PREPARED, I.PAUSE_THREADS, I.PAUSE_THREADS, I.REPORT_PAUSE_TIMEOUT, I.RESUME_THREADS],
        ),
        ([E.PAUSE_REQUESTED, E.RESUME_REQUESTED], P.RESUMING, [I.PAUSE_THREADS, I.RESUME_THREADS]),
        ([E.SHUTDOWN_REQUESTED], P.SHUTTING_DOWN, [I.STOP_THREADS]),
        ([E.SHUTDOWN_REQUESTED, E.THREADS_STOPPED], P.STOPPED, [I.STOP_THREADS]),
        ([E.THREAD_FAILED], P.SHUTTING_DOWN, [I.STOP_THREADS]),
        ([E.THREAD_FAILED, E.THREADS_STOPPED], P.FAILED, [I.STOP_THREADS]),
        ([E.SHUTDOWN_REQUESTED, E.THREAD_FAILED, E.THREADS_STOPPED], P.FAILED, [I.STOP_THREADS]),
        ([E.THREADS_STOPPED, E.THREADS_STOPPED], P.STOPPED, [I.STOP_THREADS]),
    ],
)
def test_what_follows_in_an_active_system(events: list[Event], phase: Phase, instructions: list[Instruction]) -> None:
    life, given = run(*events, life=ACTIVE)
    assert life.phase is phase
    assert given == instructions


@pytest.mark.parametrize("life", REACHABLE, ids=lambda life: "-".join(e.name for e in REACHABLE[life]) or "start")
def test_from_every_state_each_event_keeps_the_promises(life: Lifecycle) -> None:
    for event in Event:
        following, instructions = transition(life, event)
        if I.TAKE_SNAPSHOT in instructions:
            # Only while the threads stand still.
            assert (life.phase, event) in {
                (P.PAUSING, E.THREADS_PAUSED),
                (P.PAUSED, E.SAVE_REQUESTED),
                (P.SAVING, E.SNAPSHOT_ENDED),
            }
            assert following.phase is P.SAVING
        if life.ended:
            assert (following, instructions) == (life, ())
        if life.phase is P.SHUTTING_DOWN:
            assert instructions == ()
        if event in {E.SHUTDOWN_REQUESTED, E.THREAD_FAILED} and life.phase not in {
            P.SHUTTING_DOWN,
            P.STOPPED,
            P.FAILED,
        }:
            assert following.phase is P.SHUTTING_DOWN
            assert instructions == (I.STOP_THREADS,)
        if I.PREPARE_SNAPSHOT in instructions:
            # Only while the training thread stands still, and for a save.
            assert (life.phase, event) == (P.PREPARING, E.TRAINING_PAUSED)
            assert following.save
        if following.phase is P.PREPARING:
            assert following.save
        else:
            assert (following.attempt > 0) is (following.phase is P.PAUSING)
        assert following.attempt <= MAX_ATTEMPTS


@pytest.mark.parametrize("life", REACHABLE, ids=lambda life: "-".join(e.name for e in REACHABLE[life]) or "start")
def test_every_state_leads_on_without_anybody_asking(life: Lifecycle) -> None:
    """The acknowledgements alone bring the system to a phase that may last: nothing hangs in between."""
    acknowledgement = {
        P.STARTING: E.STARTED,
        P.PREPARING: E.PREPARED,
        P.PAUSING: E.THREADS_PAUSED,
        P.SAVING: E.SNAPSHOT_ENDED,
        P.RESUMING: E.THREADS_RESUMED,
        P.SHUTTING_DOWN: E.THREADS_STOPPED,
    }
    for _ in range(10):
        if life.phase not in acknowledgement:
            break
        wanted_hold = life.hold
        is_waiting = life.phase is P.PREPARING and life.attempt
        life, _ = transition(life, E.TRAINING_PAUSED if is_waiting else acknowledgement[life.phase])
        if life.phase is P.PAUSED:
            assert wanted_hold
    assert life.phase in {P.ACTIVE, P.PAUSED, P.STOPPED, P.FAILED}


def test_along_every_sequence_clock_and_threads_are_as_the_phase_says() -> None:
    """All sequences of five events: the clock stands while saving and paused, and runs when active."""
    for events in product(Event, repeat=5):
        life = ACTIVE
        clock_runs = threads_run = training_runs = True
        for event in events:
            # What acknowledges nothing can't happen.
            if event is E.THREADS_PAUSED and life.phase is not P.PAUSING:
                continue
            if event is E.TRAINING_PAUSED and life.phase is not P.PREPARING:
                continue
            life, instructions = transition(life, event)
            for instruction in instructions:
                clock_runs = {I.PAUSE_CLOCK: False, I.RESUME_CLOCK: True}.get(instruction, clock_runs)
                threads_run = {I.PAUSE_THREADS: False, I.RESUME_THREADS: True}.get(instruction, threads_run)
                training_runs = {
                    I.PAUSE_TRAINING: False,
                    I.PAUSE_THREADS: False,
                    I.RESUME_THREADS: True,
                }.get(instruction, training_runs)
                assert instruction is not I.PREPARE_SNAPSHOT or not training_runs, events
            if life.phase in {P.PAUSED, P.SAVING}:
                assert not clock_runs, events
                assert not threads_run, events
            if life.phase in {P.ACTIVE, P.RESUMING}:
                assert clock_runs, events
                assert threads_run, events
                assert training_runs, events
            if life.phase is P.PREPARING:
                assert clock_runs, events
                assert threads_run, events
                assert not training_runs, events


def test_a_pause_asked_for_while_saving_lasts() -> None:
    life, _ = run(*SAVE, E.THREADS_PAUSED, E.PAUSE_REQUESTED, E.SNAPSHOT_ENDED, life=ACTIVE)
    assert life.phase is P.PAUSED


def test_a_save_asked_for_while_starting_is_made() -> None:
    life, instructions = run(E.SAVE_REQUESTED, E.STARTED, E.TRAINING_PAUSED, E.PREPARED, E.THREADS_PAUSED)
    assert life.phase is P.SAVING
    assert instructions[-1] is I.TAKE_SNAPSHOT


def test_a_pause_asked_for_while_a_save_is_prepared_lasts() -> None:
    asked = (E.SAVE_REQUESTED, E.TRAINING_PAUSED, E.PAUSE_REQUESTED, E.PREPARED, E.THREADS_PAUSED, E.SNAPSHOT_ENDED)
    life, _ = run(*asked, life=ACTIVE)
    assert life.phase is P.PAUSED


def test_a_save_in_a_pause_does_not_end_it() -> None:
    paused, _ = run(E.PAUSE_REQUESTED, E.THREADS_PAUSED, life=ACTIVE)
    life, instructions = run(E.SAVE_REQUESTED, E.SNAPSHOT_ENDED, life=paused)
    assert life == paused
    assert instructions == [I.TAKE_SNAPSHOT]
