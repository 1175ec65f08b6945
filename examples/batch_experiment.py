"""Three optimizers on a classification problem, in several trials each: begun, interrupted, resumed, extended.

    python examples/batch_experiment.py                        # into the folder ./batch-experiment
    python examples/batch_experiment.py --stop-after 500       # stops in the middle, as by Ctrl-C
    python examples/batch_experiment.py                        # goes on from there
    python examples/batch_experiment.py --more-trials 5        # goes on for longer
    python examples/batch_experiment.py s3://bucket/folder     # the same, on S3

The results are the same, to the last bit, however often it was interrupted and in however many processes it runs.
"""
# ruff: noqa: T201 - it talks to whoever runs it

from __future__ import annotations

import argparse
import logging
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from statevault.experiments import CheckpointManager, ExperimentResult
from statevault.experiments.metrics import Metric, compute_metrics
from statevault.experiments.report import Better, text_table, write_results
from statevault.experiments.results import TrialResult
from statevault.experiments.runner import resume_experiment, run_experiment

Array = npt.NDArray[np.float64]


# The problem: what all algorithms are to solve.


@dataclass
class Classification:
    """Logistic regression: tell two classes of points apart.

    Attributes:
        points: To learn from, shape (points, dimensions).
        labels: 0 or 1 for each of them, shape (points,).
        test_points: To judge by.
        test_labels: Likewise.
    """

    points: Array
    labels: Array
    test_points: Array
    test_labels: Array

    @classmethod
    def drawn(cls, seed: int, n: int = 500, dimensions: int = 20) -> Classification:
        """Points whose dimensions differ in scale, so that the optimizers differ; some labels are wrong."""
        generator = np.random.default_rng(seed)
        points = generator.normal(size=(2 * n, dimensions)) * np.geomspace(1, 0.05, dimensions)
        direction = generator.normal(size=dimensions) / np.geomspace(1, 0.05, dimensions)
        labels = (points @ direction + generator.normal(size=2 * n) > 0).astype(float)
        return cls(points[:n], labels[:n], points[n:], labels[n:])

    def loss(self, weights: Array) -> float:
        """The mean negative log-likelihood of all labels, with a little weight decay."""
        scores = self.points @ weights
        return float(np.mean(np.logaddexp(0, scores) - self.labels * scores) + 5e-4 * weights @ weights)

    def gradient(self, weights: Array, batch: npt.NDArray[np.intp]) -> Array:
        """The gradient of the loss on some of the points."""
        errors = 1 / (1 + np.exp(-self.points[batch] @ weights)) - self.labels[batch]
        return errors @ self.points[batch] / len(batch) + 1e-3 * weights

    def accuracy(self, weights: Array) -> float:
        """The share of test points that are told apart rightly."""
        return float(np.mean((self.test_points @ weights > 0) == (self.test_labels > 0.5)))


# The network: what an algorithm works on. It is saved in the same checkpoint as the algorithm.


@dataclass
class Model:
    """Weights for a problem."""

    problem: Classification
    weights: Array


def make_network(problem: Classification) -> Model:
    """The network of a trial. What is drawn differs from trial to trial, and is the same for all algorithms of one."""
    return Model(problem, 0.1 * np.random.standard_normal((problem.points.shape[1],)))


# The algorithms: each has a name, a number of iterations, and step(network, iteration).


@dataclass
class GradientDescent:
    """Stochastic gradient descent on small batches."""

    name: str
    iterations: int
    rate: float
    losses: list[float] = field(default_factory=list)

    def step(self, network: Model, iteration: int) -> None:
        """One update of the weights. What was drawn before a checkpoint is not drawn again after it."""
        INTERRUPTION.count()
        batch = np.random.choice(len(network.problem.points), size=20, replace=False)
        gradient = network.problem.gradient(network.weights, batch)
        network.weights = network.weights - self.rate * self.direction(gradient, iteration)
        self.losses.append(network.problem.loss(network.weights))

    def direction(self, gradient: Array, iteration: int) -> Array:
        """Where to go."""
        return gradient


@dataclass
class Momentum(GradientDescent):
    """Stochastic gradient descent with a heavy ball."""

    decay: float = 0.9
    velocity: Array | float = 0.0

    @override
    def direction(self, gradient: Array, iteration: int) -> Array:
        self.velocity = self.decay * self.velocity + gradient
        return self.velocity


@dataclass
class Adam(GradientDescent):
    """Adam: D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization* (2015)."""

    first: Array | float = 0.0
    second: Array | float = 0.0

    @override
    def direction(self, gradient: Array, iteration: int) -> Array:
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        unbiased = self.first / (1 - 0.9 ** (iteration + 1))
        scale = np.sqrt(self.second / (1 - 0.999 ** (iteration + 1)))
        return np.asarray(unbiased / (scale + 1e-8))


# The metrics: what is measured of each trial, as a number or as a curve.


def losses(trial: TrialResult) -> list[float]:
    """The loss after each iteration."""
    return list(trial.algorithm.losses)


def accuracy(trial: TrialResult) -> float:
    """What the weights are worth in the end."""
    return float(trial.network.problem.accuracy(trial.network.weights))


def iterations_to_goal(trial: TrialResult) -> float:
    """After how many iterations the loss fell below 0.35; infinite, if it never did."""
    return next((float(number) for number, loss in enumerate(trial.algorithm.losses, 1) if loss < 0.35), math.inf)


METRICS: dict[str, Metric] = {
    "loss": losses,
    "test accuracy": accuracy,
    "iterations to a loss of 0.35": iterations_to_goal,
}
BETTER: Better = {"loss": "min", "test accuracy": "max", "iterations to a loss of 0.35": "min"}


# Only for this example: an interruption at a chosen moment.


class Interruption:
    """Presses Ctrl-C after a number of iterations, to see what a resume makes of it."""

    def __init__(self) -> None:
        self.iterations_left: float = math.inf

    def count(self) -> None:
        """One iteration begins."""
        self.iterations_left -= 1
        if self.iterations_left < 0:
            raise KeyboardInterrupt


INTERRUPTION = Interruption()


def options() -> argparse.Namespace:
    """What is given on the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Run it again with the same FOLDER to go on: after an interruption from the last checkpoints, after the "
        "end with --more-iterations and --more-trials. Tables and plots are written to FOLDER/results.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="./batch-experiment",
        metavar="FOLDER",
        help="a path, or a URL such as s3://bucket/folder (default: %(default)s)",
    )
    new = parser.add_argument_group("a new experiment")
    new.add_argument("--trials", type=int, default=5, metavar="N", help="of each algorithm (default: %(default)s)")
    new.add_argument("--iterations", type=int, default=300, metavar="N", help="of each trial (default: %(default)s)")
    new.add_argument(
        "--seed", type=int, default=0, metavar="N", help="what all draws follow from (default: %(default)s)"
    )
    more = parser.add_argument_group("an experiment that is there")
    more.add_argument("--more-iterations", type=int, default=0, metavar="N", help="go on for so many more iterations")
    more.add_argument("--more-trials", type=int, default=0, metavar="N", help="add so many trials of each algorithm")
    parser.add_argument(
        "--checkpoint-every", type=int, default=50, metavar="N", help="iterations (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="to run trials in (default: %(default)s)")
    parser.add_argument(
        "--stop-after", type=int, metavar="N", help="interrupt this run after so many iterations, all trials together"
    )
    given = parser.parse_args()
    if given.stop_after is not None and given.processes > 1:
        parser.error("--stop-after counts the iterations of one process: leave out --processes")
    return given


def run(manager: CheckpointManager, given: argparse.Namespace) -> ExperimentResult:
    """Begin the experiment, or go on with it."""
    how: dict[str, Any] = {"n_processes": given.processes, "make_network": make_network}
    if not manager.is_benchmark_started():
        print(f"beginning in {manager.url}")
        algorithms = [
            GradientDescent("gradient descent", given.iterations, rate=0.5),
            Momentum("momentum", given.iterations, rate=0.2),
            Adam("Adam", given.iterations, rate=0.1),
        ]
        return run_experiment(manager, algorithms, Classification.drawn(1), given.trials, seed=given.seed, **how)
    print(f"going on in {manager.url}")
    is_extended = given.more_iterations > 0 or given.more_trials > 0
    return resume_experiment(manager, given.more_iterations, given.more_trials, create_backup=is_extended, **how)


def main() -> int:
    """Run the example.

    Returns:
        The exit code: 130 after an interruption.
    """
    given = options()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if given.stop_after is not None:
        INTERRUPTION.iterations_left = given.stop_after
    with CheckpointManager(given.folder, given.checkpoint_every) as manager:
        try:
            result = run(manager, given)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoints")
            return 130
        measured = compute_metrics(result, METRICS)
        manager.save_metrics_result(measured)
        paths = write_results(manager, measured, better=BETTER)
        print(f"\n{text_table(measured, better=BETTER)}")
        print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
