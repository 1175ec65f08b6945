"""What a run of the benchmarks says: the head, tables for people, JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Spread

__all__ = ["Row", "Section", "head", "load", "print_head", "print_section", "section_json", "shown"]

_PACKAGES = ("statevault", "numpy", "torch", "fsspec", "s3fs", "boto3", "obstore", "safetensors")


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        what: What was measured.
        ours: Our figures.
        peer: The peer's, or None where there is no peer.
        unit: The unit of both.
        better: Which figures are the better ones.
        against: The peer, where it is another one than the section's.
    """

    what: str
    ours: Spread
    peer: Spread | None
    unit: str
    better: Literal["higher", "lower"]
    against: str | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as good as the peer's our median is: above 1, we are better."""
        if self.peer is None or min(self.ours.median, self.peer.median) <= 0:
            return None
        ratio = self.ours.median / self.peer.median
        return ratio if self.better == "higher" else 1 / ratio


@dataclass(frozen=True, slots=True)
class Section:
    """What one module of the benchmarks measured.

    Attributes:
        name: The name of the module.
        title: What it is about, with the sizes.
        peer: What stands beside us.
        rows: The comparisons.
    """

    name: str
    title: str
    peer: str
    rows: Sequence[Row]


def head() -> dict[str, str]:
    """Return when, where and with what the benchmarks run."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, {platform.system()} "
        f"{platform.release()}",
        "load": load(),
        "versions": ", ".join([f"python {platform.python_version()}", *map(_with_version, _PACKAGES)]),
    }


def load() -> str:
    """Return how many processes wanted a core in the last 1, 5 and 15 minutes."""
    return ", ".join(f"{average:.1f}" for average in os.getloadavg())


def print_head(console: Console) -> None:
    """Print the head."""
    for name, value in head().items():
        console.print(f"{name + ':':<10}{value}", highlight=False)


def print_section(section: Section, console: Console) -> None:
    """Print the table of a section: medians, and the smallest and largest figure in parentheses."""
    table = Table(title=f"{section.name}: {section.title}", caption=f"peer: {section.peer}", title_justify="left")
    table.caption_justify = "left"
    table.add_column("what", overflow="fold")
    for heading in ("unit", "statevault", "peer", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in section.rows:
        what = row.what if row.against is None else f"{row.what} (peer: {row.against})"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(what, row.unit, _figures(row.ours), "" if row.peer is None else _figures(row.peer), ratio)
    console.print(table)


def section_json(section: Section) -> dict[str, Any]:
    """Return a section as a JSON object, with the ratio of each row."""
    return {**asdict(section), "rows": [{**asdict(row), "ratio": row.ratio} for row in section.rows]}


def shown(value: float) -> str:
    """Return a figure with three digits that count, without exponents."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 1 else f"{value:.3g}"


def _figures(spread: Spread) -> str:
    show: Callable[[float], str] = shown
    return f"{show(spread.median)} ({show(spread.low)}..{show(spread.high)})"


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
