"""``statevault pin`` and ``statevault unpin``: states that no retention takes."""

from __future__ import annotations

from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StateArgument, StorageOptions, StoreArgument, opened, own_names
from statevault.cli.output import console, counted, plain, print_json
from statevault.errors import StateNotFoundError

__all__ = ["pin", "unpin"]


def pin(
    url: StoreArgument,
    state: StateArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the pin: why the state is kept.")] = "pin",
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Keep a state whatever retention says, until it is unpinned. When the command ends well, the pin holds."""
    with reported(as_json=as_json), opened(url, storage_option) as store:
        [found] = own_names(store, [state])
        store.pin(found, name)
        if as_json:
            print_json({"state": found, "pin": name})
        else:
            console.print(f"{found} is pinned ({plain(name)}).", soft_wrap=True)


def unpin(
    url: StoreArgument,
    state: StateArgument,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The pins to take off; all if not given.", show_default=False)
    ] = None,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Take pins off a state, so that retention may remove it again."""
    with reported(as_json=as_json), opened(url, storage_option) as store:
        [found] = own_names(store, [state])
        count = store.unpin(found, name)
        if not count:
            what = "pins" if name is None else f"pin {name!r}"
            raise StateNotFoundError(f"the state {found!r} has no {what}; `statevault show` lists its pins")
        if as_json:
            print_json({"state": found, "pin": name, "removed": count})
        else:
            console.print(f"{found}: {counted(count, 'pin')} taken off.", soft_wrap=True)
