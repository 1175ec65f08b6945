"""``statevault console``: a running system on a command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from statevault.cli.failures import exit_code, reported

__all__ = ["console"]


def console(
    host: Annotated[str, typer.Option("--host", help="Where the system's web API listens.")] = "localhost",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Its port.")] = 8319,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="STATEVAULT_WEB_API_TOKEN",
            help="The bearer token, if it wants one. Other users of this machine can see arguments: rather set the "
            "environment variable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Watch and command a running system: status, pause, resume, save, shutdown.

    Needs the extra web. Type help for the commands. Read from a pipe or a file, commands are carried out one after the
    other; the exit code is then that of the first that failed.
    """
    with reported():
        from statevault.console import Console, WebApiClient  # noqa: PLC0415 - an extra

        with WebApiClient(host, port, token=token) as client:
            client.get_status()  # or there is nobody to talk to
            shell = Console(client)
            if sys.stdin is not None:  # it may be closed
                shell.cmdloop()
        if shell.failure is not None and not shell.stdin.isatty():
            raise typer.Exit(exit_code(shell.failure))
