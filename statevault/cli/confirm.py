"""Asking before something is removed for good."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer

from statevault.cli.output import plain

__all__ = ["Yes", "confirm", "refuse_unasked"]

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


def refuse_unasked(*, yes: bool) -> None:
    """Make sure that somebody can be asked, before any work is done.

    Raises:
        typer.BadParameter: Nobody can, and there is no ``--yes``.
    """
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here: add --yes to remove without asking")


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer was given with the command.

    Raises:
        typer.Exit: The answer is no, or Ctrl-C.
    """
    try:
        agreed = yes or typer.confirm(plain(question), default=False, err=True)
    except typer.Abort:
        raise typer.Exit(130) from None
    if not agreed:
        typer.echo("Nothing was removed.", err=True)
        raise typer.Exit(1)
