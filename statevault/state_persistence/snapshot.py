"""The cut: what the components wrote, held in staging before any of it is published."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from statevault.codecs import holds_pickle, pickle_policy, segment_boundaries
from statevault.errors import InvalidNameError, StagingSpaceError, UnsupportedTypeError
from statevault.format.names import check_logical_path
from statevault.state_persistence.file_content import LocalContent, StateFile
from statevault.state_persistence.mixin import PersistentState
from statevault.state_persistence.staging import Staging

__all__ = ["Snapshot", "SnapshotFile", "component_path", "take_snapshot", "walk"]

_logger = logging.getLogger(__name__)
_NEARLY_NOTHING = 1024**2


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file that a component wrote.

    Attributes:
        component: Index of its component.
        logical_path: Its path in the state.
        path: Where it lies now.
        size: Bytes.
        holds_pickle: Whether there are pickles in it, as far as that can be seen.
        needs_allow_pickle: Whether they are such that statevault itself reads.
    """

    component: int
    logical_path: str
    path: Path
    size: int
    holds_pickle: bool
    needs_allow_pickle: bool

    def content(self, encoders: ThreadPoolExecutor) -> LocalContent:
        """Its bytes, to be uploaded."""
        return LocalContent(self.path, self.size, name=self.logical_path, encoders=encoders)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All components at one instant, as they are published.

    Attributes:
        created_at: The instant of the cut (UTC).
        components: Their names, in the order in which they were saved.
        files: What they wrote, sorted by component and path.
        directories: Folders without files: index of the component, logical path.
        seconds: How long the components took.
        discard: What gives the room back.
    """

    created_at: datetime
    components: tuple[str, ...]
    files: tuple[StateFile, ...]
    directories: tuple[tuple[int, str], ...]
    seconds: float = 0.0
    discard: Callable[[], None] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def close(self) -> None:
        """Give the room back."""
        if self.discard is not None:
            self.discard()


def component_path(folder: Path, index: int, name: str) -> Path:
    """The path that component number `index` is given below a staging folder.

    Each has a parent folder of its own, so that whatever it writes beside its path (``time`` + ``.tree``) is known
    to be its own.
    """
    return folder / str(index) / name


def take_snapshot(
    components: Mapping[str, PersistentState], staging: Staging, *, size_hint: int, allow_pickle: bool
) -> Snapshot:
    """Let all components save themselves into a staging folder.

    Args:
        components: By name, in the order in which they are saved.
        staging: Where.
        size_hint: Bytes that it will probably take.
        allow_pickle: Whether they may write pickles.

    Raises:
        StagingSpaceError: It fits neither in memory nor on disk.
        UnsupportedTypeError: A component holds a value that needs pickle, or wrote something that is no file.
        InvalidNameError: A component wrote a file whose name can't be stored.
        Exception: Whatever a component's ``save_state`` raises, with a note that names the component.
    """
    roots = staging.roots(size_hint)
    for attempt, root in enumerate(roots, start=1):
        folder = staging.make(root)
        try:
            return _fill(folder, components, staging, allow_pickle=allow_pickle)
        except Exception as error:
            # Many libraries hide the errno of a full disk behind an error of their own.
            is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _is_full(folder)
            staging.remove(folder)
            if not is_full or isinstance(error, StagingSpaceError):
                raise
            if attempt == len(roots):
                raise StagingSpaceError(
                    f"the snapshot did not fit into {root}: {error}. Free some room, or name another folder "
                    "with staging_dir="
                ) from error
            _logger.warning("The snapshot did not fit into %s; trying %s", root, roots[attempt])
        except BaseException:
            staging.remove(folder)
            raise
    raise AssertionError("staging.roots() returns at least one root")


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _NEARLY_NOTHING


def _fill(folder: Path, components: Mapping[str, PersistentState], staging: Staging, *, allow_pickle: bool) -> Snapshot:
    created_at = datetime.now(UTC)
    began = perf_counter()
    files: list[SnapshotFile] = []
    directories: list[tuple[int, str]] = []
    with pickle_policy(allowed=allow_pickle, folder=folder) as policy:
        for index, (name, component) in enumerate(components.items()):
            path = component_path(folder, index, name)
            path.parent.mkdir()
            try:
                component.save_state(path)
            except Exception as error:
                error.add_note(f"while saving the component {name!r}")
                raise
    for index in range(len(components)):
        for path in walk(folder / str(index)):
            logical_path = check_logical_path(path.relative_to(folder / str(index)).as_posix())
            if path.is_dir():
                directories.append((index, logical_path))
            else:
                pickled = path in policy.written or holds_pickle(path)
                # A component that calls pickle or torch by itself answers for it by itself, when it loads as well.
                ours = path in policy.written or (pickled and segment_boundaries(path) is not None)
                files.append(SnapshotFile(index, logical_path, path, path.stat().st_size, pickled, ours))
    _check_one_owner(files)
    discard = partial(staging.remove, folder)
    return Snapshot(created_at, tuple(components), tuple(files), tuple(directories), perf_counter() - began, discard)


def walk(folder: Path) -> Iterator[Path]:
    """All regular files and all empty folders below a folder, sorted.

    Raises:
        UnsupportedTypeError: There is a link or a special file.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                below = list(walk(path))
                yield from below or [path]
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise UnsupportedTypeError(
                    f"{path.name!r}, which was to be saved, is a link or a special file: only regular files are"
                )


def _check_one_owner(files: list[SnapshotFile]) -> None:
    owners: dict[str, int] = {}
    for file in files:
        if owners.setdefault(file.logical_path, file.component) != file.component:
            raise InvalidNameError(f"two components wrote the file {file.logical_path!r}: rename one of the components")
