"""The cut: what the components wrote, held in staging before any of it is published."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from statevault.codecs import holds_pickle, pickle_policy, segment_boundaries
from statevault.codecs.tree.held import holding
from statevault.codecs.tree.held_tree import HeldTree
from statevault.errors import InvalidNameError, StagingSpaceError, UnsupportedTypeError
from statevault.format.names import check_logical_path
from statevault.state_persistence.content.file_content import FileContent, StateFile
from statevault.state_persistence.content.held_content import HeldContent
from statevault.state_persistence.content.local_content import LocalContent
from statevault.state_persistence.mixin import PersistentState, PhasedState
from statevault.state_persistence.snapshot.staging import Staging
from statevault.storage.descriptors import DESCRIPTORS
from statevault.worker_pool import WorkerPool

__all__ = [
    "Cut",
    "Snapshot",
    "SnapshotFile",
    "begin_snapshot",
    "component_path",
    "end_snapshot",
    "take_snapshot",
    "walk",
]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_NEARLY_NOTHING = 1024**2


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file that a component wrote.

    Attributes:
        component: Index of its component.
        logical_path: Its path in the state.
        path: Where it lies now, or what stands for it.
        size: Bytes.
        holds_pickle: Whether there are pickles in it, as far as that can be seen.
        needs_allow_pickle: Whether they are such that statevault itself reads.
        held: The tree file, if it is held in memory.
    """

    component: int
    logical_path: str
    path: Path
    size: int
    holds_pickle: bool
    needs_allow_pickle: bool
    held: HeldTree | None = None

    @property
    def may_be_held(self) -> bool:
        """Whether its component reads it as a tree and in no other way: it has said so for this save."""
        return self.held is not None

    def content(self, encoders: WorkerPool) -> FileContent:
        """Its bytes, to be uploaded."""
        if self.held is not None:
            return HeldContent(self.held, encoders)
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
        written: Bytes of the files that lie in a folder.
        discard: What gives the room back.
    """

    created_at: datetime
    components: tuple[str, ...]
    files: tuple[StateFile, ...]
    directories: tuple[tuple[int, str], ...]
    seconds: float = 0.0
    written: int = 0
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
        size_hint: Bytes that its files will probably take, without those that are held; 0 if nobody knows.
        allow_pickle: Whether they may write pickles.

    Raises:
        StagingSpaceError: It fits neither in memory nor on disk.
        UnsupportedTypeError: A component holds a value that needs pickle, or wrote something that is no file.
        InvalidNameError: A component wrote a file whose name can't be stored.
        Exception: Whatever a component's ``save_state`` raises, with a note that names the component.
    """
    return DESCRIPTORS.instead(
        lambda: _where_it_fits(components, staging, size_hint, allow_pickle, Cut.save_all), many=True
    )


def begin_snapshot(
    components: Mapping[str, PersistentState], staging: Staging, *, size_hint: int, allow_pickle: bool
) -> Cut:
    """Let the components that have two phases save the first one.

    Returns:
        The snapshot in the making, for :func:`end_snapshot` or :meth:`Cut.discard`.

    Raises:
        StagingSpaceError: As for :func:`take_snapshot`, and so are all others.
        UnsupportedTypeError: See there.
        Exception: See there.
    """
    try:
        return _where_it_fits(components, staging, size_hint, allow_pickle, Cut.save_early)
    except Exception as error:
        if not DESCRIPTORS.are_wanting(error):
            raise
        # Other threads go on, and would take what was given up now. All is saved when they stand still.
        return _where_it_fits(components, staging, size_hint, allow_pickle, lambda cut: cut)


def end_snapshot(cut: Cut, *, size_hint: int) -> Snapshot:
    """Let all components save what is left. If that does not fit beside the first phase, all is saved anew elsewhere.

    Raises:
        StagingSpaceError: As for :func:`take_snapshot`, and so are all others.
        UnsupportedTypeError: See there.
        InvalidNameError: See there.
        Exception: See there.
    """
    try:
        return cut.save_rest()
    except Exception as error:
        is_full = _is_for_lack_of_room(error, cut.folder)
        lacks_descriptors = DESCRIPTORS.are_wanting(error)
        cut.discard()
        if not is_full and not lacks_descriptors:
            raise
        if is_full:
            _logger.warning("The snapshot did not fit into %s; all of it is taken again", cut.folder.parent)
        return take_snapshot(cut.components, cut.staging, size_hint=size_hint, allow_pickle=cut.allow_pickle)
    except BaseException:
        cut.discard()
        raise


def _where_it_fits(
    components: Mapping[str, PersistentState],
    staging: Staging,
    size_hint: int,
    allow_pickle: bool,
    save: Callable[[Cut], _T],
) -> _T:
    roots = staging.roots(size_hint)
    for attempt, root in enumerate(roots, start=1):
        cut = Cut(components, staging, staging.make(root), allow_pickle=allow_pickle)
        try:
            return save(cut)
        except Exception as error:
            is_full = _is_for_lack_of_room(error, cut.folder)
            cut.discard()
            if not is_full or isinstance(error, StagingSpaceError):
                raise
            if attempt == len(roots):
                raise StagingSpaceError(
                    f"the snapshot did not fit into {root}: {error}. Free some room, or name another folder "
                    "with staging_dir="
                ) from error
            _logger.warning("The snapshot did not fit into %s; trying %s", root, roots[attempt])
        except BaseException:
            cut.discard()
            raise
    raise AssertionError("staging.roots() returns at least one root")


def _is_for_lack_of_room(error: Exception, folder: Path) -> bool:
    # Many libraries hide the errno of a full disk behind an error of their own.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _is_full(folder)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _NEARLY_NOTHING


class Cut:
    """A snapshot in the making: what components have written into one staging folder so far.

    Args:
        components: By name, in the order in which they are saved.
        staging: What made the folder.
        folder: An empty folder.
        allow_pickle: Whether components may write pickles.
    """

    def __init__(
        self, components: Mapping[str, PersistentState], staging: Staging, folder: Path, *, allow_pickle: bool
    ) -> None:
        self.components = dict(components)
        self.staging = staging
        self.folder = folder
        self.allow_pickle = allow_pickle
        self._held = staging.holder(folder)
        self._seconds = 0.0
        self._pickled: set[Path] = set()
        self._saved_early: set[str] = set()

    def save_early(self) -> Cut:
        """Let the components that have two phases save the first one."""
        phased = {name: component for name, component in self.components.items() if isinstance(component, PhasedState)}
        self._save({name: component.save_early for name, component in phased.items()})
        self._saved_early.update(phased)
        return self

    def save_rest(self) -> Snapshot:
        """Let all components save what is left. This is the instant that the state pictures."""
        created_at = datetime.now(UTC)
        self._save(
            {
                name: component.save_late
                if name in self._saved_early and isinstance(component, PhasedState)
                else component.save_state
                for name, component in self.components.items()
            }
        )
        return self._snapshot(created_at)

    def save_all(self) -> Snapshot:
        """Let all components save themselves, at one instant."""
        return self.save_rest()

    def discard(self) -> None:
        """Give the room back, or keep it for the next one."""
        self._held.release()
        self.staging.remove(self.folder)

    def _save(self, calls: Mapping[str, Callable[[Path], None]]) -> None:
        began = perf_counter()
        with (
            pickle_policy(allowed=self.allow_pickle, folder=self.folder) as policy,
            holding(self._held),
        ):
            for index, name in enumerate(self.components):
                if name not in calls:
                    continue
                path = component_path(self.folder, index, name)
                path.parent.mkdir(exist_ok=True)
                try:
                    calls[name](path)
                except Exception as error:
                    error.add_note(f"while saving the component {name!r}")
                    raise
        self._pickled |= policy.written
        self._seconds += perf_counter() - began

    def _snapshot(self, created_at: datetime) -> Snapshot:
        files: list[SnapshotFile] = []
        directories: list[tuple[int, str]] = []
        for index in range(len(self.components)):
            for path in walk(self.folder / str(index)):
                logical_path = check_logical_path(path.relative_to(self.folder / str(index)).as_posix())
                if path.is_dir():
                    directories.append((index, logical_path))
                else:
                    files.append(self._file(index, logical_path, path))
        _check_one_owner(files)
        self._held.check_complete()
        written = sum(file.size for file in files if file.held is None)
        return Snapshot(
            created_at, tuple(self.components), tuple(files), tuple(directories), self._seconds, written, self.discard
        )

    def _file(self, component: int, logical_path: str, path: Path) -> SnapshotFile:
        held = self._held.find(path)
        if held is not None:
            pickled = held.holds_pickles
            return SnapshotFile(component, logical_path, path, held.size, pickled, pickled, held)
        pickled = path in self._pickled or holds_pickle(path)
        # A component that calls pickle or torch by itself answers for it by itself, when it loads as well.
        ours = path in self._pickled or (pickled and segment_boundaries(path) is not None)
        return SnapshotFile(component, logical_path, path, path.stat().st_size, pickled, ours)


def walk(folder: Path) -> Iterator[Path]:
    """All regular files and all empty folders below a folder, sorted.

    Raises:
        InvalidNameError: A folder's path can't be one in a state.
        UnsupportedTypeError: There is a link or a special file.
    """
    return _walk(folder, "")


def _walk(folder: Path, above: str) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                # Before anything below is looked at: the depth of folders is bounded, and so is Python's stack.
                logical_path = check_logical_path(f"{above}{entry.name}")
                below = list(_walk(path, f"{logical_path}/"))
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
