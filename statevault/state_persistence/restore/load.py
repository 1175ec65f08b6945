"""Loading components from a state: all bytes are fetched and verified before the first component is touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from statevault.codecs import pickle_policy
from statevault.errors import CorruptStateError, PickleNotAllowedError, StagingSpaceError, StateVaultError
from statevault.format.manifest import FileEntry
from statevault.state_persistence.mixin import PersistentMembers, PersistentState
from statevault.state_persistence.restore.download import StateReader
from statevault.state_persistence.restore.plain_folder import PlainFolder
from statevault.state_persistence.restore.received_trees import ReceivedTrees
from statevault.state_persistence.restore.selection import Contents, Selection, select
from statevault.state_persistence.snapshot.snapshot import component_path
from statevault.state_persistence.snapshot.staging import Staging

__all__ = ["Loader"]

_SHOWN = 5
# What a filesystem says of paths and lengths that it can't have, however much room there is.
_NAMES_AND_SIZES = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EFBIG,
        errno.EOVERFLOW,
    }
)


@dataclass(frozen=True, slots=True)
class Loader:
    """What is to be loaded, from wherever it lies.

    Attributes:
        components: All registered components by name.
        wanted: The names of those to load (or ``component/member``), and to read the bytes of; None for all.
        strict: Whether the state must fit what is registered.
        optional: Components that may be missing on either side even so.
        allow_pickle: Whether files with pickles may be loaded.
    """

    components: Mapping[str, PersistentState]
    wanted: Collection[str] | None
    strict: bool
    optional: Collection[str]
    allow_pickle: bool

    def load_state(self, reader: StateReader, staging: Staging) -> Selection:
        """Load from a committed state.

        Args:
            reader: The state.
            staging: Where the files lie while they are loaded.

        Returns:
            What was loaded.

        Raises:
            ComponentNotFoundError: The state does not fit what is registered.
            PickleNotAllowedError: A file needs ``allow_pickle=True``.
            StagingSpaceError: There is no room for the files.
            CorruptStateError: The state is damaged.
            StatePrunedError: It was removed meanwhile.
            StorageError: The storage failed.
            FileNotFoundError: A component looked for a file that it had not saved.
            Exception: Whatever a component raises, with a note that names it. Those before it are loaded then.
        """
        manifest = reader.manifest
        paths: dict[str, list[str]] = {name: [] for name in manifest.components}
        for file in manifest.files:
            paths[manifest.components[file.component]].append(file.path)
        for directory in manifest.directories:
            paths[manifest.components[directory.component]].append(directory.path)
        contents = Contents(manifest.state, paths)
        selection = self._select(contents)

        def needed(component: int, path: str) -> bool:
            return selection.takes(manifest.components[component], path, self.components)

        files = [file for file in manifest.files if needed(file.component, file.path)]
        folders = [entry for entry in manifest.directories if needed(entry.component, entry.path)]
        self._refuse_pickles(manifest.state, ((file.path, file.needs_allow_pickle) for file in files))
        trees = ReceivedTrees(files, staging)
        try:
            try:
                root = staging.roots(max(1, sum(file.size for file in files) - trees.size), beside=trees.size)[0]
            except StagingSpaceError:
                reader.check_objects(files)  # or is it only said to be so large?
                raise
            with staging.folder(root) as folder:
                indices = {name: manifest.components.index(name) for name in selection.members}
                places = [folder / str(index) for index in indices.values()]
                places += [folder / str(entry.component) / entry.path for entry in folders]
                _fetch(reader, files, trees, folder, places)
                self._load(selection, contents, folder, lambda name: component_path(folder, indices[name], name))
        finally:
            trees.release()
        return selection

    def load_folder(self, folder: PlainFolder) -> Selection:
        """Load from a plain folder, where the components find their files as they lie.

        Args:
            folder: The folder.

        Returns:
            What was loaded.

        Raises:
            ComponentNotFoundError: The folder does not fit what is registered.
            PickleNotAllowedError: A file needs ``allow_pickle=True``.
            Exception: As for :meth:`load_state`.
        """
        contents = folder.contents
        selection = self._select(contents)
        files = [
            (file.logical_path, file.needs_allow_pickle)
            for file in folder.files
            if selection.takes(folder.components[file.component], file.logical_path, self.components)
        ]
        self._refuse_pickles(folder.path.name, files)
        self._load(selection, contents, folder.path, lambda name: folder.path / name)
        return selection

    def _select(self, contents: Contents) -> Selection:
        return select(contents, self.components, wanted=self.wanted, strict=self.strict, optional=self.optional)

    def _refuse_pickles(self, state: str, files: Iterable[tuple[str, bool]]) -> None:
        for path, needs_allow_pickle in files:
            if needs_allow_pickle and not self.allow_pickle:
                raise PickleNotAllowedError(
                    f"the file {path!r} of the state {state!r} holds pickles, which run code when they are loaded: if "
                    "you trust everybody who can write to the store, make it with allow_pickle=True"
                )

    def _load(self, selection: Selection, contents: Contents, folder: Path, path_of: Callable[[str], Path]) -> None:
        with pickle_policy(allowed=self.allow_pickle, folder=folder):
            for name, members in selection.members.items():
                component = self.components[name]
                try:
                    if members is None:
                        component.load_state(path_of(name))
                    elif isinstance(component, PersistentMembers):
                        component.load_members(path_of(name), members)
                except Exception as error:
                    error.add_note(f"while loading the component {name!r} from the state {contents.where!r}")
                    if isinstance(error, FileNotFoundError):
                        _explain(error, name, contents, path_of(name).parent)
                    raise


def _explain(error: FileNotFoundError, name: str, contents: Contents, folder: Path) -> None:
    """Say what a component did not find by its path in the state: where it is staged is of no use to anybody.

    Raises:
        FileNotFoundError: It looked below its folder for what the state does not have.
    """
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return
    sought = Path(os.fsdecode(error.filename))
    if not sought.is_relative_to(folder):
        return
    logical_path, paths = sought.relative_to(folder).as_posix(), contents.paths[name]
    if any(path == logical_path or path.startswith(f"{logical_path}/") for path in paths):
        return  # of another member, which is not loaded
    has = ", ".join(sorted(paths)[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")
    raise FileNotFoundError(
        f"the component {name!r} looks for {logical_path!r}, but in the state {contents.where!r} its save_state left "
        f"{has or 'nothing'}: save the file always, or let load_state do without it"
    ) from error


def _fetch(reader: StateReader, files: list[FileEntry], trees: ReceivedTrees, folder: Path, places: list[Path]) -> None:
    def target(file: FileEntry) -> Path:
        return folder / str(file.component) / file.path

    try:
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        reader.restore(files, target, memory=trees.memory)
        trees.put_stubs(target)
    except StateVaultError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StagingSpaceError(
                f"the state {reader.record.state!r} did not fit into {folder}: {error}. Free some room, or name "
                "another folder with staging_dir="
            ) from error
        if error.errno not in _NAMES_AND_SIZES:
            raise
        raise CorruptStateError(
            f"the state {reader.record.state!r} can't be restored into {folder}, which takes no such names or sizes: "
            f"{error}"
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise CorruptStateError(
            f"the state {reader.record.state!r} can't be restored: {type(error).__name__}: {error}"
        ) from error
