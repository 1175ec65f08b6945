"""The commands."""

from __future__ import annotations

from typing import Annotated

import typer

from statevault import __version__
from statevault.cli.console import console
from statevault.cli.demo import demo
from statevault.cli.import_ import import_
from statevault.cli.read import cat, export
from statevault.cli.show import ls, show
from statevault.cli.verify import verify

__all__ = ["app"]

app = typer.Typer(
    help="Look into stores of agents' states, check them, and take states out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (ls, show, verify, cat, export, console, demo):
    app.command()(command)
app.command("import")(import_)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"statevault {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Look into stores of agents' states, check them, and take states out."""
