"""What the commands show of the folder of a batch experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from statevault.cli.output import console, counted, plain, print_json, progress, size
from statevault.errors import StateNotFoundError
from statevault.experiments.overview import ExperimentOverview, TrialOverview, look_at_experiment
from statevault.experiments.whole_files import (
    CopiedFile,
    check_files,
    copy_files,
    missing_files,
    own_files,
    refuse_another,
)
from statevault.storage import Storage

__all__ = ["ExperimentView"]

_STYLES = {"copied": "green", "present": "dim", "damaged": "bold red", "gone": "yellow"}


class ExperimentView:
    """An experiment. Nothing of it is unpickled.

    Args:
        storage: Its folder.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def ls(self, *, as_json: bool) -> None:
        """Print its algorithms, and how far each is."""
        overview = look_at_experiment(self._storage)
        if as_json:
            print_json(_as_json(overview, overview.trials))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("#", justify="right", style="dim")
        table.add_column("algorithm", overflow="fold")
        for name in ("iterations", "complete", "begun", "checkpoints", "size"):
            table.add_column(name, justify="right", no_wrap=True)
        for entry in overview.metadata.algorithms:
            trials = overview.of(entry.index)
            table.add_row(
                str(entry.index),
                Text(plain(entry.name)),
                str(entry.iterations),
                f"{sum(trial.is_complete for trial in trials)}/{overview.metadata.n_trials}",
                str(sum(trial.iteration is not None and not trial.is_complete for trial in trials)),
                str(sum(trial.checkpoints for trial in trials)),
                size(sum(trial.size for trial in trials)),
            )
        console.print(table)
        complete = sum(trial.is_complete for trial in overview.trials)
        console.print(
            f"An experiment: {complete} of {counted(overview.total, 'trial')} complete, {size(overview.size)}.",
            soft_wrap=True,
        )

    def show(self, name: str | None, *, as_json: bool) -> None:
        """Print the trials that have begun, or one (``algorithm_0/trial_3``).

        Raises:
            StateNotFoundError: There is no such trial.
        """
        overview = look_at_experiment(self._storage)
        trials = overview.trials if name is None else (self._trial(overview, name),)
        if as_json:
            print_json(_as_json(overview, trials))
            return
        if name is None:
            for key, value in overview.metadata.to_dict().items():
                if key != "algorithms":
                    console.print(Text.assemble((f"  {key}  ", "dim"), plain(str(value))), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial", no_wrap=True)
        table.add_column("algorithm", overflow="fold")
        for column in ("done", "checkpoints", "size"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for trial in trials:
            entry = overview.metadata.algorithms[trial.alg_idx]
            done = 0 if trial.iteration is None else trial.iteration + 1
            how = "complete" if trial.is_complete else "claimed" if trial.is_claimed else ""
            table.add_row(
                plain(trial.name),
                Text(plain(entry.name)),
                f"{done}/{entry.iterations}",
                str(trial.checkpoints),
                size(trial.size),
                Text(how, style="green" if trial.is_complete else "yellow"),
            )
        console.print(table)
        if name is None and (left := overview.total - len(trials)):
            console.print(f"{counted(left, 'trial')} not begun.")

    def verify(self, name: str | None, *, as_json: bool) -> bool:
        """Check every byte of all files, or of those of one trial and what belongs to all; and what is missing.

        Raises:
            StateNotFoundError: There is no such trial.
        """
        files = own_files(self._storage, None if name is None else [self._known(name)])
        with progress(f"verifying {counted(len(files), 'file')}", sum(f.size for f in files), hidden=as_json) as bar:
            checked = [*check_files(self._storage, files, bar), *missing_files(self._storage, files)]
        damaged = [file for file in checked if file.error is not None]
        if as_json:
            print_json([asdict(file) for file in checked])
            return not damaged
        for file in damaged:
            console.print(Text.assemble(("DAMAGED  ", "bold red"), plain(str(file.error))), soft_wrap=True)
        without = sum(not file.has_digest and file.error is None for file in checked)
        console.print(
            f"{counted(len(checked), 'file')} checked, {len(damaged)} damaged"
            + (f", {without} of an older run without a digest." if without else "."),
            soft_wrap=True,
        )
        return not damaged

    def copy(self, target: Storage, names: Sequence[str] | None, *, as_json: bool) -> bool:
        """Copy all files, or those of some trials and what belongs to all.

        Raises:
            StateNotFoundError: There is no such trial.
            ExperimentExistsError: The target holds another experiment.
        """
        files = own_files(self._storage, None if names is None else [self._known(name) for name in names])
        refuse_another(self._storage, target)
        with progress(f"copying {counted(len(files), 'file')}", sum(f.size for f in files), hidden=as_json) as bar:
            copied = list(copy_files(self._storage, target, files, bar))
        damaged = [file for file in copied if file.outcome == "damaged"]
        if as_json:
            print_json([asdict(file) for file in copied])
        else:
            _print_copied(copied)
        return not damaged

    def _known(self, name: str) -> str:
        return self._trial(look_at_experiment(self._storage), name).name

    def _trial(self, overview: ExperimentOverview, name: str) -> TrialOverview:
        if (trial := overview.named(name.strip("/"))) is not None:
            return trial
        raise StateNotFoundError(
            f"{self._storage.url} is an experiment and has no {name!r}: its trials are named as algorithm_0/trial_0"
        )


def _print_copied(copied: list[CopiedFile]) -> None:
    for file in copied:
        if file.outcome in ("damaged", "gone"):
            console.print(
                Text.assemble(
                    (f"{file.outcome.upper():<9}", _STYLES[file.outcome]), plain(f"{file.key}  {file.error or ''}")
                ),
                soft_wrap=True,
            )
    counts = {outcome: sum(file.outcome == outcome for file in copied) for outcome in _STYLES}
    console.print(
        f"{counted(counts['copied'], 'file')} copied, {counts['present']} there already, {counts['damaged']} damaged"
        + (f", {counts['gone']} gone meanwhile: copy again." if counts["gone"] else "."),
        soft_wrap=True,
    )


def _as_json(overview: ExperimentOverview, trials: Sequence[TrialOverview]) -> dict[str, Any]:
    return {
        "kind": "experiment",
        "metadata": overview.metadata.to_dict(),
        "size": overview.size,
        "not_begun": overview.total - len(overview.trials),
        "trials": [{"name": trial.name, **asdict(trial)} for trial in trials],
    }
