"""``statevault cp``: states from one store to another."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from statevault.cli.failures import exit_code, reported
from statevault.cli.options import AsJson, StorageOptions, own_names, parsed_storage_options
from statevault.cli.other_folders import opened_any, refuse_other_folder
from statevault.cli.output import console, counted, plain, print_json, progress, size
from statevault.errors import CorruptStateError, FormatError, StatePrunedError
from statevault.state_persistence import StateStore
from statevault.state_persistence.copies.copying import CopiedState, CopyReport
from statevault.storage import Storage, normalized_url, open_storage
from statevault.storage.redaction import redacted

__all__ = ["cp"]

_DAMAGED = exit_code(CorruptStateError())
_LABELS = {
    "copied": ("copied   ", "green"),
    "present": ("present  ", "dim"),
    "damaged": ("DAMAGED  ", "bold red"),
    "pruned": ("removed  ", "yellow"),
}


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy from: a path or URL.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="The store to copy to, on any storage; made if it is not there.")
    ],
    states: Annotated[
        list[str] | None,
        typer.Argument(metavar="STATE", help="Names of states, or 'latest'; all if not given.", show_default=False),
    ] = None,
    storage_option: StorageOptions = None,
    source_option: Annotated[
        list[str] | None,
        typer.Option("--source-option", metavar="KEY=VALUE", help="As --storage-option, for SRC only."),
    ] = None,
    target_option: Annotated[
        list[str] | None,
        typer.Option("--target-option", metavar="KEY=VALUE", help="As --storage-option, for DST only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy states to another store, every byte verified; an experiment, or policies, to another folder.

    Oldest first. What is in DST already is passed over: run it again to go on where it was interrupted. A state keeps
    its name where it is free there. Exit code 4 if a state is damaged, after the others were copied.
    """
    with reported(as_json=as_json):
        pairs = tuple(
            # A local folder has no use for those that are meant for the other side.
            [*((storage_option or ()) if "://" in normalized_url(url) else ()), *(own or ())]
            for url, own in ((source, source_option), (target, target_option))
        )
        _refuse_overlap(_real(source), _real(target), is_one_storage=pairs[0] == pairs[1])
        with opened_any(source, pairs[0]) as here:
            if isinstance(here, StateStore):
                options = parsed_storage_options(pairs[1])
                with StateStore(target, storage_options=options) as there:
                    refuse_other_folder(there, target, options)
                    code = _copy_states(here, there, states, as_json=as_json)
            else:
                code = 0 if here.copy(_target(target, pairs[1]), states, as_json=as_json) else _DAMAGED
    if code:
        raise typer.Exit(code)


def _real(url: str) -> str:
    """Where a store really lies: behind the links of a local path."""
    url = normalized_url(url)
    return url if "://" in url else os.path.realpath(url)


def _refuse_overlap(source: str, target: str, *, is_one_storage: bool) -> None:
    if is_one_storage and source == target:
        raise typer.BadParameter("SRC and DST are the same store: there is nothing to copy")
    if is_one_storage and target.startswith(f"{source.rstrip('/')}/"):
        raise typer.BadParameter(f"DST {redacted(target)} is inside SRC: choose a folder beside it")


def _copy_states(here: StateStore, there: StateStore, states: list[str] | None, *, as_json: bool) -> int:
    done: list[CopiedState] = []
    names = None if states is None else own_names(here, states)
    infos = [info for info in here.states() if names is None or info.name in names]
    try:
        with progress(
            f"copying {counted(len(infos), 'state')}", sum(info.size for info in infos), hidden=as_json
        ) as bar:
            here.copy_states(there, names, on_progress=bar, on_state=done.append)
    finally:
        # Also of a copy that broke off: what was copied is there.
        if done or not infos:
            _print(CopyReport(tuple(done)), left=len(infos) - len(done), as_json=as_json)
    if any(state.outcome == "damaged" for state in done):
        return _DAMAGED
    return exit_code(StatePrunedError()) if names and any(state.outcome == "pruned" for state in done) else 0


def _target(url: str, pairs: list[str]) -> Storage:
    """Where files go that are no states; a store of states is no place for them.

    Raises:
        FormatError: A store is there.
    """
    options = parsed_storage_options(pairs)
    with StateStore(url, storage_options=options) as store:
        if store.exists():
            raise FormatError(f"{store.url} is a store of states: copy an experiment, or policies, to another folder")
    return open_storage(url, options)


def _print(report: CopyReport, *, left: int, as_json: bool) -> None:
    if as_json:
        print_json([asdict(state) for state in report.states])
        return
    for state in report.states:
        label, style = _LABELS[state.outcome]
        name = state.state if state.target in (None, state.state) else f"{state.state} as {state.target}"
        what = state.error or size(state.size)
        if state.outcome == "copied":
            what += f", {size(state.uploaded)} uploaded"
        console.print(Text.assemble((label, style), plain(name), (plain(f"  {what}"), "dim")), soft_wrap=True)
    failed = len(report.damaged) + len(report.pruned) + max(0, left)
    console.print(
        f"{len(report.copied)} copied ({size(report.uploaded)} uploaded), {len(report.present)} there already, "
        f"{failed} not copied."
        if report.states
        else "No states.",
        soft_wrap=True,
    )
