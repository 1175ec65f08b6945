"""``statevault gc``: what no state needs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, opened
from statevault.cli.output import console, counted, print_json, size
from statevault.cli.quantities import parsed_duration

__all__ = ["gc"]


def gc(
    url: StoreArgument,
    stale_after: Annotated[
        timedelta,
        typer.Option(
            "--stale-after",
            parser=parsed_duration,
            metavar="TIME",
            help="A save that has not ended for so long counts as dead: 12h, 2d. One that lives all the same notices, "
            "and saves again.",
        ),
    ] = "1d",  # type: ignore[assignment] # parsed as what a user writes
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Delete what crashed saves have left, and old records.

    Looks through the whole store, and ends uploads that nobody completed. No state is removed. Safe beside running
    agents; once a day or a week is often enough.
    """
    with reported(as_json=as_json), opened(url, storage_option) as store:
        result = store.gc(stale_after=stale_after)
        if as_json:
            print_json(asdict(result))
            return
        for name in result.given_up:
            console.print(f"{name}: its save did not end, and was given up.", soft_wrap=True)
        console.print(
            f"{counted(result.objects, 'object')} deleted, {size(result.freed)} freed; "
            f"{counted(result.records, 'old record')} deleted, {counted(result.uploads, 'unfinished upload')} ended.",
            soft_wrap=True,
        )
