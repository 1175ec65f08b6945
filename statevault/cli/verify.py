"""``statevault verify``: every byte against its digest."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from statevault.cli.failures import exit_code, reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, own_name
from statevault.cli.other_folders import opened_any
from statevault.cli.output import console, plain, print_json, progress, size
from statevault.errors import CorruptStateError, StateNotFoundError, StatePrunedError
from statevault.state_persistence import StateStore
from statevault.state_persistence.stored_states import LATEST

__all__ = ["verify"]


def verify(
    url: StoreArgument,
    state: Annotated[
        str | None, typer.Argument(metavar="STATE", help="A state's name, or 'latest'; all states if not given.")
    ] = None,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a state, or of all states, against its digest. Exit code 4 if something is damaged.

    So of an experiment, or of a trial of it, and of policies in a folder.
    """
    with reported(as_json=as_json), opened_any(url, storage_option) as store:
        if not isinstance(store, StateStore):
            if not store.verify(None if state == LATEST else state, as_json=as_json):
                raise typer.Exit(exit_code(CorruptStateError()))
            return
        if state is None:
            names = store.names()
        else:
            names = [store.info().name if state == LATEST else own_name(store, state)]
        results = [result for name in names if (result := _verified(store, name, hidden=as_json)) is not None]
        if state is not None and not results:
            raise StateNotFoundError(f"the state {state!r} was removed from {store.url} meanwhile")
        damaged = [result for result in results if result["error"] is not None]
        if as_json:
            print_json(results)
        else:
            for result in results:
                _print(result)
            console.print(f"{len(results)} states checked, {len(damaged)} damaged." if results else "No states.")
        if damaged:
            raise typer.Exit(exit_code(CorruptStateError()))


def _verified(store: StateStore, name: str, *, hidden: bool) -> dict[str, Any] | None:
    """Check one state; None if retention took it meanwhile."""
    try:
        reader = store.open_state(name)
        with progress(f"verifying {name}", reader.record.size, hidden=hidden) as advance:
            reader.verify(on_progress=advance)
    except StatePrunedError:
        return None
    except CorruptStateError as error:
        return {"state": name, "files": None, "size": None, "error": str(error)}
    return {"state": name, "files": reader.record.files, "size": reader.record.size, "error": None}


def _print(result: dict[str, Any]) -> None:
    if result["error"] is None:
        what = f"{result['files']} files, {size(result['size'])}"
        console.print(Text.assemble(("ok       ", "green"), result["state"], (f"  {what}", "dim")), soft_wrap=True)
    else:
        console.print(
            Text.assemble(("DAMAGED  ", "bold red"), result["state"], plain(f"  {result['error']}")), soft_wrap=True
        )
