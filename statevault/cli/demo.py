"""``statevault demo``: the main job, to be watched."""

from __future__ import annotations

from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import StorageOptions, parsed_storage_options
from statevault.cli.output import console, states_table
from statevault.errors import MissingExtraError

__all__ = ["demo"]


def demo(
    states: Annotated[str, typer.Option(metavar="URL", help="Where to save: a path or a URL.")] = "./states",
    seconds: Annotated[float, typer.Option(min=1, help="How long each of the two processes learns, at least.")] = 25.0,
    storage_option: StorageOptions = None,
) -> None:
    """Train an agent, kill it in the middle of a save, resume it, and compare bit by bit.

    Ends by itself within two minutes. Exit code 0 only if the resumed agent is the saved one.
    """
    with reported():
        try:
            import gymnasium  # noqa: F401, PLC0415 - extras
            import torch  # noqa: F401, PLC0415
        except ImportError as error:
            raise MissingExtraError(f'the demo needs {error.name}: pip install "statevault[torch,gym]"') from None
        from statevault.demo.director import Director  # noqa: PLC0415 - needs the extras

        Director(
            states, parsed_storage_options(storage_option), console, act_s=seconds, states_table=states_table
        ).run()
