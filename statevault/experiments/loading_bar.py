"""A progress bar for what takes long to load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from statevault.format.plain_text import plain

__all__ = ["loading_bar"]

_WORTH_A_BAR = 10**9


@contextmanager
def loading_bar(label: str, size: int, *, steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr inside a ``with`` block: above 1 GB, in a terminal, and if rich is installed.

    Args:
        label: What is loaded.
        size: Bytes.
        steps: How many steps it takes.

    Yields:
        What to call after each step.
    """
    if size <= _WORTH_A_BAR or not sys.stderr.isatty():
        yield lambda: None
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import Progress  # noqa: PLC0415 - an extra
    except ImportError:
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        # What stands in brackets is not markup.
        task = progress.add_task(plain(label).replace("[", "\\["), total=steps)
        yield lambda: progress.advance(task)
