"""How late the steps of a loop of 100 Hz begin: idle, beside training, and beside training and saving."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from benchmarks.idlers import Idler
from benchmarks.measure import Effort, Spread, quantile
from benchmarks.report import Row, Section
from benchmarks.training import ByHand, Regression, network, samples
from statevault import time as agent_time
from statevault.data.impls import SequentialBuffer
from statevault.interaction import Environment, FixedIntervalInteraction
from statevault.launcher import LaunchConfig, launch
from statevault.torch import TorchTrainingModel

__all__ = ["lateness", "run"]

_TRIES = 5
_INTERVAL_S = 0.01
_WIDTH = 256
_SAMPLES = 10_000
_SETTLING_STEPS = 20
_ROUNDING = 1e-6


class Watch(Environment[int, int]):
    """Notes when each step begins, on the system's clock and on the agent's."""

    def __init__(self) -> None:
        super().__init__()
        self.real: list[float] = []
        self.agent: list[float] = []

    @override
    def observe(self) -> int:
        self.real.append(time.perf_counter())
        self.agent.append(agent_time.perf_counter())
        return 0

    @override
    def affect(self, action: int) -> None:
        pass


def lateness(real: list[float], agent: list[float], *, interval_s: float, deadline: float) -> list[float]:
    """Return by how many seconds each step began after its place on the grid.

    The grid lies on the agent's clock, which stands still in a pause; what a pause cost is added to the step that
    it delayed, so that it counts as if the step had been late. A step that misses deadlines is late by all of
    them, and the next one is due at the next deadline.

    Args:
        real: When the steps began, in seconds of the system's clock.
        agent: The same in seconds of the agent's clock.
        interval_s: The distance of two deadlines.
        deadline: Any deadline of the grid, on the agent's clock.
    """
    late: list[float] = []
    if not agent:
        return late
    place = math.floor((agent[0] - deadline) / interval_s + _ROUNDING)
    for number in range(1, len(agent)):
        since = agent[number] - deadline
        paused = (real[number] - agent[number]) - (real[number - 1] - agent[number - 1])
        due = place + 1
        if since < (due - _ROUNDING) * interval_s:
            # The step before came after two deadlines, and this one makes up for one of them.
            due = math.floor(since / interval_s + _ROUNDING)
        late.append(max(0.0, since - due * interval_s) + max(0.0, paused))
        place = max(due, math.floor(since / interval_s + _ROUNDING))
    return late


def run(effort: Effort) -> Section:
    """Measure three conditions, each in turn with the peer's loop."""
    seconds, rounds = effort.pick(2.5, 2.0, 0.4), effort.pick(3, 1, 1)
    save_every_s = effort.pick(0.5, 0.5, 0.1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    _warm_up()
    try:
        for what, training, saving in (
            ("idle", False, False),
            ("training", True, False),
            (f"training, saving every {save_every_s:g} s", True, True),
        ):
            every_s = save_every_s if saving else math.inf
            ours, peer = [], []
            for _ in range(rounds):
                ours.append(_ours(seconds, training=training, save_every_s=every_s))
                peer.append(_peer(seconds, training=training, save_every_s=every_s))
            rows += [
                Row(f"{what}: {name}", _milliseconds(ours, share), _milliseconds(peer, share), "ms", "lower")
                for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
            ]
    finally:
        torch.set_num_threads(threads)
    return Section(
        "jitter",
        f"how late steps begin at {1 / _INTERVAL_S:.0f} Hz, {rounds} times {seconds:g} s each",
        "time.sleep on a grid, beside a thread that trains by hand and calls torch.save; torch with one thread",
        rows,
    )


def _milliseconds(runs: list[list[float]], share: float) -> Spread:
    return Spread.of(1e3 * quantile(late, share) for late in runs)


def _ours(seconds: float, *, training: bool, save_every_s: float) -> list[float]:
    """Measure again where the machine stood still for nearly all of the time."""
    for _ in range(_TRIES):
        late = _launched(seconds, training=training, save_every_s=save_every_s)
        if late:
            return late
    raise RuntimeError(f"{_TRIES} times no step was made in {seconds} s: the machine has too much else to do")


def _launched(seconds: float, *, training: bool, save_every_s: float) -> list[float]:
    watch = Watch()
    interaction = FixedIntervalInteraction.with_sleep_adjustor(Idler(), watch, _INTERVAL_S)
    parts: dict[str, Any] = {}
    if training:
        buffer = SequentialBuffer[Any](["input", "target"], _SAMPLES, seed=0)
        for sample in samples(_SAMPLES):
            buffer.add(sample)
        parts = {
            "models": {"network": TorchTrainingModel(network(_WIDTH))},
            "buffers": {"samples": buffer},
            "trainers": {"regression": Regression()},
        }
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            states_dir=folder,
            save_state_interval=save_every_s,
            max_keep_states=3 if save_every_s < math.inf else -1,
            max_uptime=seconds,
            web_api_address=None,
        )
        launch(interaction, config=config, **parts)
    real, agent = watch.real[_SETTLING_STEPS:], watch.agent[_SETTLING_STEPS:]
    return lateness(real, agent, interval_s=_INTERVAL_S, deadline=interaction.adjustor.deadline)


def _peer(seconds: float, *, training: bool, save_every_s: float) -> list[float]:
    began: list[float] = []
    with _trained_by_hand(save_every_s) if training else _nothing():
        deadline = time.perf_counter()
        end = deadline + seconds
        while deadline < end:
            began.append(time.perf_counter())
            now = time.perf_counter()
            deadline = max(deadline + _INTERVAL_S, deadline + math.floor((now - deadline) / _INTERVAL_S) * _INTERVAL_S)
            time.sleep(max(0.0, deadline - now))
    began = began[_SETTLING_STEPS:]
    return lateness(began, began, interval_s=_INTERVAL_S, deadline=deadline)


def _warm_up() -> None:
    """Let torch import what it imports at the first use of an optimizer, which takes seconds."""
    by_hand = ByHand(1)
    by_hand.samples.extend(samples(64))
    by_hand.train()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _trained_by_hand(save_every_s: float) -> Iterator[None]:
    """A thread that trains, and between two rounds saves the model, the optimizer and the samples."""
    by_hand = ByHand(_WIDTH)
    by_hand.samples.extend(samples(_SAMPLES))
    done = threading.Event()

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved_at = time.perf_counter()
            while not done.is_set():
                by_hand.train()
                if time.perf_counter() - saved_at >= save_every_s:
                    state = {
                        "model": by_hand.model.state_dict(),
                        "optimizer": by_hand.optimizer.state_dict(),
                        "samples": {
                            name: torch.stack([s[name] for s in by_hand.samples]) for name in ("input", "target")
                        },
                    }
                    torch.save(state, Path(folder, "state.pt"))
                    saved_at = time.perf_counter()

    thread = threading.Thread(target=work, name="by-hand")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
