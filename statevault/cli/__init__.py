"""The command line: ``statevault ls | show | verify | cat | export | import | cp | prune | rm | pin | gc | doctor``, ….

Needs the extra ``cli``. One readable line and an exit code for each kind of error (:mod:`statevault.cli.failures`).
"""

import contextlib
import io
import logging
import signal
import sys
from types import FrameType

from typing_extensions import override

from statevault.format.plain_text import plain

__all__ = ["main"]

_logger = logging.getLogger(__name__)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A command that has done its work must not fail because a locale has no letter for what it says.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    # What fails while a filesystem of fsspec is thrown away, after its error was told, is none of the user's business.
    sys.unraisablehook = lambda failure: _logger.debug("%s: %r", failure.err_msg, failure.exc_value)
    if logging.lastResort is not None:
        # Warnings repeat names that anybody may have written.
        logging.lastResort.setFormatter(_PlainFormatter())
    try:
        from statevault.cli.app import app  # noqa: PLC0415 - typer and rich are an extra
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f'statevault: the command line needs {error.name}: pip install "statevault[cli]"')
    app(prog_name="statevault")


class _PlainFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(plain, super().format(record).split("\n")))


def _end(number: int, frame: FrameType | None) -> None:
    """Leave as after Ctrl-C, so that what a command has begun is cleared away; a second signal ends it at once."""
    del frame
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)
