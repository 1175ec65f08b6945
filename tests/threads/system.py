"""A small real system: an agent that counts, a trainer that counts, a store in a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from statevault.interaction import Agent, Environment, Interaction
from statevault.state_persistence import StateStore
from statevault.threads import (
    ControlThread,
    InferenceThread,
    SaveSupervisor,
    SystemStatus,
    ThreadController,
    TrainingThread,
)
from statevault.threads.save_supervisor import keep_all, never
from statevault.time import TimeController
from statevault.trainer import Trainer, TrainersDict

LIMIT_S = 300.0


class Counter(Agent[int, int]):
    """Counts its steps, and keeps a diary of events."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.events: list[str] = []
        self.fail_at: int | None = None
        self.fail_to_save = False
        self.at_gate = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def step(self, observation: int) -> int:
        if not self.gate.is_set():
            self.at_gate.set()
            self.gate.wait(LIMIT_S)
        self.steps += 1
        if self.steps == self.fail_at:
            raise ZeroDivisionError("the agent fell over")
        time.sleep(0.001)
        return self.steps

    def setup(self) -> None:
        self.events.append("setup")

    def teardown(self) -> None:
        self.events.append("teardown")

    def on_paused(self) -> None:
        self.events.append("paused")

    def on_resumed(self) -> None:
        self.events.append("resumed")

    def save_state(self, path: Path) -> None:
        super().save_state(path)
        if self.fail_to_save:
            raise OSError("the pen is broken")
        path.mkdir(exist_ok=True)
        (path / "steps").write_text(str(self.steps))

    def load_state(self, path: Path) -> None:
        self.steps = int((path / "steps").read_text())


class World(Environment[int, int]):
    """Remembers the last action."""

    last = 0

    def observe(self) -> int:
        return self.last

    def affect(self, action: int) -> None:
        self.last = action


class Drill(Trainer):
    """A trainer that trains as long as there is work."""

    def __init__(self, work: int = 0) -> None:
        super().__init__()
        self.work = work
        self.asked = 0
        self.trained = 0
        self.events: list[str] = []
        self.at_gate = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.fail = False

    def is_trainable(self) -> bool:
        self.asked += 1
        return self.work > 0 or self.fail

    def train(self) -> None:
        if self.fail:
            raise ValueError("the drill broke")
        if not self.gate.is_set():
            self.at_gate.set()
            self.gate.wait(LIMIT_S)
        self.work -= 1
        self.trained += 1

    def on_paused(self) -> None:
        self.events.append("paused")

    def on_resumed(self) -> None:
        self.events.append("resumed")


class Keeper:
    """A retention that fails when it is told to, and notes what it was called with."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.calls: list[str | None] = []

    def __call__(self, path: UPath | None) -> None:
        self.calls.append(None if path is None else path.name)
        if self.error is not None:
            raise self.error


class System:
    """Everything that launch wires, without models and buffers."""

    def __init__(
        self,
        folder: Path,
        *,
        trainers: Mapping[str, Trainer] | None = None,
        condition: Callable[[], bool] = never,
        cleanup: Callable[[UPath | None], None] = keep_all,
        cleanup_interval_s: float = 60.0,
        **options: Any,
    ) -> None:
        self.agent = Counter()
        self.world = World()
        self.clock = TimeController()
        self.store = StateStore(folder)
        interaction = Interaction(self.agent, self.world)
        self.store.register("interaction", interaction)
        self.store.register("time", self.clock)
        self.supervisor = SaveSupervisor(
            self.store, condition=condition, cleanup=cleanup, cleanup_interval_s=cleanup_interval_s
        )
        controller = ThreadController()
        workers = [TrainingThread(TrainersDict(trainers), controller), InferenceThread(interaction, controller)]
        self.control = ControlThread(workers, controller, self.supervisor, clock=self.clock, **options)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="test-control")

    @property
    def status(self) -> SystemStatus:
        return self.control.status

    def _run(self) -> None:
        try:
            self.control.run()
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + LIMIT_S
        while not reached():
            assert time.monotonic() < end, self.status
            time.sleep(0.002)

    def until_acting(self) -> None:
        """Wait until the agent has taken some more steps."""
        steps = self.agent.steps
        self.until(lambda: self.agent.steps > steps + 2)

    def join(self) -> None:
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), self.status

    @contextmanager
    def running(self) -> Iterator[System]:
        """Run it, and end it afterwards."""
        self.start()
        try:
            yield self
        finally:
            self.control.request_shutdown()
            self.agent.gate.set()
            self.join()
            self.supervisor.close()
            self.store.close()
