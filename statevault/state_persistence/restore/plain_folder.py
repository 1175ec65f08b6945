"""A folder with the files of components that is no committed state: what PAMIQ-Core wrote, or what was exported.

Its top-level entries are its components: ``models/`` is the component ``models``, ``time.pkl`` the component
``time``. There are no digests and no commit marker, so nobody can tell whether it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from upath import UPath

from statevault.codecs import holds_pickle, segment_boundaries
from statevault.codecs.tree.stubs import is_stub
from statevault.errors import FormatError, InvalidNameError, StateNotFoundError
from statevault.format.keys import VAULT, manifest_key
from statevault.format.names import check_component_name, check_logical_path
from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.restore.selection import Contents, owner_of
from statevault.state_persistence.snapshot.snapshot import Snapshot, SnapshotFile, walk
from statevault.storage import LocalStorage

__all__ = ["PlainFolder"]

# What PAMIQ-Core pickles and statevault's own components unpickle.
_UNPICKLED = re.compile(r"time\.pkl|data/[^/]+/(buffer|timestamps)\.pkl")


@dataclass(frozen=True, slots=True)
class PlainFolder:
    """The files of a plain folder.

    Attributes:
        path: The folder.
        components: The names of its components, sorted.
        files: Its files; `component` is an index into `components`.
        directories: Its folders without files: index of the component, logical path.
    """

    path: Path
    components: tuple[str, ...]
    files: tuple[SnapshotFile, ...]
    directories: tuple[tuple[int, str], ...]

    @classmethod
    def read(cls, path: Path, *, known: Iterable[str] = ()) -> PlainFolder:
        """List a folder.

        Args:
            path: The folder.
            known: Names that components may have; only a name with a dot needs it.

        Raises:
            StateNotFoundError: There is no such folder, or it is empty.
            FormatError: It is a store, or a state of one, or what a save that never ended has left in one.
            InvalidNameError: A file has a name that can't be stored.
            UnsupportedTypeError: There is a link or a special file in it.
        """
        if path.exists() and not path.is_dir():
            raise StateNotFoundError(f"{path} is a file: name the folder in which the files of a state are")
        if not path.is_dir():
            raise StateNotFoundError(f"there is no folder {path}")
        if (path / VAULT).exists():
            raise FormatError(f"{path} is a store of states, not the folder of one: name a state in it")
        if (path / manifest_key("_").rpartition("/")[2]).exists():
            raise FormatError(
                f"{path} is the folder of a state that statevault saved: load it by its name from its store, "
                "or take its files out with `statevault export`"
            )
        _refuse_debris(path)
        known = list(known)
        found = [(entry, _component(path, entry, known)) for entry in walk(path)]
        if not found:
            raise StateNotFoundError(f"the folder {path} is empty: there is nothing to load")
        components = tuple(sorted({component for _, component in found}))
        files: list[SnapshotFile] = []
        directories: list[tuple[int, str]] = []
        for entry, component in found:
            index = components.index(component)
            logical_path = check_logical_path(entry.relative_to(path).as_posix())
            if entry.is_dir():
                directories.append((index, logical_path))
                continue
            if is_stub(entry):
                raise FormatError(f"{entry} stands for a tree file that was held in memory, and holds nothing of it")
            pickled = holds_pickle(entry)
            ours = pickled and (segment_boundaries(entry) is not None or _UNPICKLED.fullmatch(logical_path) is not None)
            files.append(SnapshotFile(index, logical_path, entry, entry.stat().st_size, pickled, ours))
        files.sort(key=lambda file: (file.component, file.logical_path))
        return cls(path, components, tuple(files), tuple(directories))

    @property
    def contents(self) -> Contents:
        """Its names, for a selection."""
        paths: dict[str, list[str]] = {component: [] for component in self.components}
        for index, path in self._paths():
            paths[self.components[index]].append(path)
        return Contents(self.path.name, paths)

    @property
    def info(self) -> StateInfo:
        """It, described as if it were a state; it has the sequence 0, which no state has."""
        size = sum(file.size for file in self.files)
        return StateInfo(
            name=self.path.name,
            path=UPath(self.path),
            sequence=0,
            created_at=datetime.fromtimestamp(self.path.stat().st_mtime, UTC),
            writer="",
            files=len(self.files),
            size=size,
            stored_size=size,
            new_size=0,
            base=None,
            components=self.components,
            metadata={},
        )

    def snapshot(self) -> Snapshot:
        """Its files as they are, to be published. They must not change until then, and stay when it is closed."""
        return Snapshot(datetime.now(UTC), self.components, self.files, self.directories)

    def _paths(self) -> Iterator[tuple[int, str]]:
        yield from ((file.component, file.logical_path) for file in self.files)
        yield from self.directories


def _refuse_debris(path: Path) -> None:
    """Refuse the folder of a state, and what is in it, by the store's records: an unfinished save has no other sign."""
    real = path.resolve()
    for name, root in zip((real, *real.parents), real.parents, strict=False):
        if (root / VAULT).is_dir() and name.name in Catalog(LocalStorage(root)).listing().names:
            raise FormatError(
                f"{path} belongs to the state {name.name!r} of the store {root}, which is no plain folder: what a save "
                "that has not ended left there is never taken for one. A committed state is taken out with "
                "`statevault export`"
            )


def _component(folder: Path, entry: Path, known: list[str]) -> str:
    first = entry.relative_to(folder).parts[0]
    # A folder may have dots in its name; of a file, what follows the first one is a suffix.
    is_folder = (folder / first).is_dir()
    try:
        return check_component_name(owner_of(first, known) or (first if is_folder else first.partition(".")[0]))
    except InvalidNameError as error:
        raise InvalidNameError(f"{folder / first} can't be a component, move it out of the folder: {error}") from None
