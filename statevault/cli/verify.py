"""``statevault verify``: every byte against its digest."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from statevault.cli.failures import exit_code, reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, own_name
from statevault.cli.other_folders import opened_any
from statevault.cli.output import console, plain, print_json, progress, size
from statevault.errors import CorruptStateError, StateNotFoundError, StatePrunedError, StorageError
from statevault.state_persistence import StateStore
from statevault.state_persistence.stored_states import LATEST
from statevault.storage.redaction import redacted

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
        names = store.names() if state is None else [store.info().name if state == LATEST else own_name(store, state)]
        results, failure = _check(store, names, as_json=as_json)
        if state is not None and not results:
            raise StateNotFoundError(f"the state {state!r} was removed from {store.url} meanwhile")
        damaged, failed = (sum(r["outcome"] == outcome for r in results) for outcome in ("damaged", "failed"))
        if as_json:
            print_json(results)
        else:
            ends = f", {failed} could not be read" if failed else ""
            console.print(f"{len(results)} states checked, {damaged} damaged{ends}." if results else "No states.")
        if damaged:
            raise typer.Exit(exit_code(CorruptStateError()))
        if failure is not None:
            raise failure


def _check(store: StateStore, names: list[str], *, as_json: bool) -> tuple[list[dict[str, Any]], StorageError | None]:
    """Check states, and tell of each at once.

    Returns:
        What was found, and the first failure of the storage. The others are checked all the same, unless it is one that
        may pass: a storage that is not there would be waited for again with each of them.
    """
    results: list[dict[str, Any]] = []
    failure: StorageError | None = None
    for name in names:
        try:
            result = _verified(store, name, hidden=as_json)
        except StorageError as error:
            failure = failure or error
            result = _result(name, "failed", error=redacted(str(error)))
        if result is not None:
            results.append(result)
            if not as_json:
                _print(result)
        if failure is not None and failure.transient:
            break
    return results, failure


def _verified(store: StateStore, name: str, *, hidden: bool) -> dict[str, Any] | None:
    """Check one state; None if retention took it meanwhile."""
    try:
        reader = store.open_state(name)
        with progress(f"verifying {name}", reader.record.size, hidden=hidden) as advance:
            reader.verify(on_progress=advance)
    except StatePrunedError:
        return None
    except CorruptStateError as error:
        return _result(name, "damaged", error=str(error))
    return _result(name, "ok", files=reader.record.files, size=reader.record.size)


def _result(
    name: str, outcome: str, *, files: int | None = None, size: int | None = None, error: str | None = None
) -> dict[str, Any]:
    return {"state": name, "outcome": outcome, "files": files, "size": size, "error": error}


def _print(result: dict[str, Any]) -> None:
    if result["error"] is None:
        what = f"{result['files']} files, {size(result['size'])}"
        console.print(
            Text.assemble(("ok       ", "green"), plain(result["state"]), (f"  {what}", "dim")), soft_wrap=True
        )
    else:
        label = f"{result['outcome'].upper():<9}"
        console.print(
            Text.assemble((label, "bold red"), plain(result["state"]), plain(f"  {result['error']}")), soft_wrap=True
        )
