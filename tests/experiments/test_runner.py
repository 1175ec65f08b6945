"""One run in one process: what it does, refuses, and leaves as it was."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typing_extensions import override
from upath import UPath

from statevault.errors import ExperimentExistsError, ExperimentNotFoundError
from statevault.experiments import rounds
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.results import ExperimentResult
from statevault.experiments.runner import resume_experiment, run_experiment
from statevault.experiments.seeds import seed_generators
from tests.experiments.learners import (
    Interrupt,
    Learner,
    Network,
    Problem,
    interrupted_by,
    learners,
    make_tagged,
    picture,
)


@pytest.fixture
def manager(tmp_path: Path) -> CheckpointManager:
    return CheckpointManager(tmp_path / "experiment", 2)


def run(manager: CheckpointManager, **keywords: Any) -> dict[str, list[Any]]:
    arguments: dict[str, Any] = {"seed": 3, "show_progress": False, **keywords}
    return picture(run_experiment(manager, learners(), Problem(), 2, **arguments))


def test_result_holds_every_trial_of_every_algorithm(manager: CheckpointManager) -> None:
    result = run_experiment(manager, learners(), Problem(), 2, seed=3)
    assert [
        (name, trial.trial, trial.iteration, len(trial.algorithm.history))
        for name, trials in result.trials.items()
        for trial in trials
    ] == [("slow", 0, 5, 6), ("slow", 1, 5, 6), ("fast", 0, 6, 7), ("fast", 1, 6, 7)]
    assert manager.is_benchmark_completed()


def test_same_seed_gives_the_same_run_and_another_one_another(tmp_path: Path) -> None:
    pictures = [run(CheckpointManager(tmp_path / str(index)), seed=seed) for index, seed in enumerate([3, 3, 4])]
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_how_often_is_saved_changes_nothing(tmp_path: Path) -> None:
    pictures = [run(CheckpointManager(tmp_path / str(step), step)) for step in (None, 1, 2, 100)]
    assert all(each == pictures[0] for each in pictures)


def test_trial_does_not_depend_on_other_trials_and_algorithms(tmp_path: Path) -> None:
    both = run(CheckpointManager(tmp_path / "both"))
    for learner in learners():
        manager = CheckpointManager(tmp_path / learner.name)
        alone = picture(run_experiment(manager, [learner], Problem(), 4, seed=3))
        assert alone[learner.name][:2] == both[learner.name]


def test_algorithms_of_a_trial_draw_the_same_numbers_and_trials_different_ones(manager: CheckpointManager) -> None:
    same = [Learner("a", 4), Learner("b", 4)]
    result = run_experiment(manager, same, Problem(), 2, seed=3, make_network=make_tagged)
    a, b = (picture(result)[name] for name in "ab")
    assert a == b
    assert a[0][3] != a[1][3]
    assert a[0][-1] != a[1][-1]


def test_a_problem_that_draws_for_itself_is_fresh_in_each_trial(manager: CheckpointManager) -> None:
    result = run_experiment(manager, [Learner("a", 1)], Problem(), 2, seed=3, make_network=_noisy)
    first, second = (trial.network for trial in result.trials["a"])
    assert first.tag == second.tag


def _noisy(problem: Problem) -> Network:
    network = Network()
    network.tag = int(problem.generator.integers(1 << 40))
    return network


def test_network_is_a_copy_of_the_problem_where_that_has_none(tmp_path: Path) -> None:
    def tagged(problem: Network) -> Network:
        problem.tag = 5
        return problem

    problem = Network()
    result = run_experiment(CheckpointManager(tmp_path / "default"), learners(), problem, 1, seed=3)
    network = result.trials["slow"][0].network
    assert isinstance(network, Network)
    assert network is not problem
    assert problem.messages == []
    made = run_experiment(CheckpointManager(tmp_path / "made"), learners(), problem, 1, seed=3, make_network=tagged)
    assert made.trials["slow"][0].network.tag == 5
    assert problem.tag == 0


def test_callers_objects_stay_as_they_were(manager: CheckpointManager) -> None:
    mine, problem = learners(), Problem()
    run_experiment(manager, mine, problem, 2, seed=3)
    assert all(not learner.history for learner in mine)
    assert problem.network.messages == []


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.standard_normal()),
        float(torch.randn(())),
    ]


def test_callers_generators_go_on_where_they_stood(tmp_path: Path) -> None:
    def seed() -> None:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

    seed()
    expected = [draw(), draw()]
    seed()
    drawn = [draw()]
    run(CheckpointManager(tmp_path / "whole"))
    drawn.append(draw())
    assert drawn == expected
    seed()
    drawn = [draw()]
    with pytest.raises(Interrupt), interrupted_by(_at(2, Interrupt)):
        run(CheckpointManager(tmp_path / "interrupted"))
    drawn.append(draw())
    assert drawn == expected


def _at(count: int, error: Callable[[], BaseException]) -> Callable[[str, int], None]:
    """Raises at the step of that number, counted from 0 over all trials."""
    steps = 0

    def hook(name: str, iteration: int) -> None:
        nonlocal steps
        steps += 1
        if steps == count + 1:
            raise error()

    return hook


def test_seeds_of_trials_never_change() -> None:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        drawn = []
        for seed, trial in ((0, 0), (0, 1), (2**70, 0)):
            seed_generators(seed, trial)
            drawn.append(
                (
                    random.getrandbits(32),
                    int(np.random.randint(1 << 31, dtype=np.int64)),
                    int(torch.randint(1 << 31, ())),
                )
            )
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
    assert drawn == GOLDEN_DRAWS


GOLDEN_DRAWS = [
    (1489388695, 2052558009, 364676741),
    (3476952537, 2107275300, 1414940410),
    (4057711368, 228668034, 1257331931),
]


def test_seed_is_drawn_once_and_kept(manager: CheckpointManager, tmp_path: Path) -> None:
    first = picture(run_experiment(manager, learners(), Problem(), 2))
    seed = manager.load_metadata()["rng_seed"]
    assert 0 <= seed < 2**53
    assert first == run(CheckpointManager(tmp_path / "again"), seed=seed)
    other = CheckpointManager(tmp_path / "other")
    run_experiment(other, learners(), Problem(), 2)
    assert other.load_metadata()["rng_seed"] != seed


def test_numbers_of_numpy_are_numbers(manager: CheckpointManager, tmp_path: Path) -> None:
    expected = picture(run_experiment(manager, [Learner("a", 2)], Problem(), 1, seed=3))
    other = CheckpointManager(tmp_path / "other")
    algorithm: Any = Learner("a", np.int64(2))  # type: ignore[arg-type]
    seed: Any = np.uint8(3)
    assert picture(run_experiment(other, [algorithm], Problem(), 1, seed=seed)) == expected


def test_new_run_refuses_a_folder_with_an_experiment(manager: CheckpointManager) -> None:
    run(manager)
    with pytest.raises(ExperimentExistsError):
        run(manager)


def test_resume_needs_an_experiment(manager: CheckpointManager) -> None:
    with pytest.raises(ExperimentNotFoundError):
        resume_experiment(manager)
    assert manager.is_empty()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"algorithms": []}, ValueError, "at least one"),
        ({"algorithms": [Learner("a", 1), Learner("a", 1)]}, ValueError, "called 'a'"),
        ({"algorithms": [Learner("a", 0)]}, ValueError, "must be at least 1, not 0"),
        ({"algorithms": [Learner("a", True)]}, TypeError, "must be an integer, not True"),
        ({"algorithms": [Learner("", 1)]}, TypeError, "not empty"),
        ({"algorithms": [object()]}, TypeError, "object, is no algorithm"),
        ({"n_trials": 0}, ValueError, "n_trials must be"),
        ({"seed": -1}, ValueError, "must not be negative"),
        ({"seed": 1.5}, TypeError, "whole number"),
        ({"n_processes": 0}, ValueError, "n_processes is 0"),
        ({"n_processes": 2, "executor": map}, ValueError, "either n_processes or an executor"),
        ({"executor": 3}, TypeError, "executor is a int"),
        ({"n_processes": 2, "make_network": lambda _: 1}, TypeError, "make_network can't be sent"),
    ],
)
def test_what_can_not_be_run_is_refused_before_anything_is_written(
    keywords: dict[str, Any], error: type[Exception], message: str, manager: CheckpointManager
) -> None:
    arguments = {"algorithms": learners(), "problem": Problem(), "n_trials": 1, **keywords}
    with pytest.raises(error, match=message):
        run_experiment(manager, **arguments)
    assert manager.is_empty()


def test_memory_is_refused_for_other_processes() -> None:
    with pytest.raises(ValueError, match="memory of this process"):
        run_experiment(CheckpointManager("memory://runner"), learners(), Problem(), 1, n_processes=2)


@pytest.mark.parametrize("increases", [(-1, 0), (0, -1)])
def test_an_experiment_can_not_be_made_smaller(increases: tuple[int, int], manager: CheckpointManager) -> None:
    run(manager)
    with pytest.raises(ValueError, match="can't be made smaller"):
        resume_experiment(manager, *increases)


def test_one_failing_trial_does_not_end_the_others(manager: CheckpointManager) -> None:
    with pytest.raises(ExceptionGroup) as caught, interrupted_by(_at(9, ArithmeticError)):
        run(manager)
    (error,) = caught.value.exceptions
    assert isinstance(error, ArithmeticError)
    assert len(manager.get_completed_trials(0) + manager.get_completed_trials(1)) == 3
    # Six steps of "slow" in trial 0 come first.
    assert error.__notes__ == [
        f"in algorithm 'fast' (number 1), trial 0, iteration 3, of the experiment in {manager.url}"
    ]


@pytest.mark.parametrize(
    ("what", "where"), [("make_network", "while its network was made"), ("initialize", r"in initialize\(\)")]
)
def test_what_fails_before_the_first_iteration_is_named(
    what: str, where: str, manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Network:
        raise OSError("no such data")

    if what == "initialize":
        monkeypatch.setattr(Learner, "initialize", fail)
    with pytest.raises(ExceptionGroup) as caught:
        run(manager, **({"make_network": fail} if what == "make_network" else {}))
    assert len(caught.value.exceptions) == 4
    for error in caught.value.exceptions:
        assert isinstance(error, OSError)
        (note,) = error.__notes__
        assert where.replace("\\", "") in note


def test_run_leaves_a_trial_to_whoever_has_it_and_waits(
    manager: CheckpointManager, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_REPORT_EVERY_S", 0)
    begun: list[str] = []
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        with CheckpointManager(manager.url).working_on(0, 0):
            taken.set()
            free.wait(300)

    def hook(name: str, iteration: int) -> None:
        begun.append(name)

    class Waiting(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Waiting for other workers"):
                assert len(begun) == 6 + 7 + 7, "what was free has not been done first"
                free.set()

    manager.initialize(learners(), Problem(), 2, rng_seed=3)
    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(300)
    handler = Waiting()
    logging.getLogger(rounds.__name__).addHandler(handler)
    try:
        with interrupted_by(hook):
            result = resume_experiment(manager, create_backup=False)
    finally:
        logging.getLogger(rounds.__name__).removeHandler(handler)
        free.set()
        holder.join()
    assert "which have trial 0 of algorithm 0" in caplog.text
    assert picture(result) == run(CheckpointManager(tmp_path / "alone"))


@pytest.mark.parametrize("at", range(0, 26, 3))
def test_experiment_that_is_extended_while_it_runs_is_run_to_the_new_end(
    at: int, manager: CheckpointManager, tmp_path: Path
) -> None:
    steps = 0

    def hook(name: str, iteration: int) -> None:
        nonlocal steps
        if steps == at:
            CheckpointManager(manager.url).extend(increase_iterations=2, increase_trials=1)
        steps += 1

    with interrupted_by(hook):
        extended = run(manager)
    whole = CheckpointManager(tmp_path / "whole")
    assert extended == picture(run_experiment(whole, learners(8), Problem(), 3, seed=3))


class ExtendedWhenMarked(CheckpointManager):
    """Somebody else extends the experiment right before or behind the mark of the first complete trial."""

    when = ""

    @override
    def mark_trial_complete(self, **arguments: Any) -> UPath:
        when, self.when = self.when, ""
        if when == "before":
            CheckpointManager(self.url).extend(increase_iterations=2)
        path = super().mark_trial_complete(**arguments)
        if when == "behind":
            CheckpointManager(self.url).extend(increase_iterations=2)
        return path


@pytest.mark.parametrize("when", ["before", "behind"])
def test_extension_at_the_moment_of_a_mark_is_noticed(when: str, tmp_path: Path) -> None:
    manager = ExtendedWhenMarked(tmp_path / "extended")
    manager.when = when
    extended = run(manager)
    whole = CheckpointManager(tmp_path / "whole")
    assert extended == picture(run_experiment(whole, learners(8), Problem(), 2, seed=3))


class ExtendedAtTheEnd(CheckpointManager):
    """Somebody else extends the experiment when all is complete and the result is about to be loaded."""

    extended = False

    @override
    def load_benchmark_result(self) -> ExperimentResult:
        if not self.extended:
            self.extended = True
            CheckpointManager(self.url).extend(increase_trials=1)
        return super().load_benchmark_result()


def test_extension_while_the_result_is_loaded_is_noticed(tmp_path: Path) -> None:
    extended = run(ExtendedAtTheEnd(tmp_path / "extended"))
    whole = CheckpointManager(tmp_path / "whole")
    assert extended == picture(run_experiment(whole, learners(), Problem(), 3, seed=3))


def test_metrics_are_computed_and_written(manager: CheckpointManager) -> None:
    metrics = {"weight": lambda trial: float(np.abs(trial.network.weights).sum())}
    run(manager, metrics=metrics)
    assert manager.are_metrics_computed()
    names = {path.name for path in manager.get_results_path().iterdir()}
    assert any(name.endswith(".json") for name in names), names
    resume_experiment(manager, increase_trials=1, create_backup=False)
    assert not manager.are_metrics_computed()


def test_checkpoint_of_a_process_without_torch_goes_on_the_same_everywhere(tmp_path: Path) -> None:
    pictures = []
    for seed in (1, 2):
        manager = CheckpointManager(tmp_path / str(seed))
        manager.initialize(learners(), Problem(), 1, rng_seed=3)
        learner, network = learners()[0], Network()
        learner.initialize(network)
        learner.start = 0.0
        states = {"python": random.Random(3).getstate()}
        where = {"alg_idx": 0, "trial": 0, "iteration": 0}
        manager.save_checkpoint(**where, algorithm=learner, network=network, rng_state=states)
        torch.manual_seed(seed)
        np.random.seed(seed)
        pictures.append(picture(resume_experiment(manager, create_backup=False)))
    assert pictures[0] == pictures[1]


def test_second_resume_remembers_what_the_first_one_added(manager: CheckpointManager, tmp_path: Path) -> None:
    run(manager)
    with pytest.raises(Interrupt), interrupted_by(_at(1, Interrupt)):
        resume_experiment(manager, 2, 1, create_backup=False)
    resumed = resume_experiment(CheckpointManager(manager.url, 2), create_backup=False)
    whole = CheckpointManager(tmp_path / "whole")
    assert picture(resumed) == picture(run_experiment(whole, learners(8), Problem(), 3, seed=3))


def test_backup_is_made_unless_not_wanted(manager: CheckpointManager, tmp_path: Path) -> None:
    run(manager)
    resume_experiment(manager, create_backup=False)
    assert not list(tmp_path.glob("*.zip"))
    resume_experiment(manager)
    resume_experiment(manager)  # in the same second, perhaps
    assert len(list(tmp_path.glob("experiment_backup_*.zip"))) == 2


def test_resuming_a_complete_experiment_runs_nothing(manager: CheckpointManager) -> None:
    expected = run(manager)
    with interrupted_by(_at(0, AssertionError)):
        assert picture(resume_experiment(manager, create_backup=False)) == expected


def test_folder_without_a_seed_is_run_with_a_warning(
    manager: CheckpointManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager.initialize(learners(), Problem(), 2)
    resumed = resume_experiment(manager, create_backup=False)
    assert "has no rng_seed" in caplog.text
    assert picture(resumed) == run(CheckpointManager(tmp_path / "zero"), seed=0)


class Fixed:
    """An algorithm that can't be told of more iterations, and has nothing to initialize."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    @property
    def name(self) -> str:
        return "fixed"

    @property
    def iterations(self) -> int:
        return 2

    def step(self, network: Network, iteration: int) -> None:
        self.steps.append(iteration)


def test_algorithm_with_fixed_iterations_is_extended_as_well(manager: CheckpointManager) -> None:
    run_experiment(manager, [Fixed()], Problem(), 1)
    result = resume_experiment(manager, 2, create_backup=False)
    assert result.trials["fixed"][0].algorithm.steps == [0, 1, 2, 3]


def test_importing_torch_too_late_is_warned_about(tmp_path: Path) -> None:
    code = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from statevault.experiments import CheckpointManager, run_experiment

class Late:
    name = "late"
    iterations = 2
    def step(self, network, iteration):
        import torch

assert "torch" not in sys.modules
run_experiment(CheckpointManager(sys.argv[1]), [Late()], 0, 1)
assert "torch" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], check=True, timeout=600, capture_output=True, text=True
    )
    assert done.stderr.count("Import torch where the algorithm is defined") == 1


def test_progress_is_logged_where_there_is_no_terminal(
    manager: CheckpointManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(manager, show_progress=None)
    assert "slow: 12 of 12 iterations" in caplog.text
    assert "fast: 14 of 14 iterations" in caplog.text


def test_bars_are_shown_on_a_terminal(tmp_path: Path) -> None:
    code = """
import sys
from statevault.experiments import CheckpointManager, run_experiment
from tests.experiments.learners import Problem, learners
run_experiment(CheckpointManager(sys.argv[1]), learners(), Problem(), 2)
"""
    master, slave = os.openpty()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], stderr=slave, timeout=600, check=False)
    os.close(slave)
    shown = os.read(master, 1 << 20).decode()
    os.close(master)
    assert done.returncode == 0, shown
    assert "slow" in shown
    assert "14/14" in shown


def test_a_name_does_not_drive_the_terminal_through_its_bar() -> None:
    code = r"""
from statevault.experiments.progress import TrialCounts, shown
with shown(TrialCounts(["[red]\x1b[2J\x9b\u202e"], [1], 1), bars=True):
    pass
"""
    master, slave = os.openpty()
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], stderr=slave, timeout=600, check=False, env=environment)
    os.close(slave)
    shown = os.read(master, 1 << 20).decode()
    os.close(master)
    assert done.returncode == 0, shown
    assert r"[red]\x1b[2J\x9b\u202e" in shown
    assert not {"\x9b", "\u202e"} & set(shown)
