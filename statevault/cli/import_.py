"""``statevault import``: a plain folder becomes a committed state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, parsed_storage_options
from statevault.cli.other_folders import refuse_other_folder
from statevault.cli.output import console, plain, print_json, size
from statevault.state_persistence import StateStore

__all__ = ["import_"]


def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder with the files of a state, such as PAMIQ-Core wrote.")
    ],
    url: StoreArgument,
    name: Annotated[
        str | None, typer.Option("--name", help="The state's name; made from the time if not given.")
    ] = None,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Save a plain folder as a state: its files as they are, nothing converted, nothing unpickled."""
    options = parsed_storage_options(storage_option)
    with reported(as_json=as_json), StateStore(url, storage_options=options) as store:
        refuse_other_folder(store, url, options)
        path = store.import_folder(folder, name=name, metadata={"imported_from": folder.absolute().name})
        files = store.open_state(path.name).manifest.files
        pickles = [file.path for file in files if file.holds_pickle]
        total = sum(file.size for file in files)
        if as_json:
            print_json({"state": path.name, "files": len(files), "size": total, "pickles": pickles})
            return
        console.print(f"{plain(str(folder))} is now {path.name}: {len(files)} files, {size(total)}", soft_wrap=True)
        if any(file.needs_allow_pickle for file in files):
            console.print("It holds pickles: a store loads all of it only with allow_pickle=True.", soft_wrap=True)
