"""Saving and loading a model of tensors beside ``torch.save``, on a local folder and on an S3 server."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import s3fs
import torch
from typing_extensions import override

from benchmarks.measure import Effort, interleaved, seconds_of
from benchmarks.report import Row, Section
from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree
from tests.servers import Servers, StorageTarget

__all__ = ["run"]

Tensors = dict[str, torch.Tensor]

_TENSORS = 16


class Model(PersistentStateMixin):
    """Tensors as a component."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.tensors, path.with_suffix(".tree"))

    @override
    def load_state(self, path: Path) -> None:
        self.tensors = read_tree(path.with_suffix(".tree"))


def run(effort: Effort) -> Section:
    """Measure saves and loads on a local folder and on the S3 gateway of JuiceFS."""
    megabytes, rounds = effort.pick(256, 64, 1), effort.pick(5, 2, 1)
    tensors = {f"layer{i}": torch.randn(megabytes * 1024 * 1024 // 4 // _TENSORS) for i in range(_TENSORS)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder))
        try:
            for name, where in (("local", "local folder"), ("juicefs", "S3 (JuiceFS gateway, this machine)")):
                rows += _measured(tensors, servers.target(name), where, Path(folder), rounds)
        finally:
            servers.close()
    return Section(
        "tensors", f"{megabytes} MiB of float32 in {_TENSORS} tensors", "torch.save and torch.load on a file", rows
    )


def _measured(tensors: Tensors, target: StorageTarget, where: str, folder: Path, rounds: int) -> list[Row]:
    megabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
    opened = _opener(target, folder)

    def torch_save() -> None:
        with opened("wb") as file:
            torch.save(tensors, file)

    def torch_load() -> None:
        with opened("rb") as file:
            torch.load(file, weights_only=True)

    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("model", Model(tensors))
        actions: dict[str, Callable[[], Any]] = {
            "save": store.save_state,
            "torch save": torch_save,
            "load": store.load_state,
            "torch load": torch_load,
        }
        seconds = interleaved({name: partial(seconds_of, action) for name, action in actions.items()}, rounds)
    rates = {name: spread.map(lambda s: megabytes / s) for name, spread in seconds.items()}
    return [
        Row(f"{where}: {action}", rates[action], rates[f"torch {action}"], "MB/s", "higher")
        for action in ("save", "load")
    ]


def _opener(target: StorageTarget, folder: Path) -> Callable[[str], Any]:
    if not target.url.startswith("s3://"):
        return (folder / "model.pt").open
    remote = s3fs.S3FileSystem(**target.storage_options, skip_instance_cache=True)
    return partial(remote.open, f"{target.url}/peer/model.pt")
