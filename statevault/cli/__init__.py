"""The command line: ``statevault ls | show | verify | cat | export | import | cp | prune | rm | pin | gc | doctor``, ….

Needs the extra ``cli``. One readable line and an exit code for each kind of error (:mod:`statevault.cli.failures`).
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process."""
    try:
        from statevault.cli.app import app  # noqa: PLC0415 - typer and rich are an extra
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f'statevault: the command line needs {error.name}: pip install "statevault[cli]"')
    app(prog_name="statevault")
