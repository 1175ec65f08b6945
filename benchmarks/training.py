"""One run of a trainer of a small torch model: what the runtime adds to the round by hand."""

from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from benchmarks.measure import Effort, Spread, interleaved, seconds_per_call
from benchmarks.report import Row, Section
from statevault.data.impls import SequentialBuffer
from statevault.testing import connect_components
from statevault.torch import OptimizersSetup, TorchTrainer, TorchTrainingModel

__all__ = ["Regression", "network", "run"]

_INPUTS, _BATCH, _SAMPLES = 16, 64, 10_000


def network(width: int = 64) -> nn.Sequential:
    """Return a perceptron with one output and two hidden layers."""
    return nn.Sequential(nn.Linear(_INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


class Regression(TorchTrainer):
    """Fits a model to the samples of a buffer."""

    def __init__(self, batch: int = _BATCH) -> None:
        super().__init__("samples", min_buffer_size=1)
        self._batch = batch

    @override
    def on_training_models_attached(self) -> None:
        super().on_training_models_attached()
        self._model = self.get_torch_training_model("network")

    @override
    def on_data_users_attached(self) -> None:
        self._samples = self.get_data_user("samples")

    @override
    def create_optimizers(self) -> OptimizersSetup:
        return {"adam": torch.optim.Adam(self._model.model.parameters())}

    @override
    def train(self) -> None:
        batch = self._samples.sample(self._batch)
        optimizer = self.optimizers["adam"]
        loss = nn.functional.mse_loss(self._model(batch["input"]), batch["target"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


class ByHand:
    """The same round, written down: a deque of dicts, and a copy of the weights for inference."""

    def __init__(self, width: int) -> None:
        self.model = network(width)
        self.inference = copy.deepcopy(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.samples: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)

    def train(self, batch_size: int = _BATCH) -> None:
        """One round."""
        picks = random.sample(self.samples, batch_size)
        inputs = torch.stack([pick["input"] for pick in picks])
        targets = torch.stack([pick["target"] for pick in picks])
        loss = nn.functional.mse_loss(self.model(inputs), targets)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        with torch.no_grad():
            for source, target in zip(self.model.parameters(), self.inference.parameters(), strict=True):
                target.copy_(source)


def samples(count: int) -> list[dict[str, Any]]:
    """Return random samples, of tensors of their own."""
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((count, _INPUTS), dtype=np.float32))
    return [{"input": row.clone(), "target": row[:1].clone()} for row in rows]


def run(effort: Effort) -> Section:
    """Measure a round with a model of 64 and one of 512 units in its layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [
            Row(
                f"a round with layers of {width}, batch of {_BATCH}",
                *_seconds(width, effort.pick(calls, calls // 5, 2), effort.pick(7, 3, 1)),
                "µs",
                "lower",
            )
            for width, calls in ((64, 300), (512, 100))
        ]
    finally:
        torch.set_num_threads(threads)
    return Section(
        "training",
        "Trainer.run(): condition, sample, forward, backward, Adam, sync",
        "the same by hand with a deque of dicts; torch with one thread",
        rows,
    )


def _seconds(width: int, calls: int, rounds: int) -> tuple[Spread, Spread]:
    trainer = Regression()
    model = TorchTrainingModel(network(width))
    buffer = SequentialBuffer[Any](["input", "target"], _SAMPLES, seed=0)
    connected = connect_components(trainers=trainer, buffers={"samples": buffer}, models={"network": model})
    by_hand = ByHand(width)
    for sample in samples(_SAMPLES):
        connected.data_collectors["samples"].collect(sample)
        by_hand.samples.append(sample)

    def ours(times: int) -> None:
        for _ in range(times):
            trainer.run()

    def peer(times: int) -> None:
        for _ in range(times):
            by_hand.train()

    seconds = interleaved({"ours": seconds_per_call(ours, calls), "peer": seconds_per_call(peer, calls)}, rounds)
    return seconds["ours"].map(lambda s: s * 1e6), seconds["peer"].map(lambda s: s * 1e6)
