"""The commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from statevault import __version__
from statevault.cli.console import console
from statevault.cli.cp import cp
from statevault.cli.demo import demo
from statevault.cli.doctor import doctor
from statevault.cli.failures import USAGE, print_error
from statevault.cli.gc import gc
from statevault.cli.import_ import import_
from statevault.cli.pin import pin, unpin
from statevault.cli.prune import prune
from statevault.cli.read import cat, export
from statevault.cli.rm import rm
from statevault.cli.show import ls, show
from statevault.cli.verify import verify

__all__ = ["app"]

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # which typer gives no name of its own


class _Commands(TyperGroup):
    """The commands, which tell in JSON also what is wrong with their arguments where JSON was asked for."""

    @override
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        if not standalone_mode or "--json" not in given:
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, False, windows_expand_args, **extra) or 0)
        except _UsageError as error:
            print_error("UsageError", error.format_message(), USAGE)  # type: ignore[attr-defined]
            sys.exit(USAGE)
        except typer.Abort:
            sys.exit(1)


app = typer.Typer(
    cls=_Commands,
    help="Look into stores of agents' states, check them, copy them, and clear them up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "ls": ls,
    "show": show,
    "verify": verify,
    "cat": cat,
    "export": export,
    "import": import_,
    "cp": cp,
    "prune": prune,
    "rm": rm,
    "pin": pin,
    "unpin": unpin,
    "gc": gc,
    "doctor": doctor,
    "console": console,
    "demo": demo,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


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
    """Look into stores of agents' states, check them, copy them, and clear them up."""
