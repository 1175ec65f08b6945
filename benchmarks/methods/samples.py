"""Replay buffers of images, and how each is saved."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import numpy as np
from typing_extensions import override

from benchmarks.place import Place
from statevault.data import DataUser
from statevault.data.impls import SequentialBuffer
from statevault.state_persistence import StateStore

__all__ = ["Buffer", "Columns", "PickledDeque", "Samples", "WholeBuffer"]

_SHAPE = (84, 84)
_BATCH = 250


class Samples(ABC):
    """A buffer of samples, each an image, a float and an int.

    Args:
        place: Where it is saved.
        capacity: How many samples it holds at most.
    """

    def __init__(self, place: Place, capacity: int) -> None:
        self.place = place
        self.capacity = capacity

    @abstractmethod
    def grow(self, count: int) -> None:
        """Add samples."""

    @abstractmethod
    def save(self) -> None:
        """Return when all is saved."""

    @abstractmethod
    def restore(self) -> None:
        """Hold what was saved last."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    def close(self) -> None:  # noqa: B027 - most have none
        """Let go of connections."""


class Buffer(Samples):
    """A data user with a sequential buffer, in a store."""

    incremental: ClassVar[bool] = True

    def __init__(self, place: Place, capacity: int) -> None:
        super().__init__(place, capacity)
        self._user = DataUser(SequentialBuffer(["image", "reward", "action"], capacity, seed=0))
        self._store = StateStore(place.url, storage_options=place.storage_options, incremental=self.incremental)
        self._store.register("experience", self._user)

    @override
    def grow(self, count: int) -> None:
        for number, sample in enumerate(_new(count, len(self)), start=1):
            self._user.collector.collect(sample)
            if number % _BATCH == 0 or number == count:
                self._user.update()

    @override
    def save(self) -> None:
        self._store.save_state()

    @override
    def restore(self) -> None:
        self._store.load_state("latest")

    @override
    def __len__(self) -> int:
        return len(self._user)

    @override
    def close(self) -> None:
        self._store.close()


class WholeBuffer(Buffer):
    """Each save uploads everything."""

    incremental = False


class PickledDeque(Samples):
    """A deque of dicts, pickled into one file."""

    def __init__(self, place: Place, capacity: int) -> None:
        super().__init__(place, capacity)
        self._samples: deque[dict[str, Any]] = deque(maxlen=capacity)

    @override
    def grow(self, count: int) -> None:
        self._samples.extend(_new(count, len(self)))

    @override
    def save(self) -> None:
        with _opened(self.place, "samples.pkl", "wb") as file:
            pickle.dump(self._samples, file, protocol=pickle.HIGHEST_PROTOCOL)

    @override
    def restore(self) -> None:
        with _opened(self.place, "samples.pkl", "rb") as file:
            self._samples = pickle.load(file)

    @override
    def __len__(self) -> int:
        return len(self._samples)


class Columns(Samples):
    """An array for each field, allocated in full; what is filled of it is saved."""

    def __init__(self, place: Place, capacity: int) -> None:
        super().__init__(place, capacity)
        self._count = 0
        self._columns: dict[str, np.ndarray[Any, Any]] = {
            "image": np.zeros((capacity, *_SHAPE), np.uint8),
            "reward": np.zeros(capacity),
            "action": np.zeros(capacity, np.int64),
        }

    @override
    def grow(self, count: int) -> None:
        for sample in _new(count, self._count):
            for name, value in sample.items():
                self._columns[name][self._count] = value
            self._count += 1

    @override
    def save(self) -> None:
        for name, column in self._columns.items():
            with _opened(self.place, f"{name}.npy", "wb") as file:
                np.save(file, column[: self._count])

    @override
    def restore(self) -> None:
        for name, column in self._columns.items():
            with _opened(self.place, f"{name}.npy", "rb") as file:
                loaded = np.load(file)
            self._count = len(loaded)
            column[: self._count] = loaded

    @override
    def __len__(self) -> int:
        return self._count


def _new(count: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        image = rng.integers(0, 256, _SHAPE, np.uint8)
        yield {"image": image, "reward": float(image[0, 0]), "action": int(image[0, 1])}


def _opened(place: Place, name: str, mode: str) -> Any:
    if not place.is_remote:
        return (place.folder / name).open(mode)
    filesystem = fsspec.filesystem("s3", **place.storage_options)
    return filesystem.open(f"{place.url}/{name}", mode)
