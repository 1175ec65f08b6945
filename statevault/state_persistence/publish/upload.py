"""The data objects of a state: what is new of its files, put, and looked at when it is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from statevault.errors import StateExistsError, StorageError
from statevault.format.keys import folder_of, state_prefix
from statevault.format.manifest import DirectoryEntry, FileEntry, ObjectEntry, file_flags
from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.state_persistence.publish.file_body import FileBody
from statevault.state_persistence.publish.new_objects import NewObject, plan_objects
from statevault.state_persistence.publish.object_names import object_names
from statevault.state_persistence.publish.reuse import Base, worth_reusing
from statevault.state_persistence.snapshot.snapshot import Snapshot
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import WorkerPool, results_of

__all__ = ["LostUploadError", "StateContent", "check_objects", "object_keys", "upload_files"]

_logger = logging.getLogger(__name__)
_CONCURRENT_FILES = 8
_CONCURRENT_BIG_OBJECTS = 1
_BIG_OBJECT = 8 * 1024**2


class LostUploadError(StorageError):
    """What was put is not there."""


@dataclass(frozen=True, slots=True)
class StateContent:
    """What a manifest says of the data of a state.

    Attributes:
        objects: All objects that its chunks lie in, the new ones first.
        files: Its files; indices of chunks are into `objects`.
        directories: Its folders without files.
        new: The objects that were uploaded for it.
        reuses: Names of the other states in whose folders some of the objects lie, sorted.
        reused: Its objects that lie there, as LISTs have told.
    """

    objects: list[ObjectEntry]
    files: list[FileEntry]
    directories: list[DirectoryEntry]
    new: list[ObjectEntry]
    reuses: list[str]
    reused: dict[str, ObjectInfo]

    @property
    def new_size(self) -> int:
        """Bytes that were uploaded."""
        return sum(entry.size for entry in self.new)


def upload_files(
    storage: Storage,
    state: str,
    snapshot: Snapshot,
    base: Base | None = None,
    *,
    base_is_gone: Callable[[], bool] = lambda: False,
    compression: Compression = Compression.ZSTD,
) -> StateContent:
    """Put what is new of the files of a snapshot, several at once.

    Args:
        storage: Where.
        state: The name of the state.
        snapshot: What.
        base: Whose chunks need not be uploaded again.
        base_is_gone: Looks whether it was removed, once it is known that something of it is of use.
        compression: What is done to chunks where it pays.

    Raises:
        InvalidNameError: Two files can't be stored beside each other.
        StorageError: A put failed.
    """
    with (
        WorkerPool(os.cpu_count() or 1, "statevault-encode") as encoders,
        WorkerPool(_CONCURRENT_BIG_OBJECTS, "statevault-upload-big") as big,
        WorkerPool(_CONCURRENT_FILES, "statevault-upload") as small,
        WorkerPool(_CONCURRENT_FILES, "statevault-gather") as gatherers,
    ):
        files = [FileBody(file, encoders) for file in snapshot.files if file.size]
        reused = _reuse(storage, files, base, base_is_gone, small)
        names = object_names(file.logical_path for file in snapshot.files)
        objects = plan_objects(state, files, names, gatherers, compression=compression)
        # The last object to end should not be the longest.
        objects.sort(key=lambda planned: planned.size, reverse=True)

        def upload(planned: NewObject) -> ObjectEntry:
            return ObjectEntry(planned.key, storage.put(planned.key, planned))

        # A big object is sent in several large parts at once, so that one of them fills the wire, and the memory.
        pools = (big if planned.size >= _BIG_OBJECT else small for planned in objects)
        new = results_of(pool.submit(upload, planned) for pool, planned in zip(pools, objects, strict=True))
    return _content(snapshot, files, objects, new, reused)


def _content(
    snapshot: Snapshot,
    files: list[FileBody],
    objects: list[NewObject],
    new: list[ObjectEntry],
    reused: Mapping[int, ObjectInfo],
) -> StateContent:
    """Say where everything lies, once it was put."""
    own = _places(objects)
    reused_at = {index: len(new) + place for place, index in enumerate(reused)}
    chunks = {
        body.file.logical_path: body.chunks(*own.get(body.file.logical_path, (0, 0)), reused=reused_at)
        for body in files
    }
    return StateContent(
        objects=[*new, *(ObjectEntry(info.key, info.size) for info in reused.values())],
        files=[
            FileEntry(
                file.component,
                file.logical_path,
                file.size,
                file_flags(
                    holds_pickle=file.holds_pickle,
                    needs_allow_pickle=file.needs_allow_pickle,
                    may_be_held=file.may_be_held,
                ),
                chunks.get(file.logical_path, []),
            )
            for file in snapshot.files
        ],
        directories=[DirectoryEntry(component, path) for component, path in snapshot.directories],
        new=new,
        reuses=sorted({folder_of(info.key) for info in reused.values()}),
        reused={info.key: info for info in reused.values()},
    )


def _places(objects: Iterable[NewObject]) -> dict[str, tuple[int, int]]:
    """For each file, by logical path: the index of the object with its new chunks, and where they begin in it."""
    places = {}
    for index, planned in enumerate(objects):
        start = 0
        for body in planned.files:
            places[body.file.logical_path] = (index, start)
            start += body.put_size
    return places


def _reuse(
    storage: Storage,
    files: list[FileBody],
    base: Base | None,
    base_is_gone: Callable[[], bool],
    pool: WorkerPool,
) -> dict[int, ObjectInfo]:
    """Find what the base has of the files: its objects that are referred to, as LISTs tell, by their index there."""
    wanted = [] if base is None else [chunk for body in files for chunk in body.find(base.chunks)]
    if base is None or not wanted:
        return {}
    folders = {folder_of(base.objects[chunk.object].key) for chunk in wanted}
    # Looks that need not wait for each other, far from the storage.
    gone = pool.submit(base_is_gone)
    listings = pool.map_all(lambda folder: list(storage.list(state_prefix(folder))), sorted(folders))
    found = {info.key: info for listing in listings for info in listing}
    if gone.result():
        _logger.info("%s was removed meanwhile: what it has is uploaded again", base.key.state)
        intact = set()
    else:
        intact = _intact(storage, base, {chunk.object for chunk in wanted}, found)
    chosen = worth_reusing(base.objects, (chunk for chunk in wanted if chunk.object in intact))
    for body in files:
        body.reuse_only(chosen)
    return {index: found[base.objects[index].key] for index in sorted(chosen)}


def _intact(storage: Storage, base: Base, indices: set[int], found: Mapping[str, ObjectInfo]) -> set[int]:
    """The objects of the base that are there in full, as their folders are listed.

    No prune takes them while the session is there, but people and rules of a bucket may have: a state must not be
    acknowledged that refers to nothing.
    """
    intact = {index for index in indices if base.holds(index, found)}
    for index in sorted(indices - intact):
        key, size = base.objects[index]
        if key not in found:
            what = "lost"
        elif found[key].size != size:
            what = f"cut to {found[key].size} bytes"
        else:
            what = "another one than was put"
        _logger.warning(
            "%s of %s is %s: %s and older states that need it are damaged; what is still known of it is uploaded again",
            key,
            storage.url,
            what,
            base.key.state,
        )
    return intact


def object_keys(state: str, snapshot: Snapshot) -> list[str]:
    """All keys under which :func:`upload_files` may have put data of a snapshot."""
    names = object_names(file.logical_path for file in snapshot.files)
    return [key for file in snapshot.files if file.size for key in names[file.logical_path].all_keys(state)]


def check_objects(storage: Storage, state: str, content: StateContent, *, ignored: str = "") -> dict[str, ObjectInfo]:
    """Compare what :func:`upload_files` has put with what is there. A backend that lies must not get a commit marker.

    Args:
        storage: Where.
        state: The name of the state.
        content: What was put.
        ignored: A key of which nothing is known.

    Returns:
        What the LIST tells of the objects that were put.

    Raises:
        StateExistsError: Something else lies in the state's folder: another writer's, or somebody's own.
        LostUploadError: Something is missing, or of another size.
    """
    found = {info.key: info for info in storage.list(state_prefix(state))}
    found.pop(ignored, None)
    own = {}
    for entry in content.new:
        info = found.pop(entry.key, None)
        if info is not None and info.size == entry.size:
            own[entry.key] = info
        else:
            raise LostUploadError(
                f"uploaded {entry.key} to {storage.url} with {entry.size} bytes, but the listing shows none or another "
                "size",
                transient=True,
                url=storage.url,
                key=entry.key,
            )
    if found:
        raise StateExistsError(
            f"{next(iter(found))} is in the folder of the new state {state!r} in {storage.url} and not of it: another "
            "writer uses the name, or the folder is somebody's own. Take another name"
        )
    return own
