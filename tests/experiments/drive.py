"""A run of an experiment as a process of its own: it begins, or goes on, and ends when all is complete."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from statevault.errors import ExperimentExistsError
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.runner import resume_experiment, run_experiment
from tests.experiments.learners import PAUSE_S, Problem, learners, make_tagged
from tests.servers import StorageTarget

__all__ = ["begin_or_go_on", "driven", "killed_at_random", "processes_of"]

SEED, ITERATIONS, TRIALS = 11, 5, 2


def begin_or_go_on(
    url: str, options: dict[str, Any], *, traces: str | None = None, pause_s: float = 0.0, **keywords: Any
) -> None:
    """Begin the experiment, or go on with it if somebody has begun it; each step takes so long at least."""
    os.environ[PAUSE_S] = str(pause_s)
    arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False, **keywords}
    with CheckpointManager(url, 1, storage_options=options) as manager:
        try:
            folder = None if traces is None else Path(traces)
            run_experiment(manager, learners(ITERATIONS, folder), Problem(), TRIALS, seed=SEED, **arguments)
        except ExperimentExistsError:
            resume_experiment(manager, create_backup=False, **arguments)


def killed_at_random(url: str, options: dict[str, Any], *, seed: int) -> int:
    """Fork processes that run the experiment, and kill them at random until one has got to the end.

    To be called where everything is imported and nothing has been opened, so that most of a child's life is the
    experiment.

    Returns:
        How many were killed.
    """
    source = random.Random(seed)
    for kills in itertools.count():
        pid = os.fork()
        if pid == 0:
            try:
                begin_or_go_on(url, options, pause_s=0.02)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        deadline = time.monotonic() + source.uniform(0.05, 0.4 + kills * 0.1)
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert status == 0, f"it ended with {status}"
                return kills
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    raise AssertionError


@contextlib.contextmanager
def driven(
    target: StorageTarget, *, traces: Path | None = None, pause_s: float = 0.0, n_processes: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Such a process, in a session of its own; none of that is left afterwards."""
    arguments = {
        "url": target.url,
        "options": dict(target.storage_options),
        "traces": None if traces is None else str(traces),
        "pause_s": pause_s,
        "n_processes": n_processes,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.drive", json.dumps(arguments)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for pid in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def processes_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "seed" in given:
        print(killed_at_random(**given))
    else:
        begin_or_go_on(**given)
