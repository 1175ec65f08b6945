"""How far an experiment is, for whoever looks on: bars on a terminal, lines in the log elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from statevault.errors import MissingExtraError
from statevault.experiments.trial_run import TrialId, Watch
from statevault.format.plain_text import plain

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["TrialCounts", "shown"]

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_LOG_EVERY_S = 30.0
_MAX_BARS = 20


class TrialCounts(Watch):
    """How many iterations each trial has done.

    Each trial has one cell, which is only ever written as a whole: the cells may lie in memory that processes share,
    without a lock that a killed one would leave locked.

    Args:
        names: Of the algorithms.
        iterations: How many each is given.
        n_trials: How many trials there are of each.
        cells: One for each trial of each algorithm; None for ones of this process alone.
    """

    def __init__(
        self, names: Sequence[str], iterations: Sequence[int], n_trials: int, cells: MutableSequence[int] | None = None
    ) -> None:
        self.names = list(names)
        self.iterations = list(iterations)
        self.n_trials = n_trials
        self.cells = [0] * (len(names) * n_trials) if cells is None else cells

    @override
    def advance(self, trial: TrialId, iterations: int) -> None:
        # An experiment that is extended while it is run has trials for which there are no cells.
        if trial.trial < self.n_trials:
            self.cells[trial.alg_idx * self.n_trials + trial.trial] = iterations

    def finish(self, trial: TrialId) -> None:
        """A trial is complete, whoever completed it."""
        self.advance(trial, self.iterations[trial.alg_idx])

    def done(self, alg_idx: int) -> int:
        """How many iterations of an algorithm are done, in all trials together."""
        first = alg_idx * self.n_trials
        limit = self.iterations[alg_idx]
        return sum(min(count, limit) for count in self.cells[first : first + self.n_trials])

    def total(self, alg_idx: int) -> int:
        """How many there are to be."""
        return self.n_trials * self.iterations[alg_idx]


@contextlib.contextmanager
def shown(counts: TrialCounts, *, bars: bool | None) -> Iterator[None]:
    """Show counts while the block runs.

    Args:
        counts: What to show.
        bars: Show bars on stderr; None: if rich is installed and stderr is a terminal, and otherwise lines in the log.
            False: show nothing at all.

    Raises:
        MissingExtraError: Bars are asked for, and rich is not installed.
    """
    if bars is False:
        yield
        return
    progress = _rich_progress(required=bars is True)
    with progress if progress is not None else contextlib.nullcontext():
        show = _in_the_log(counts) if progress is None else _in_bars(counts, progress)
        over = threading.Event()
        every_s = _LOG_EVERY_S if progress is None else _LOOK_EVERY_S

        def look() -> None:
            while not over.wait(every_s):
                show()

        looking = threading.Thread(target=look, name="statevault-progress", daemon=True)
        with contextlib.suppress(RuntimeError):  # there is no thread to be had: only the end is shown
            looking.start()
        try:
            yield
        finally:
            over.set()
            if looking.ident is not None:
                looking.join()
            show()


def _rich_progress(*, required: bool) -> Progress | None:
    if not required and not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        if required:
            raise MissingExtraError("progress bars need rich: pip install 'statevault[cli]'") from None
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _in_bars(counts: TrialCounts, progress: Progress) -> Callable[[], Any]:
    """One bar for each algorithm, or one for all of many."""
    algorithms = range(len(counts.names))
    if len(counts.names) > _MAX_BARS:
        whole = progress.add_task(f"{len(counts.names)} algorithms", total=sum(map(counts.total, algorithms)))
        return lambda: progress.update(whole, completed=sum(map(counts.done, algorithms)))
    bars = [
        progress.add_task(plain(name).replace("[", "\\["), total=counts.total(index), completed=counts.done(index))
        for index, name in enumerate(counts.names)
    ]

    def show() -> None:
        for index, bar in enumerate(bars):
            progress.update(bar, completed=counts.done(index))

    return show


def _in_the_log(counts: TrialCounts) -> Callable[[], Any]:
    def show() -> None:
        for index, name in enumerate(counts.names):
            _logger.info("%s: %d of %d iterations", plain(name), counts.done(index), counts.total(index))

    return show
