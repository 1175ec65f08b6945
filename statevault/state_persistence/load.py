"""Loading components from a state: all bytes are fetched and verified before the first component is touched."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path

from statevault.codecs import pickle_policy
from statevault.errors import ComponentNotFoundError, PickleNotAllowedError, StagingSpaceError, StateVaultError
from statevault.format.manifest import FileEntry, Manifest
from statevault.state_persistence.download import StateReader
from statevault.state_persistence.mixin import PersistentState
from statevault.state_persistence.snapshot import component_path
from statevault.state_persistence.staging import Staging

__all__ = ["load_components"]


def load_components(
    reader: StateReader,
    components: Mapping[str, PersistentState],
    staging: Staging,
    *,
    wanted: Iterable[str] | None,
    allow_pickle: bool,
) -> list[str]:
    """Load components from a state, in the order in which they were registered.

    Args:
        reader: The state.
        components: All registered components by name.
        staging: Where the files lie while they are loaded.
        wanted: The names of those to load, and to read the bytes of; None for all.
        allow_pickle: Whether files with pickles may be loaded.

    Returns:
        The names of those that were loaded.

    Raises:
        ComponentNotFoundError: One is not registered or not in the state, or, when all are to be loaded, the state
            holds one that is not registered.
        PickleNotAllowedError: A file needs ``allow_pickle=True``.
        StagingSpaceError: There is no room for the files.
        CorruptStateError: The state is damaged.
        StatePrunedError: It was removed meanwhile.
        StorageError: The storage failed.
        Exception: Whatever a component raises, with a note that names it. Those before it are loaded then.
    """
    names = _names_to_load(reader.manifest, components, None if wanted is None else list(wanted))
    indices = {reader.manifest.components.index(name): name for name in names}
    files = [file for file in reader.manifest.files if file.component in indices]
    if not allow_pickle:
        _refuse_pickles(reader.manifest.state, files)
    root = staging.roots(sum(file.size for file in files))[0]
    with staging.folder(root) as folder:
        _fetch(reader, files, folder, indices)
        with pickle_policy(allowed=allow_pickle):
            for index, name in indices.items():
                try:
                    components[name].load_state(component_path(folder, index, name))
                except Exception as error:
                    error.add_note(f"while loading the component {name!r} from the state {reader.record.state!r}")
                    raise
    return names


def _names_to_load(
    manifest: Manifest, components: Mapping[str, PersistentState], wanted: list[str] | None
) -> list[str]:
    for name in wanted or ():
        if name not in components:
            raise ComponentNotFoundError(
                f"no component is registered as {name!r}; registered are: {', '.join(components) or 'none'}"
            )
    names = [name for name in components if wanted is None or name in wanted]
    missing = [name for name in names if name not in manifest.components]
    if missing:
        raise ComponentNotFoundError(
            f"the state {manifest.state!r} has no component {missing[0]!r}, it has: "
            f"{', '.join(manifest.components) or 'none'}. Load the others with components=[…]"
        )
    left_over = [name for name in manifest.components if name not in components]
    if left_over and wanted is None:
        raise ComponentNotFoundError(
            f"the state {manifest.state!r} has the component {left_over[0]!r}, which is not registered: "
            "register it, or say with components=[…] what to load"
        )
    return names


def _refuse_pickles(state: str, files: list[FileEntry]) -> None:
    for file in files:
        if file.needs_allow_pickle:
            raise PickleNotAllowedError(
                f"the file {file.path!r} of the state {state!r} holds pickles, which run code when they are loaded: if "
                "you trust everybody who can write to the store, make it with allow_pickle=True"
            )


def _fetch(reader: StateReader, files: list[FileEntry], folder: Path, indices: Mapping[int, str]) -> None:
    try:
        for index in indices:
            (folder / str(index)).mkdir()
        for directory in reader.manifest.directories:
            if directory.component in indices:
                (folder / str(directory.component) / directory.path).mkdir(parents=True, exist_ok=True)
        reader.restore(files, lambda file: folder / str(file.component) / file.path)
    except OSError as error:
        if isinstance(error, StateVaultError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StagingSpaceError(
            f"the state {reader.record.state!r} did not fit into {folder}: {error}. Free some room, or name another "
            "folder with staging_dir="
        ) from error
