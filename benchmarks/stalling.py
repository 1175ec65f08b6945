"""An acting loop of 100 Hz beside a training thread: what each notices of a save.

Three ways to save the same tensors: not at all, from the training thread, and by a launched system.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from benchmarks.idlers import Idler
from benchmarks.measure import quantile
from benchmarks.methods.interface import TensorMethod
from benchmarks.place import Place
from benchmarks.trial import Contender, Recorder
from benchmarks.workloads import State, TensorWorkload
from statevault.interaction import Environment, FixedIntervalInteraction
from statevault.launcher import LaunchConfig, launch
from statevault.state_persistence import StateStore, write_tree
from statevault.trainer import Trainer

__all__ = ["SAVING", "Schedule", "act_and_save", "launch_and_save"]

SAVING = "saving while acting"

_INTERVAL_S = 0.01
_WARM_UP_S = 0.5
_TRAINING_STEP_S = 0.002


@dataclass(frozen=True, slots=True)
class Schedule:
    """For how long the loops run, and how often they save.

    Attributes:
        seconds: After the first half second, which does not count.
        every_s: From the end of the call that began a save to the next one.
    """

    seconds: float
    every_s: float


class Pulse:
    """Notes the instants of one thread, and tells the times between two of them."""

    def __init__(self) -> None:
        self.instants: list[float] = []

    def beat(self) -> None:
        """Note this instant."""
        self.instants.append(time.monotonic())

    def gap(self, share: float, *, since: float) -> float:
        """Return the seconds between two instants that a share of the gaps from a time on does not exceed."""
        late = [instant for instant in self.instants if instant >= since]
        return quantile((after - before for before, after in pairwise(late)), share)


class Watched(Environment[int, int]):
    """Notes when each step begins."""

    def __init__(self) -> None:
        super().__init__()
        self.pulse = Pulse()

    @override
    def observe(self) -> int:
        self.pulse.beat()
        return 0

    @override
    def affect(self, action: int) -> None:
        pass


class Steady(Trainer):
    """Holds the tensors, changes one of them in each short step, and saves them all."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self.pulse = Pulse()

    @override
    def train(self) -> None:
        self.pulse.beat()
        _train(self.state)

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        write_tree(self.state, path / "state.tree", held=True)


def launch_and_save(
    recorder: Recorder, contender: Contender, place: Place, workload: TensorWorkload, schedule: Schedule
) -> None:
    """Let a launched system act, train and save; runs in a process of its own."""
    torch.set_num_threads(1)
    environment, trainer = Watched(), Steady(workload.make())
    config = LaunchConfig(
        states_dir=place.url,
        storage_options=place.storage_options,
        save_state_interval=schedule.every_s,
        max_uptime=_WARM_UP_S + schedule.seconds,
        web_api_address=None,
    )
    began = time.monotonic()
    launch(
        FixedIntervalInteraction.with_sleep_adjustor(Idler(), environment, _INTERVAL_S),
        trainers={"steady": trainer},
        config=config,
    )
    with StateStore(place.url, storage_options=place.storage_options) as store:
        saves = len(store.states()) - 1  # without the one at the end
    _report(recorder, environment.pulse, trainer.pulse, since=began + _WARM_UP_S, saves=saves)


def act_and_save(
    recorder: Recorder, contender: Contender, place: Place, workload: TensorWorkload, schedule: Schedule
) -> None:
    """Act in one thread, train and save in another; runs in a process of its own."""
    torch.set_num_threads(1)
    state = workload.make()
    method = None if contender.is_limit else contender.load()(place)
    acting, training = Pulse(), Pulse()
    done = threading.Event()

    def act() -> None:
        deadline = time.monotonic()
        while not done.is_set():
            acting.beat()
            now = time.monotonic()
            deadline = max(deadline + _INTERVAL_S, now - (now - deadline) % _INTERVAL_S)
            time.sleep(max(0.0, deadline - now))

    thread = threading.Thread(target=act, name="acting")
    began = time.monotonic()
    thread.start()
    saver = _Saver(method, state)
    due = began + schedule.every_s
    while time.monotonic() - began < _WARM_UP_S + schedule.seconds:
        training.beat()
        _train(state)
        if time.monotonic() >= due and saver.begin():
            due = time.monotonic() + schedule.every_s
    done.set()
    thread.join()
    saver.finish()
    _report(recorder, acting, training, since=began + _WARM_UP_S, saves=saver.saves)


class _Saver:
    """Saves from the training thread; what a method does in the background goes on behind it."""

    def __init__(self, method: TensorMethod | None, state: State) -> None:
        self._method = method
        self._state = state
        self._running: Future[Any] | None = None
        self.saves = 0

    def begin(self) -> bool:
        """Begin a save, unless one is under way."""
        if self._method is None or (self._running is not None and not self._running.done()):
            return False
        self.finish()
        self._running = self._method.begin(self._state, self.saves + 1)
        return True

    def finish(self) -> None:
        """Wait for the save that is under way."""
        if self._running is not None:
            self._running.result()
            self._running = None
            self.saves += 1


def _train(state: State) -> None:
    group = next(iter(state.values()))
    next(iter(group.values())).view(-1)[:1000].add_(1e-3)
    time.sleep(_TRAINING_STEP_S)


def _report(recorder: Recorder, acting: Pulse, training: Pulse, *, since: float, saves: int) -> None:
    recorder.note(
        SAVING,
        gap_ms=1e3 * acting.gap(1.0, since=since),
        gap_p99_ms=1e3 * acting.gap(0.99, since=since),
        pause_ms=1e3 * training.gap(1.0, since=since),
        saves=saves,
    )
