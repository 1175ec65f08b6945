"""``statevault rm``: named states, for good."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from statevault.cli.confirm import Yes, confirm, refuse_unasked
from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, opened, own_names
from statevault.cli.output import print_json, size
from statevault.cli.prune import print_result, removed
from statevault.errors import CorruptStateError, StateVaultError
from statevault.state_persistence import StateStore

__all__ = ["rm"]


def rm(
    url: StoreArgument,
    states: Annotated[list[str], typer.Argument(metavar="STATE", help="Names of states, or 'latest'.")],
    yes: Yes = False,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Remove states for good, also the newest if it is named. Pinned ones are refused.

    If one of them can't be removed, none is. What other states share with them stays.
    """
    refuse_unasked(yes=yes)
    with reported(as_json=as_json), opened(url, storage_option) as store:
        names = _removable(store, states)
        question = f"Remove {', '.join(names)} of {store.url}"
        with suppress(CorruptStateError):  # a damaged state can be removed all the same
            question += f" ({size(store.freed_by(names))})"
        confirm(f"{question}?", yes=yes)
        result = removed(store, names, "removed by the command line", as_json)
        if as_json:
            print_json(asdict(result))
        else:
            print_result(result)


def _removable(store: StateStore, states: list[str]) -> list[str]:
    """The names of states, in their order, if all of them are there and none is pinned."""
    names = set(own_names(store, states))
    known, pins = store.names(), store.pins()  # listed after "latest" was found: it is among them
    for name in known:
        if name in names and name in pins:
            raise StateVaultError(
                f"{name!r} is pinned ({', '.join(pins[name])}), so nothing was removed: take the pins off with "
                f"`statevault unpin` first"
            )
    return [name for name in known if name in names]
