"""Processes that save, pin and prune in one store, all at once, until they are killed.

Each announces through its pipe what it is about to do and what it was told is done, so that whoever watches knows what
must be there: an acknowledged state until its removal was announced, a pinned one until its unpinning was.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from statevault.errors import PinConflictError, SaveFencedError, StatePrunedError, StateVaultError
from statevault.state_persistence import StateStore
from tests.state_persistence.components import Files, Folder

__all__ = ["Crowd", "News", "content_of"]

KEPT = 4
STALE_AFTER_S = (0.0, 0.3, 2.0, 3600.0)


class News(Enum):
    """What a process tells."""

    SAVED = "saved"
    FENCED = "fenced"
    PINNED = "pinned"
    CONFLICTED = "not pinned"
    UNPINNING = "unpinning"
    REMOVING = "removing"
    REMOVED = "removed"
    COLLECTED = "collected"
    FAILED = "failed"


def content_of(number: int) -> Files:
    """The files of state number `number`: one never changes, and one is that of the nine others of its ten."""
    return {
        "frozen.bin": random.Random(-1).randbytes(60_000),
        "slow.bin": random.Random(number // 10).randbytes(30_000),
        "own.bin": random.Random(number).randbytes(10_000),
        "step": str(number).encode(),
    }


def write(url: str, options: Mapping[str, Any], seed: int, news: Connection) -> None:
    """Save state after state; pin some of them for a while."""
    source = random.Random(seed)
    folder = Folder()
    store = StateStore(url, storage_options=options)
    store.register("folder", folder)
    pinned: list[str] = []
    number = seed * 1000
    while True:
        number += 1
        folder.files = content_of(number)
        try:
            name = store.save_state(metadata={"number": number}).name
            news.send((News.SAVED, name))
            if source.random() < 0.3:
                with contextlib.suppress(StatePrunedError):
                    store.pin(name, "crowd")
                    news.send((News.PINNED, name))
                    pinned.append(name)
            if len(pinned) > 2:
                name = pinned.pop(0)
                news.send((News.UNPINNING, name))
                store.unpin(name)
        except PinConflictError:
            news.send((News.CONFLICTED, name))
        except SaveFencedError:
            news.send((News.FENCED, ""))
        except StateVaultError as error:
            news.send((News.FAILED, repr(error)))


def prune(url: str, options: Mapping[str, Any], seed: int, news: Connection) -> None:
    """Remove all but the newest states; look for garbage now and then, and take young saves for dead."""
    source = random.Random(seed)
    store = StateStore(url, storage_options=options)
    while True:
        try:
            victims = store.names()[:-KEPT]
            for name in victims:
                news.send((News.REMOVING, name))
            for name in store.remove(victims).removed:
                news.send((News.REMOVED, name))
            if source.random() < 0.5:
                store.gc(stale_after=timedelta(seconds=source.choice(STALE_AFTER_S)))
                news.send((News.COLLECTED, ""))
        except StateVaultError as error:
            news.send((News.FAILED, repr(error)))


@dataclass
class Crowd:
    """Running processes, and what they have told.

    Attributes:
        processes: What starts them.
        url: Their store.
        options: Its storage options.
        source: The chance by which they are killed.
        told: How much of which news there was.
        names: Of which states it was.
        failures: The errors that they met.
        kills: How many were killed.
    """

    processes: ForkServerContext
    url: str
    options: dict[str, Any]
    source: random.Random
    told: Counter[News] = field(default_factory=Counter)
    names: dict[News, set[str]] = field(default_factory=lambda: {kind: set() for kind in News})
    failures: list[str] = field(default_factory=list)
    kills: int = 0
    _running: list[tuple[Callable[..., None], BaseProcess, Connection]] = field(default_factory=list)
    _seeds: int = 0

    def start(self, role: Callable[..., None]) -> None:
        """Start one more process of a role."""
        self._seeds += 1
        receiver, sender = self.processes.Pipe(duplex=False)
        process = self.processes.Process(target=role, args=(self.url, self.options, self._seeds, sender), daemon=True)
        process.start()
        sender.close()
        self._running.append((role, process, receiver))

    def hear(self) -> None:
        """Take in all that was told so far."""
        for _, _, receiver in self._running:
            self._drain(receiver)

    def replace_one(self) -> None:
        """Kill one, and start another one in its place."""
        role, process, receiver = self._running.pop(self.source.randrange(len(self._running)))
        assert process.is_alive(), f"a process ended by itself with {process.exitcode}"
        process.kill()
        process.join()
        self._drain(receiver)
        receiver.close()
        self.kills += 1
        self.start(role)

    def end(self) -> None:
        """Kill all of them."""
        for _, process, receiver in self._running:
            process.kill()
            process.join()
            self._drain(receiver)
            receiver.close()
        self._running.clear()

    def _drain(self, receiver: Connection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while receiver.poll():
                kind, name = receiver.recv()
                self.told[kind] += 1
                if kind is News.FAILED:
                    self.failures.append(name)
                else:
                    self.names[kind].add(name)
