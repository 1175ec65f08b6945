"""How long the training thread stands still for a save: as long as its tensors take to be copied."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Effort, interleaved, seconds_of
from benchmarks.methods.statevault import Tensors
from benchmarks.report import Row, Section
from benchmarks.workloads import State, model
from statevault.state_persistence import StateStore

__all__ = ["run"]


def run(effort: Effort) -> Section:
    """Measure the pause of saves of a model, beside copies of its tensors."""
    megabytes = effort.pick(400, 40, 2)
    state = model(megabytes).make()
    tensors = [tensor for group in state.values() for tensor in group.values()]
    faulted = [tensor.clone() for tensor in tensors]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, _store(folder, state) as store:
            store.save_state()

            def next_save() -> float:
                # Its memory is there, of the save before, which is over.
                seconds = seconds_of(store.save_state_async)
                store.wait()
                return seconds

            def first_save() -> float:
                with _store(folder, state) as another:
                    return seconds_of(another.save_state_async)

            seconds = interleaved(
                {
                    "next": next_save,
                    "faulted": lambda: seconds_of(lambda: _copy(tensors, faulted)),
                    "first": first_save,
                    "fresh": lambda: _fresh_copy_s(tensors),
                },
                effort.pick(11, 5, 1),
            )
    finally:
        torch.set_num_threads(threads)
    ms = {name: spread.map(lambda s: s * 1e3) for name, spread in seconds.items()}
    return Section(
        "pause",
        f"the pause of the training thread for a save of {megabytes} MB of tensors",
        "a copy of the tensors into memory that is faulted in already, with one thread",
        [
            Row("a save, not the first one of the process", ms["next"], ms["faulted"], "ms", "lower"),
            Row("the first save", ms["first"], ms["fresh"], "ms", "lower", against="into fresh memory"),
        ],
    )


def _store(folder: str, state: State) -> StateStore:
    store = StateStore(Path(folder) / "states")
    for name, tensors in state.items():
        store.register(name, Tensors(tensors))
    return store


def _copy(tensors: list[Any], targets: list[Any]) -> None:
    for source, target in zip(tensors, targets, strict=True):
        target.copy_(source)


def _fresh_copy_s(tensors: list[Any]) -> float:
    # An allocator might hand out what it was given back. These pages nobody has had.
    size = sum(tensor.nbytes for tensor in tensors)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    offset, targets = 0, []
    for tensor in tensors:
        target = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        targets.append(target.view(tensor.shape))
        offset += tensor.nbytes
    return seconds_of(lambda: _copy(tensors, targets))
