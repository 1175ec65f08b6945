"""``statevault gc``: what no state needs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, opened
from statevault.cli.output import console, counted, plain, print_json, size
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
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would go.")] = False,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Delete what crashed saves have left, and old records.

    Looks through the whole store, and ends uploads that nobody completed. No state is removed. Safe beside running
    agents; once a day or a week is often enough.
    """
    with reported(as_json=as_json), opened(url, storage_option) as store:
        result = store.gc(stale_after=stale_after, dry_run=dry_run)
        if as_json:
            print_json(asdict(result))
            return
        would = "would be" if dry_run else "was"
        for name in result.given_up:
            console.print(f"{plain(name)}: its save did not end, and {would} given up.", soft_wrap=True)
        found = f"{counted(result.objects, 'object')} of {size(result.freed)}, {counted(result.records, 'old record')}"
        uploads = counted(result.uploads, "unfinished upload")
        console.print(
            f"Would delete {found}. Nothing was changed; unfinished uploads were not looked for."
            if dry_run
            else f"Deleted {found}; ended {uploads}.",
            soft_wrap=True,
        )
