"""How things look in a terminal, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from statevault.format.plain_text import plain, plain_json
from statevault.state_persistence import StateInfo

__all__ = [
    "console",
    "counted",
    "duration",
    "is_wide",
    "plain",
    "plain_json",
    "print_json",
    "progress",
    "size",
    "state_as_json",
    "states_table",
    "when",
]

_WIDTH_OF_A_FILE = 200
_WIDE = 110

console = Console(markup=False, width=None if Console().is_terminal else _WIDTH_OF_A_FILE)
"""stdout. Where it is a file or a pipe nothing is cut to the width of a terminal."""


def size(count: int) -> str:
    """Bytes as people read them: ``1.5 MB``."""
    return decimal(count).replace("bytes", "B")


def counted(count: int, noun: str) -> str:
    """``1 state``, ``2 states``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def is_wide() -> bool:
    """Whether there is room for columns that can be done without."""
    return console.width >= _WIDE


def duration(seconds: float) -> str:
    """A length of time as people read it: ``15 µs``, ``2.4 s``, ``3 h``."""
    for unit, length, limit in (
        ("µs", 1e-6, 0.001),
        ("ms", 0.001, 1),
        ("s", 1, 120),
        ("min", 60, 7200),
        ("h", 3600, 172_800),
    ):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def when(moment: datetime) -> str:
    """A time in the reader's zone."""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return moment.isoformat()  # at the edge of the calendar


def print_json(value: Any) -> None:
    """Print a value as JSON, on stdout."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    # Escapes of JSON where letters can't be written: what the stream would put in their place is not JSON.
    typer.echo(plain_json(value, indent=2, ascii_only="utf" not in encoding.lower()))


def state_as_json(info: StateInfo, pins: Sequence[str]) -> dict[str, Any]:
    """A state as ``ls --json`` and ``show --json`` print it.

    Args:
        info: The state.
        pins: The names of its pins.
    """
    return {
        "name": info.name,
        "sequence": info.sequence,
        "created_at": info.created_at.isoformat(),
        "writer": info.writer,
        "files": info.files,
        "size": info.size,
        "stored_size": info.stored_size,
        "new_size": info.new_size,
        "base": info.base,
        "components": list(info.components),
        "metadata": info.metadata,
        "pins": list(pins),
    }


def states_table(
    infos: list[StateInfo], *, pins: Mapping[str, Sequence[str]] = MappingProxyType({}), title: str | None = None
) -> Table:
    """States as a table.

    Args:
        infos: The states, oldest first.
        pins: The names of the pins of those that have some.
        title: What stands above the table.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    wide = is_wide()
    pinned = any(info.name in pins for info in infos)
    table.add_column("seq", justify="right", style="dim")
    table.add_column("state", no_wrap=True)
    if wide:
        table.add_column("saved", no_wrap=True)
    narrow = ("size", "uploaded") if pinned else ("files", "size", "uploaded")
    for name in ("files", "size", "stored", "uploaded") if wide else narrow:
        table.add_column(name, justify="right", no_wrap=True)
    if pinned:
        table.add_column("pins", overflow="fold")
    table.add_column("metadata", overflow="fold")
    for info in infos:
        cells: list[str | Text] = [str(info.sequence), plain(info.name)]
        cells += [when(info.created_at)] if wide else []
        cells += [str(info.files)] if wide or not pinned else []
        cells += [size(info.size)]
        cells += [size(info.stored_size)] if wide else []
        # As Text: what stands in brackets in it is not markup.
        metadata = " ".join(f"{key}={_short(value)}" for key, value in info.metadata.items())
        cells += [size(info.new_size)]
        cells += [Text(plain(", ".join(pins.get(info.name, ()))))] if pinned else []
        cells += [Text(plain(metadata))]
        table.add_row(*cells)
    return table


@contextmanager
def progress(label: str, total: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over bytes, on stderr and only in a terminal; yields what to tell of bytes that are done."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden or not Console(stderr=True).is_terminal,
    )
    with bar:
        task = bar.add_task(plain(label), total=total)
        yield lambda done: bar.advance(task, done)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
