"""The oracle: a run that was interrupted, resumed, extended and damaged equals the one that nothing happened to.

The learners write down what they drew and what they were at every iteration, so equal results were equal all along.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from statevault.experiments.manager import CheckpointManager
from statevault.experiments.runner import resume_experiment, run_experiment
from statevault.storage import open_storage
from tests.experiments.learners import Interrupt, Problem, interrupted_by, learners, make_tagged, picture
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget

ITERATIONS, TRIALS = 5, 2


@functools.cache
def uninterrupted(seed: int, iterations: int, trials: int) -> dict[str, list[Any]]:
    """What nothing happens to."""
    with tempfile.TemporaryDirectory() as folder, CheckpointManager(folder) as manager:
        result = run_experiment(
            manager, learners(iterations), Problem(), trials, seed=seed, make_network=make_tagged, show_progress=False
        )
        return picture(result)


def open_manager(target: StorageTarget, step: int | None) -> CheckpointManager:
    return CheckpointManager(target.url, step, 2, storage_options=target.storage_options)


class Schedule:
    """Chooses, from a seed, what happens to a run.

    Args:
        seed: For the choices, and for the experiment.
        target: Where the experiment is kept.
    """

    def __init__(self, seed: int, target: StorageTarget) -> None:
        self.seed = seed
        self.source = random.Random(seed)
        self.target = target
        self.iterations, self.trials = ITERATIONS, TRIALS
        self.happened: list[str] = []

    def play(self, episodes: int) -> dict[str, list[Any]]:
        """Let something happen so many times, then run to the end."""
        self._attempt(self._run)
        for _ in range(episodes):
            if self.source.random() < 0.5:
                self._damage()
            more = self.source.choice([(0, 0), (0, 0), (2, 0), (0, 1), (1, 1)])
            self._attempt(functools.partial(self._resume, *more))
        return self._resume()

    def _run(self) -> dict[str, list[Any]]:
        with open_manager(self.target, self._step()) as manager:
            return picture(
                run_experiment(
                    manager,
                    learners(ITERATIONS),
                    Problem(),
                    TRIALS,
                    seed=self.seed,
                    make_network=make_tagged,
                    show_progress=False,
                )
            )

    def _resume(self, iterations: int = 0, trials: int = 0) -> dict[str, list[Any]]:
        self.iterations += iterations
        self.trials += trials
        self.happened.append(f"resume +{iterations} +{trials}")
        with open_manager(self.target, self._step()) as manager:
            return picture(
                resume_experiment(
                    manager,
                    iterations,
                    trials,
                    create_backup=False,
                    make_network=make_tagged,
                    show_progress=False,
                )
            )

    def _step(self) -> int | None:
        return self.source.choice([None, 1, 1, 2, 3])

    def _attempt(self, run: Callable[[], object]) -> None:
        """Run until it is interrupted: as by Ctrl-C, or in single trials by errors."""
        kind = self.source.choice([Interrupt, ArithmeticError, None])
        at = {self.source.randrange(20) for _ in range(1 if kind is Interrupt else 3)}
        steps = 0

        def hook(name: str, iteration: int) -> None:
            nonlocal steps
            steps += 1
            if kind is not None and steps - 1 in at:
                raise kind

        self.happened.append(f"{kind} at steps {at}")
        with interrupted_by(hook):
            try:
                run()
            except* (Interrupt, ArithmeticError):
                pass

    def _damage(self) -> None:
        """Cut the newest checkpoint of a trial, or tear or lose one of its records."""
        raw = self.target.raw
        present = raw.keys()
        keys = [key for key in present if key.startswith("algorithm_")]
        if not keys:
            return
        trial = self.source.choice(sorted({"/".join(key.split("/")[:2]) for key in keys}))
        checkpoints = [key for key in keys if key.startswith(f"{trial}/checkpoint_")]
        records = [key for key in keys if key.startswith(trial) and key.endswith(".json")]
        if checkpoints and self.source.random() < 0.6:
            victim = max(checkpoints)
            content = raw.get(victim)
            cut = self.source.choice([content[: len(content) // 2], b"", _flipped(content)])
        elif records and self.source.random() < 0.5:
            victim = self.source.choice(records)
            with contextlib.closing(open_storage(self.target.url, self.target.storage_options)) as storage:
                storage.delete([victim])
            self.happened.append(f"{victim} lost")
            return
        elif records:
            victim = self.source.choice(records)
            cut = self.source.choice([raw.get(victim)[:7], b"", json.dumps({"last_completed_iteration": -3}).encode()])
        else:
            return
        self.happened.append(f"{victim} damaged: {len(cut)} bytes of it")
        raw.put(victim, cut)


def _flipped(content: bytes) -> bytes:
    if not content:
        return b"not empty any more"
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def check(seed: int, target: StorageTarget, episodes: int) -> None:
    schedule = Schedule(seed, target)
    result = schedule.play(episodes)
    expected = uninterrupted(seed, schedule.iterations, schedule.trials)
    assert result == expected, f"seed {seed}: " + "; ".join(schedule.happened)


@pytest.mark.parametrize("seed", range(rounds(short=20, long=400)))
def test_whatever_happens_the_result_is_that_of_the_uninterrupted_run(seed: int, servers: Servers) -> None:
    check(seed, servers.target("local"), episodes=seed % 5)


@pytest.mark.parametrize("seed", range(1000, 1000 + rounds(short=2, long=20)))
@pytest.mark.parametrize("backend", ["juicefs", "fake-gcs"])
def test_likewise_on_remote_storages(backend: str, seed: int, servers: Servers) -> None:
    check(seed, servers.target(backend), episodes=3)


def test_interrupted_at_each_step_in_turn(tmp_path: Path) -> None:
    """A run that is broken off at every single step gets there all the same."""
    manager = CheckpointManager(tmp_path / "experiment", 1)
    steps = 0

    def hook(name: str, iteration: int) -> None:
        nonlocal steps
        steps += 1
        if steps > 1:
            raise Interrupt

    def attempt(run: Callable[[], dict[str, list[Any]]]) -> dict[str, list[Any]] | None:
        nonlocal steps
        steps = 0
        with interrupted_by(hook):
            try:
                return run()
            except Interrupt:
                return None

    arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False}
    result = attempt(
        lambda: picture(run_experiment(manager, learners(ITERATIONS), Problem(), TRIALS, seed=3, **arguments))
    )
    attempts = 1
    while result is None:
        attempts += 1
        result = attempt(lambda: picture(resume_experiment(manager, create_backup=False, **arguments)))
    assert attempts == TRIALS * (ITERATIONS + ITERATIONS + 1)
    assert result == uninterrupted(3, ITERATIONS, TRIALS)


def test_complete_trial_with_a_damaged_final_checkpoint_is_run_again_from_the_one_before(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    target = servers.target("local")
    with open_manager(target, 2) as manager:
        arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False}
        expected = picture(run_experiment(manager, learners(ITERATIONS), Problem(), TRIALS, seed=3, **arguments))
        key = f"algorithm_0/trial_1/checkpoint_{ITERATIONS - 1:07d}.pkl.zst"
        target.raw.put(key, target.raw.get(key)[:-100])
        begun: list[tuple[str, int]] = []
        with interrupted_by(lambda name, iteration: begun.append((name, iteration))):
            result = resume_experiment(manager, create_backup=False, **arguments)
    assert begun == [("slow", ITERATIONS - 1)]
    assert picture(result) == expected
    assert "is run again" in caplog.text


def test_backup_of_an_interrupted_run_goes_on_as_well(tmp_path: Path) -> None:
    import zipfile

    arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False}
    manager = CheckpointManager(tmp_path / "experiment", 1)

    def hook(name: str, iteration: int) -> None:
        if name == "fast" and iteration == 3:
            raise Interrupt

    with pytest.raises(Interrupt), interrupted_by(hook):
        run_experiment(manager, learners(ITERATIONS), Problem(), TRIALS, seed=3, **arguments)
    resume_experiment(manager, 2, **arguments)
    (backup,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(backup) as archive:
        archive.extractall(tmp_path / "unpacked")
    (metadata,) = (tmp_path / "unpacked").rglob("metadata.json")
    result = resume_experiment(CheckpointManager(metadata.parent, 1), create_backup=False, **arguments)
    assert picture(result) == uninterrupted(3, ITERATIONS, TRIALS)
