"""Steps per second of an agent that does nothing: what the runtime adds to the bare loop."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from benchmarks.idlers import Idler, Nowhere
from benchmarks.measure import Effort, Spread, interleaved, seconds_per_call
from benchmarks.report import Row, Section
from statevault.data.impls import SequentialBuffer
from statevault.interaction import Agent, Interaction
from statevault.launcher import LaunchConfig, launch
from statevault.testing import connect_components

__all__ = ["run"]

_QUEUE = 10_000


class Counter(Idler):
    """Counts its steps."""

    steps = 0

    @override
    def step(self, observation: int) -> int:
        self.steps += 1
        return 1


class Recorder(Idler):
    """Collects each step."""

    @override
    def on_data_collectors_attached(self) -> None:
        self._collector = self.get_data_collector("experience")

    @override
    def step(self, observation: int) -> int:
        self._collector.collect({"observation": observation, "action": 1})
        return 1


class LockedRecorder(Idler):
    """Does the same with a deque and a lock."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[dict[str, int]] = deque(maxlen=_QUEUE)
        self._lock = threading.Lock()

    @override
    def step(self, observation: int) -> int:
        with self._lock:
            self._queue.append({"observation": observation, "action": 1})
        return 1


def run(effort: Effort) -> Section:
    """Measure steps of an interaction, with and without a collector, and in a launched system."""
    calls = effort.pick(300_000, 50_000, 100)
    rounds = effort.pick(7, 3, 1)
    recorder = Recorder()
    connect_components(agent=recorder, buffers={"experience": SequentialBuffer(["observation", "action"], _QUEUE)})
    seconds = interleaved(
        {
            "ours": seconds_per_call(_interaction_loop(Idler()), calls),
            "peer": seconds_per_call(_bare_loop(Idler()), calls),
            "ours, collecting": seconds_per_call(_interaction_loop(recorder), calls),
            "peer, collecting": seconds_per_call(_bare_loop(LockedRecorder()), calls),
        },
        rounds,
    )
    per_second = {name: spread.map(lambda s: 1 / s) for name, spread in seconds.items()}
    launched = Spread.of([_launched(effort.pick(1.5, 0.5, 0.1)) for _ in range(effort.pick(3, 2, 1))])
    return Section(
        "steps",
        "steps per second of an agent that does nothing",
        "observe(), step() and affect() of the same objects in a bare loop",
        [
            Row("Interaction.step()", per_second["ours"], per_second["peer"], "1/s", "higher"),
            Row(
                "Interaction.step() that collects",
                per_second["ours, collecting"],
                per_second["peer, collecting"],
                "1/s",
                "higher",
                against="appends to a deque under a lock",
            ),
            Row("a launched system, with its three threads", launched, per_second["peer"], "1/s", "higher"),
        ],
    )


def _interaction_loop(agent: Agent[int, int]) -> Callable[[int], Any]:
    interaction = Interaction(agent, Nowhere())

    def loop(times: int) -> None:
        for _ in range(times):
            interaction.step()

    return loop


def _bare_loop(agent: Agent[int, int]) -> Callable[[int], Any]:
    environment = Nowhere()

    def loop(times: int) -> None:
        for _ in range(times):
            observation = environment.observe()
            action = agent.step(observation)
            environment.affect(action)

    return loop


def _launched(seconds: float) -> float:
    """Steps per second of a whole system, from its first step to its last."""
    agent = Counter()
    with tempfile.TemporaryDirectory() as folder:
        launch(
            Interaction(agent, Nowhere()),
            config=LaunchConfig(states_dir=folder, max_uptime=seconds, web_api_address=None),
        )
    return agent.steps / seconds
