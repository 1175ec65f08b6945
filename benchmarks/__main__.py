"""Save and load a model of tensors: statevault beside ``torch.save``, on a local folder and on an S3 server."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import s3fs
import torch
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree
from tests.servers import Servers, StorageTarget

Tensors = dict[str, torch.Tensor]


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


def timed(action: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(tensors: Tensors, target: StorageTarget, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each action, several times, in turn, so that a drift of the machine meets all alike."""
    store = StateStore(target.url, storage_options=target.storage_options)
    store.register("model", Model(tensors))
    remote = None
    if target.url.startswith("s3://"):
        remote = s3fs.S3FileSystem(**target.storage_options, skip_instance_cache=True)
    seconds: dict[str, list[float]] = {"statevault save": [], "torch save": [], "statevault load": [], "torch load": []}

    def torch_save() -> None:
        if remote is None:
            torch.save(tensors, folder / "model.pt")
        else:
            with remote.open(f"{target.url}/peer/model.pt", "wb") as file:
                torch.save(tensors, file)

    def torch_load() -> None:
        if remote is None:
            torch.load(folder / "model.pt", weights_only=True)
        else:
            with remote.open(f"{target.url}/peer/model.pt", "rb") as file:
                torch.load(file, weights_only=True)

    for _ in range(rounds):
        seconds["statevault save"].append(timed(store.save_state))
        seconds["torch save"].append(timed(torch_save))
        seconds["statevault load"].append(timed(store.load_state))
        seconds["torch load"].append(timed(torch_load))
    store.close()
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    tensors = {f"layer{i}": torch.randn(arguments.megabytes * 1024 * 1024 // 4 // 16) for i in range(16)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    table = Table(
        title=f"{size / 1e6:.0f} MB of float32 in 16 tensors, medians of {arguments.rounds}", title_justify="left"
    )
    for heading in ("storage", "action", "statevault MB/s", "torch MB/s", "ratio"):
        table.add_column(heading, justify="left" if heading in {"storage", "action"} else "right")
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder))
        for name in ("local", "juicefs"):
            seconds = measure(tensors, servers.target(name), Path(folder), arguments.rounds)
            median = {action: statistics.median(values) for action, values in seconds.items()}
            for action in ("save", "load"):
                ours, theirs = median[f"statevault {action}"], median[f"torch {action}"]
                table.add_row(
                    "local folder" if name == "local" else "S3 (JuiceFS gateway, this machine)",
                    action,
                    f"{size / ours / 1e6:.0f}",
                    f"{size / theirs / 1e6:.0f}",
                    f"{theirs / ours:.2f}",
                )
        servers.close()
    Console().print(table)


if __name__ == "__main__":
    main()
