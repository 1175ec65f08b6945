"""Runs schedules in processes of their own, several at once, in which nothing else happens, and strings hash alike."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["VIOLATED", "Report", "environment", "simulate"]

VIOLATED = 3
"""The exit status of a process that found a violation; that of one that broke is another."""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a range of seeds.

    Attributes:
        is_clean: Whether all invariants held.
        output: What was printed: for a violation, the trace of its schedule and how to replay it.
    """

    is_clean: bool
    output: str


def simulate(first: int, last: int, *, jobs: int = 1, mutant: str | None = None) -> Report:
    """Run the schedules of the seeds from `first` to before `last`; end early when one violates an invariant.

    Args:
        first: The first seed.
        last: The seed after the last one.
        jobs: How many processes share the work.
        mutant: What to break in the code under test.

    Returns:
        The report of the first process that found a violation, or all reports in one.

    Raises:
        RuntimeError: A process ended otherwise.
    """
    bounds = [first + (last - first) * job // jobs for job in range(jobs + 1)]
    options = ["--mutant", mutant] if mutant else []
    with tempfile.TemporaryDirectory() as folder:
        running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        try:
            for job in range(jobs):
                output: IO[bytes] = Path(folder, str(job)).open("w+b")  # noqa: SIM115 - closed below
                command = [sys.executable, "-m", "tests.simulation", "--seeds", f"{bounds[job]}:{bounds[job + 1]}"]
                running.append((_start([*command, *options], output), output))
            return _first_violation(running)
        finally:
            for process, output in running:
                process.kill()
                process.wait()
                output.close()


def environment() -> dict[str, str]:
    """The environment in which a schedule follows from its seed: sets of strings have the same order in all of them."""
    return os.environ | {"PYTHONHASHSEED": "0"}


def _start(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=_ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT)


def _first_violation(running: list[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> Report:
    outputs = []
    left = list(running)
    while left:
        for each in left:
            process, output = each
            try:
                status = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            left.remove(each)
            output.seek(0)
            outputs.append(output.read().decode())
            if status == VIOLATED:
                return Report(is_clean=False, output=outputs[-1])
            if status != 0:
                raise RuntimeError(f"the simulation broke:\n{outputs[-1]}")
            break
    return Report(is_clean=True, output="".join(outputs))
