"""The example of a batch experiment, as a user runs it: interrupted, resumed, extended, on any storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from upath import UPath

from tests.servers import Servers, StorageTarget, target_names
from tests.servers.commands import ACCESS_KEY, SECRET_KEY

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch_experiment.py"
SMALL = ("--trials", "3", "--iterations", "40", "--checkpoint-every", "7")


def example(
    *arguments: str, env: Mapping[str, str] | None = None, columns: int = 80
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "COLUMNS": str(columns), **(env or {})},
        check=False,
    )


def results(folder: UPath | Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in (folder / "results").iterdir()}
    assert {"table.txt", "table.tex", "metrics.json"} <= set(files)
    return files


def run(*arguments: str) -> str:
    done = example(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interrupted(*arguments: str, after: int) -> None:
    done = example(*arguments, "--stop-after", str(after))
    assert done.returncode == 130, done.stdout + done.stderr
    assert "interrupted; the same command goes on" in done.stdout


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(str(folder), *SMALL)
    return results(folder)


def test_a_run_prints_the_table_that_it_writes(tmp_path: Path) -> None:
    out = run(str(tmp_path), *SMALL)
    table = results(tmp_path)["table.txt"].decode()
    assert table in out
    assert max(map(len, table.splitlines())) <= 80
    for name in ("gradient descent", "momentum", "Adam"):
        assert f"\n{name} " in table
    for line in out.splitlines()[-3:]:
        assert Path(line).is_file()


def test_the_algorithms_learn(uninterrupted: dict[str, bytes]) -> None:
    record = json.loads(uninterrupted["metrics.json"])
    for algorithm in record["loss"]["algorithms"].values():
        for losses in algorithm["trials"].values():
            assert len(losses) == 40
            assert losses[-1] < losses[0]
    accuracies = record["test accuracy"]["algorithms"]
    assert all(algorithm["mean"] > 0.7 for algorithm in accuracies.values())
    # Trials differ, and so do algorithms.
    assert len({value for algorithm in accuracies.values() for value in algorithm["trials"].values()}) > 3


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    interrupted(str(tmp_path), *SMALL, after=100)
    assert not (tmp_path / "results").exists()
    interrupted(str(tmp_path), after=3)
    interrupted(str(tmp_path), after=150)
    assert "going on in" in run(str(tmp_path))
    assert results(tmp_path) == uninterrupted


def test_an_extended_run_ends_with_the_same_bytes(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = tmp_path / "experiment"
    run(str(folder), "--trials", "1", "--iterations", "25", "--checkpoint-every", "10")
    interrupted(str(folder), "--more-trials", "2", "--more-iterations", "15", after=30)
    run(str(folder))  # without saying again by how much
    assert results(folder) == uninterrupted
    assert len(list(tmp_path.glob("experiment_backup_*.zip"))) == 1


def test_two_processes_end_with_the_same_bytes(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    interrupted(str(tmp_path), *SMALL, after=60)
    run(str(tmp_path), "--processes", "2")
    assert results(tmp_path) == uninterrupted


def test_another_seed_ends_differently(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    run(str(tmp_path), *SMALL, "--seed", "1")
    assert results(tmp_path)["metrics.json"] != uninterrupted["metrics.json"]


@pytest.mark.parametrize("backend", [name for name in ("juicefs", "fake-gcs") if name in target_names()])
def test_it_runs_on_object_stores(backend: str, servers: Servers, uninterrupted: dict[str, bytes]) -> None:
    target = servers.target(backend)
    env = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL" if backend == "juicefs" else "STORAGE_EMULATOR_HOST": servers.endpoint(backend),
    }
    url = f"{target.url}/experiment"
    done = example(url, *SMALL, "--stop-after", "100", env=env)
    assert done.returncode == 130, done.stdout + done.stderr
    done = example(url, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(folder_of(target, "experiment")) == uninterrupted


def folder_of(target: StorageTarget, name: str) -> UPath:
    folder: UPath = UPath(f"{target.url}/{name}", **target.storage_options)
    return folder


def test_the_help_says_what_it_is_for() -> None:
    done = example("--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for said in ("Three optimizers", "FOLDER", "--more-trials", "--stop-after", "go on"):
        assert said in done.stdout


def test_an_interruption_is_of_one_process(tmp_path: Path) -> None:
    done = example(str(tmp_path), "--processes", "2", "--stop-after", "10")
    assert done.returncode == 2
    assert "leave out --processes" in done.stderr
    assert list(tmp_path.iterdir()) == []
