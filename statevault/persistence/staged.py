"""A policy on its way: its file and its additional state in a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from statevault.state_persistence.snapshot.snapshot import walk
from statevault.state_persistence.snapshot.staging import Staging

__all__ = ["FileBody", "StagedPolicy", "staged_folder"]

_ADDITIONAL = "additional"
_PIECE = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class StagedPolicy:
    """A policy in a local folder.

    Attributes:
        folder: The folder.
        filename: The name of the policy's file in it.
    """

    folder: Path
    filename: str

    @property
    def file(self) -> Path:
        """The policy's file."""
        return self.folder / self.filename

    @property
    def additional(self) -> Path:
        """The folder of its additional state; it exists only if there is such."""
        return self.folder / _ADDITIONAL

    def additional_files(self) -> dict[str, Path]:
        """The files of its additional state, by logical path.

        Raises:
            UnsupportedTypeError: There is a link or a special file among them.
        """
        paths = walk(self.additional) if self.additional.is_dir() else ()
        return {path.relative_to(self.additional).as_posix(): path for path in paths if path.is_file()}


class FileBody:
    """A local file as the body of a put, read anew for each try.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        with self._file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece


@contextmanager
def staged_folder(size: int = 0) -> Iterator[Path]:
    """A new empty local folder, in memory where that fits, removed at the end of the block.

    Args:
        size: How many bytes it will hold; 0 if that is not known.

    Raises:
        StagingSpaceError: It fits nowhere.
    """
    staging = Staging()
    try:
        with staging.folder(staging.roots(size)[0]) as folder:
            yield folder
    finally:
        staging.close()
