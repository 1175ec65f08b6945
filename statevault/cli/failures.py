"""From an error to an exit code and one readable line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from statevault.cli.output import plain, plain_json
from statevault.errors import (
    ComponentNotFoundError,
    CorruptStateError,
    ExperimentNotFoundError,
    FormatError,
    InvalidNameError,
    MissingExtraError,
    PickleNotAllowedError,
    StagingSpaceError,
    StateNotFoundError,
    StateVaultError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageOptionError,
    StoreNotFoundError,
)
from statevault.storage.redaction import redacted

__all__ = ["EXIT_CODES", "USAGE", "exit_code", "print_error", "reported"]

USAGE = 2

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "an error of another kind",
    USAGE: "the command was not understood, or a URL, a name or an option of it can't be used",
    3: "a state, a file or a store is not there",
    4: "bytes are damaged",
    5: "credentials or permissions do not suffice",
    6: "the storage failed, or it or the agent could not be reached; trying again may help",
    7: "not a store, or of a newer format",
    8: "no room",
    130: "interrupted",
    143: "ended by SIGTERM",
}

# The first that fits counts.
_CODES: list[tuple[type[BaseException] | tuple[type[BaseException], ...], int]] = [
    ((StateNotFoundError, ComponentNotFoundError, StoreNotFoundError, ExperimentNotFoundError), 3),
    ((InvalidNameError, StorageOptionError), USAGE),
    (CorruptStateError, 4),
    ((StorageAccessError, PickleNotAllowedError), 5),
    ((StorageFullError, StagingSpaceError), 8),
    ((StorageError, ConnectionError), 6),
    (FormatError, 7),
    ((StateVaultError, MissingExtraError, OSError), 1),
]


def exit_code(error: BaseException) -> int:
    """The exit code for an error; 1 for one that statevault does not know."""
    if getattr(error, "status", 0) in {401, 403}:  # of a WebApiError, which is there with the extra web only
        return 5
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def print_error(kind: str, message: str, code: int) -> None:
    """Print an error as JSON, on stderr."""
    error = {"kind": kind, "message": message, "exit_code": code}
    typer.echo(plain_json({"error": error}, ascii_only=True), err=True)


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """Turn an expected error into one line on stderr and an exit code; let a bug through with its traceback.

    Args:
        as_json: Write ``{"error": {"kind", "message", "exit_code"}}`` instead.

    Raises:
        typer.Exit: An expected error was reported.
    """
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough. Without this Python complains while it shuts down.
        sys.stdout = None
        raise typer.Exit(0) from None
    except (StateVaultError, OSError) as error:
        code = exit_code(error)
        message = redacted(str(error))  # once more: of what a user has typed, too
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            code = 8
        if as_json:
            print_error(type(error).__name__, message, code)
        else:
            typer.echo(f"statevault: {plain(message)}", err=True)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
