"""The oracle for runs that are processes: killed at random, told to end, or two at the same time."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from statevault.experiments.manager import CheckpointManager
from tests.experiments.drive import ITERATIONS, SEED, TRIALS, driven, processes_of
from tests.experiments.learners import picture, steps_of
from tests.experiments.test_oracle import uninterrupted
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget

PATIENCE_S = 300.0


def result_in(target: StorageTarget) -> dict[str, list[Any]]:
    with CheckpointManager(target.url, storage_options=target.storage_options) as manager:
        return picture(manager.load_benchmark_result())


@functools.cache
def expected() -> dict[str, list[Any]]:
    return uninterrupted(SEED, ITERATIONS, TRIALS)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def steps_done(traces: Path) -> int:
    return sum(what == "end" for steps in steps_of(traces).values() for _, what, _ in steps)


def errors_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


@pytest.mark.parametrize("seed", range(rounds(short=1, long=20)))
@pytest.mark.parametrize("backend", ["local", "juicefs"])
def test_killed_at_random_again_and_again(backend: str, seed: int, servers: Servers) -> None:
    target = servers.target(backend)
    arguments = {"url": target.url, "options": dict(target.storage_options), "seed": seed}
    command = [sys.executable, "-m", "tests.experiments.drive", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "it was never killed"
    assert result_in(target) == expected()


@pytest.mark.parametrize("seed", range(rounds(short=1, long=6)))
def test_killed_at_random_with_its_workers_which_end_as_well(seed: int, servers: Servers, tmp_path: Path) -> None:
    target = servers.target("local")
    source = random.Random(seed)
    for _ in range(rounds(short=2, long=4)):
        before = steps_done(tmp_path)
        with driven(target, traces=tmp_path, pause_s=0.15, n_processes=2) as process:
            wait_until(lambda: steps_done(tmp_path) > before or process.poll() is not None)  # noqa: B023
            time.sleep(source.uniform(0, 0.3))
            process.kill()
            process.wait()
            wait_until(lambda: not processes_of(process.pid))
    with driven(target, traces=tmp_path, n_processes=2) as process:
        assert process.wait(PATIENCE_S) == 0
    assert result_in(target) == expected()


@pytest.mark.parametrize(
    ("sign", "n_processes"),
    [
        ("SIGINT", 1),
        ("SIGTERM", 1),
        ("SIGTERM", 2),
        ("SIGINT to all", 2),
        pytest.param("SIGINT", 2, marks=pytest.mark.long),
        pytest.param("SIGINT to all", 1, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_it_with_all_its_processes_and_it_goes_on(
    sign: str, n_processes: int, servers: Servers, tmp_path: Path
) -> None:
    target = servers.target("local")
    with driven(target, traces=tmp_path, pause_s=0.3, n_processes=n_processes) as process:
        wait_until(lambda: steps_done(tmp_path) > 1)
        number = signal.Signals[sign.split(maxsplit=1)[0]]
        if sign.endswith("all"):
            os.killpg(process.pid, number)  # what a terminal does at Ctrl-C
        else:
            process.send_signal(number)
        process.wait(PATIENCE_S)
        wait_until(lambda: not processes_of(process.pid))
        errors = errors_of(process)
    assert process.returncode == -number, errors
    if sign.startswith("SIGINT"):
        assert errors.rstrip().endswith("KeyboardInterrupt"), errors
        # It was told to stop, and so has given up its claims.
        assert not [key for key in target.raw.keys() if "/claims/" in key]  # noqa: SIM118
    assert steps_done(tmp_path) < TRIALS * (2 * ITERATIONS + 1)
    with driven(target) as process:
        assert process.wait(PATIENCE_S) == 0, errors_of(process)
    assert result_in(target) == expected()


@pytest.mark.parametrize(
    ("backend", "n_processes"),
    [
        ("local", 1),
        ("juicefs", 1),
        ("fake-gcs", 1),
        pytest.param("local", 2, marks=pytest.mark.long),
        pytest.param("juicefs", 2, marks=pytest.mark.long),
    ],
)
def test_two_at_the_same_time_do_each_step_once_and_both_end_with_all(
    backend: str, n_processes: int, servers: Servers, tmp_path: Path
) -> None:
    target = servers.target(backend)
    with (
        driven(target, traces=tmp_path, pause_s=0.1, n_processes=n_processes) as one,
        driven(target, traces=tmp_path, pause_s=0.1, n_processes=n_processes) as two,
    ):
        assert one.wait(PATIENCE_S) == 0, errors_of(one)
        assert two.wait(PATIENCE_S) == 0, errors_of(two)
    traces = steps_of(tmp_path)
    for name, steps in traces.items():
        count = ITERATIONS + name.startswith("fast")
        order = [(what, iteration) for iteration in range(count) for what in ("begin", "end")]
        assert [(what, iteration) for _, what, iteration in steps] == order, name
    assert len(traces) == 2 * TRIALS
    workers = {pid for steps in traces.values() for pid, _, _ in steps}
    assert len(workers) > n_processes, "one of them did everything: the test shows nothing"
    assert result_in(target) == expected()


def test_one_takes_over_what_another_one_left_when_it_was_killed(servers: Servers, tmp_path: Path) -> None:
    target = servers.target("local")
    with (
        driven(target, traces=tmp_path, pause_s=0.2) as one,
        driven(target, traces=tmp_path, pause_s=0.2) as two,
    ):
        wait_until(lambda: len({pid for steps in steps_of(tmp_path).values() for pid, _, _ in steps}) == 2)
        one.kill()
        one.wait()
        assert two.wait(PATIENCE_S) == 0, errors_of(two)
    assert result_in(target) == expected()
