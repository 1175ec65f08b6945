"""What the modules under test find in the place of threads, clocks and chance; everything else of them is real.

* ``WorkerPool``, ``threading``: tasks of the scheduler (:mod:`tests.simulation.threads`). What is lost is that
  two threads of one process run at the very same time between two calls of the storage; that they interleave at these
  is kept.
* ``datetime.now``, ``time``: the simulated clocks.
* ``secrets``: a seeded source. Not for staging folders, which are real files in memory and must be nobody else's.
* The unit of chunks: 64 bytes instead of 1 MiB, so that a file of 200 bytes has chunks to share.
* How much memory is free, asked before each save: not asked, for speed.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sys
from collections.abc import Iterator
from concurrent.futures import _base
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from unittest.mock import patch

import statevault.state_persistence
from statevault import worker_pool
from statevault.format import chunking
from statevault.state_persistence.snapshot import staging
from tests.simulation.actors import CHUNK
from tests.simulation.clock import Clock, SimulatedDatetime, SimulatedTime
from tests.simulation.scheduler import Scheduler
from tests.simulation.threads import SimulatedPool, SimulatedThreading

__all__ = ["Substitutes", "substituted"]


class _Secrets:
    def __init__(self) -> None:
        self.source = random.Random(0)

    def token_hex(self, size: int) -> str:
        return self.source.randbytes(size).hex()


class Substitutes:
    """What is in place; a schedule brings its own scheduler and clock."""

    def __init__(self) -> None:
        self.threading = SimulatedThreading()
        self.secrets = _Secrets()
        self.time = SimulatedTime()

    def use(self, scheduler: Scheduler, clock: Clock, secrets: random.Random) -> None:
        """Begin a schedule."""
        self.threading.scheduler = SimulatedPool.scheduler = scheduler
        self.time.clock = SimulatedDatetime.clock = clock
        self.secrets.source = secrets


@contextmanager
def substituted() -> Iterator[Substitutes]:
    """Put the substitutes in place."""
    substitutes = Substitutes()
    package = statevault.state_persistence
    names = [info.name for info in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")]
    patches: list[AbstractContextManager[object]] = [
        patch.object(_base, "threading", substitutes.threading),
        patch.object(chunking, "CHUNK_UNIT", CHUNK),
        patch.object(staging, "_room", lambda root: 2**40),
        patch.object(worker_pool, "WorkerPool", SimulatedPool),
    ]
    real_threading = sys.modules["threading"]
    real_time = sys.modules["time"]
    real_secrets = sys.modules["secrets"]
    for name in names:
        module = importlib.import_module(name)
        if module is staging:
            continue
        for attribute, real, substitute in (
            ("WorkerPool", worker_pool.WorkerPool, SimulatedPool),
            ("threading", real_threading, substitutes.threading),
            ("datetime", datetime, SimulatedDatetime),
            ("secrets", real_secrets, substitutes.secrets),
            ("time", real_time, substitutes.time),
        ):
            if getattr(module, attribute, None) is real:
                patches.append(patch.object(module, attribute, substitute))
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield substitutes
