"""``statevault doctor``: what a place can do, how fast it is, and what that means."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from statevault.cli.failures import reported
from statevault.cli.findings import Finding, examine
from statevault.cli.options import AsJson, StorageOptions, parsed_storage_options
from statevault.cli.output import console, plain, print_json, progress
from statevault.cli.quantities import parsed_size
from statevault.storage import open_storage

__all__ = ["doctor"]

_STYLES = {"ok": "green", "note": "yellow", "fails": "bold red"}


def doctor(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A store, or where one is to be: a path or s3://bucket/prefix, …")
    ],
    size: Annotated[
        int,
        typer.Option(
            parser=parsed_size, metavar="SIZE", help="How large the object is by which throughput is measured."
        ),
    ] = "32MB",  # type: ignore[assignment] # parsed as what a user writes
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Try what a place can do, how fast it is, and say what it means.

    URL need not be a store. What it puts is deleted again. Exit code 1 if something fails that statevault needs.
    """
    with reported(as_json=as_json):
        storage = open_storage(url, parsed_storage_options(storage_option))
        findings = []
        try:
            for finding in examine(
                storage,
                size_bytes=size,
                watch=lambda: progress("measuring throughput", 2 * size, hidden=as_json),
            ):
                findings.append(finding)
                if not as_json:
                    console.print(_line(finding))
        finally:
            storage.close()
        failing = any(finding.verdict == "fails" for finding in findings)
        if as_json:
            print_json({"url": storage.url, "ok": not failing, "findings": [asdict(finding) for finding in findings]})
        elif failing:
            console.print("Something fails that statevault needs.", soft_wrap=True)
        if failing:
            raise typer.Exit(1)


def _line(finding: Finding) -> Table:
    line = Table.grid(padding=(0, 2))
    line.add_column(width=5)
    line.add_column(width=13)
    line.add_column(overflow="fold")
    verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
    line.add_row(verdict, finding.check, Text(plain(finding.found)))
    line.add_row("", "", Text(plain(finding.means), style="dim"))
    return line
