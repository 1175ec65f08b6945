"""Stores with a few states in them, with which schedules begin."""

from __future__ import annotations

import random
from dataclasses import dataclass

from statevault.state_persistence import StateStore
from tests.simulation.actors import CHUNK
from tests.simulation.clock import Clock
from tests.simulation.invariants import CONTENT
from tests.simulation.scheduler import Scheduler
from tests.simulation.storage import Faults, Objects, SimulatedStorage
from tests.simulation.substitution import Substitutes
from tests.state_persistence.components import Files, Folder

__all__ = ["Beginning", "Beginnings"]


@dataclass(frozen=True, slots=True)
class Beginning:
    """A store that one process has saved into, whom nobody disturbed.

    Attributes:
        objects: What lies in it.
        contents: What was saved, by number.
        files: What was saved last.
    """

    objects: dict[str, bytes]
    contents: list[Files]
    files: Files


class Beginnings:
    """Stores with a few states, each made once.

    Args:
        substitutes: What the code under test runs on.
    """

    def __init__(self, substitutes: Substitutes) -> None:
        self.substitutes = substitutes
        self._made: dict[int, Beginning] = {}

    def of(self, count: int) -> Beginning:
        """One with `count` states, each on top of the one before."""
        if count not in self._made:
            self._made[count] = self._make(count)
        return self._made[count]

    def _make(self, count: int) -> Beginning:
        source = random.Random(count)
        scheduler = Scheduler(source, lambda: None)
        clock = Clock(scheduler, source)
        self.substitutes.use(scheduler, clock, source)
        objects = Objects(clock, page_size=1000, has_create_only=True)
        files: Files = {"a": source.randbytes(150), "b": bytes(100), "c": b"c"}
        contents: list[Files] = []
        process = scheduler.process("first")

        def make() -> None:
            with StateStore(SimulatedStorage(objects, process, scheduler, Faults(source))) as store:
                store.register("folder", folder := Folder())
                for number in range(count):
                    files["b"] = bytes(CHUNK) + bytes([number]) * 30
                    contents.append(dict(files))
                    folder.files = files
                    store.save_state(metadata={CONTENT: number})

        scheduler.spawn(process, "main", make)
        scheduler.run()
        return Beginning(dict(objects.content), contents, files)
