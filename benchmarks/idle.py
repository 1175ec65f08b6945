"""The CPU time of a system that is paused: it should wait, not look again and again."""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from typing_extensions import override

from benchmarks.idlers import Idler, Nowhere
from benchmarks.measure import Effort, Spread
from benchmarks.report import Row, Section
from statevault.console import WebApiClient, WebApiUnreachableError
from statevault.data.impls import SequentialBuffer
from statevault.interaction import FixedIntervalInteraction
from statevault.launcher import LaunchConfig, launch
from statevault.trainer import Trainer

__all__ = ["run"]

_LIMIT_S = 60.0


class Waiting(Trainer):
    """Never has enough data to train."""

    def __init__(self) -> None:
        super().__init__("samples", min_buffer_size=1)

    @override
    def train(self) -> None:
        raise AssertionError("there are no samples")


def run_system(port: int, folder: str) -> None:
    """Launch a system that acts ten times a second; runs in a child process until it is shut down."""
    launch(
        FixedIntervalInteraction.with_sleep_adjustor(Idler(), Nowhere(), 0.1),
        buffers={"samples": SequentialBuffer(["x"], 10)},
        trainers={"waiting": Waiting()},
        config=LaunchConfig(states_dir=folder, web_api_address=("localhost", port)),
    )


def wait_for(connection: Connection) -> None:
    """Wait for an event; runs in a child process, and ends when the other end of the connection is closed."""
    event = threading.Event()
    threading.Thread(target=event.wait, daemon=True).start()
    connection.poll(None)


def run(effort: Effort) -> Section:
    """Measure a paused system, and one that acts ten times a second while its trainer has nothing to do."""
    seconds, rounds = effort.pick(2.0, 1.0, 0.2), effort.pick(3, 2, 1)
    paused, acting, waiting = [], [], []
    with _system() as (system, client), _waiter() as waiter:
        for _ in range(rounds):
            client.pause()
            _until(lambda: client.get_status() == "paused")
            paused.append(_percent(system, seconds))
            client.resume()
            _until(lambda: client.get_status() == "active")
            acting.append(_percent(system, seconds))
            waiting.append(_percent(waiter, seconds))
    return Section(
        "idle",
        f"CPU use of a launched system with a web API, over {rounds} times {seconds:g} s",
        "a process that waits on an Event",
        [
            Row("paused", Spread.of(paused), Spread.of(waiting), "% of a core", "lower"),
            Row("10 steps a second, nothing to train", Spread.of(acting), None, "% of a core", "lower"),
        ],
    )


def _percent(pid: int, seconds: float) -> float:
    time.sleep(0.3)  # what the command before this set in motion has come to rest
    cpu, wall = _cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    return 100.0 * (_cpu_seconds(pid) - cpu) / (time.perf_counter() - wall)


def _cpu_seconds(pid: int) -> float:
    """The CPU time of another process, in nanoseconds' resolution, where /proc has hundredths of seconds."""
    # Linux: how clock_getcpuclockid(3) makes the id of a clock, CPUCLOCK_SCHED being 2.
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def _system() -> Iterator[tuple[int, WebApiClient]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, WebApiClient("127.0.0.1", port) as client:
        process = _started(run_system, port, str(Path(folder, "states")))
        try:
            _until(lambda: _answers(client))
            assert process.pid is not None
            yield process.pid, client
            client.shutdown()
        except BaseException:
            process.kill()
            raise
        finally:
            process.join(_LIMIT_S)


@contextmanager
def _waiter() -> Iterator[int]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = _started(wait_for, there)
    there.close()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        here.close()
        process.join(_LIMIT_S)


def _started(target: Callable[..., None], *args: Any) -> multiprocessing.context.SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    process.start()
    return process


def _answers(client: WebApiClient) -> bool:
    try:
        return client.get_status() == "active"
    except WebApiUnreachableError:
        return False


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + _LIMIT_S
    while not reached():
        if time.monotonic() >= end:
            raise TimeoutError("the system that is measured did not come to where it should be")
        time.sleep(0.05)
