"""Which chunks of an earlier state a new one refers to instead of uploading them again (``docs/format.md``, section 4).

Pure: a :class:`Base` is what the manifest of a committed state says, and :func:`worth_reusing` decides over numbers.

References never form chains: a manifest names the objects themselves, in whichever state's folder they lie. What
could grow without bound is bounded here: the dead bytes that references keep alive, and the folders they point into.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Self

from statevault.format.keys import StateKey, commit_key, folder_of
from statevault.format.manifest import Chunk, Manifest, ObjectEntry
from statevault.state_persistence.records.catalog import Listing
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import ObjectInfo

__all__ = [
    "LOOKED_AT_FIRST",
    "MANY_CHUNKS",
    "MAX_DEAD_RATIO",
    "MAX_FOLDERS",
    "Base",
    "looked_at_first",
    "worth_reusing",
]

# Not the global generator, which is the agent's.
_OWN_RANDOM = random.SystemRandom()
MAX_DEAD_RATIO = 2.0
"""The objects that a state refers to are at most so many times as large as what it needs of them."""
MAX_FOLDERS = 128
"""A state refers into the folders of at most so many others."""
MANY_CHUNKS = 256
"""Of a file with so many chunks not all are looked at, unless that is worth it."""
LOOKED_AT_FIRST = 64
"""So many places of it are looked at to find that out."""


@dataclass(frozen=True, slots=True)
class Base:
    """A committed state whose chunks may be reused, as long as it is what it was (``docs/format.md``, section 13).

    Attributes:
        key: The state.
        objects: The objects that its chunks lie in, in its own folder or in those of older states.
        chunks: Its chunks by their digest. Equal digests mean equal bytes: BLAKE3 is collision resistant.
        ids: What its store was known by.
        marker: Its commit marker, as a LIST had told before it was read; None where it was not read.
        seen: Its objects, as LISTs have told behind their put; none where they were not put by this process.
    """

    key: StateKey
    objects: tuple[ObjectEntry, ...]
    chunks: dict[bytes, Chunk]
    ids: frozenset[str]
    marker: ObjectInfo | None
    seen: Mapping[str, ObjectInfo]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        ids: frozenset[str],
        marker: ObjectInfo | None = None,
        seen: Mapping[str, ObjectInfo] = MappingProxyType({}),
    ) -> Self:
        """What the manifest of a committed state offers."""
        chunks: dict[bytes, Chunk] = {}
        for file in manifest.files:
            for chunk in file.chunks:
                chunks.setdefault(chunk.digest, chunk)
        key = StateKey(manifest.sequence, manifest.state)
        return cls(key, tuple(manifest.objects), chunks, ids, marker, seen)

    @classmethod
    def read(cls, reader: StateReader) -> Self:
        """What a state offers that was read."""
        return cls.of(reader.manifest, ids=reader.ids, marker=reader.marker)

    def is_still_there(self, listing: Listing) -> bool:
        """Whether it is visible, in the store in which it was known, with the marker that was read."""
        if self.ids and self.ids.isdisjoint(listing.ids):
            return False
        if self.marker is not None and listing.objects.get(commit_key(*self.key)) != self.marker:
            return False
        return self.key in listing.visible

    def holds(self, index: int, found: Mapping[str, ObjectInfo]) -> bool:
        """Whether one of its objects is there in full, by what LISTs tell, as it was when the state was committed."""
        entry = self.objects[index]
        info = found.get(entry.key)
        if info is None or info.size != entry.size:
            return False
        if entry.key in self.seen:
            return self.seen[entry.key] == info
        # Whatever was stored after the marker is another store's, which somebody has copied over this one.
        committed = None if self.marker is None else self.marker.modified
        return committed is None or info.modified is None or info.modified <= committed


def looked_at_first(sizes: Sequence[int]) -> list[int]:
    """Which chunks of a file tell whether it is worth to look at all of them.

    Those at a few places of a large file, others each time. The more of its bytes are unchanged, the less likely is it
    that none of these is: what is sent in vain is 0.6 % of the file on the average where that is worst, which is where
    1.6 % of it are unchanged.

    Args:
        sizes: That of each chunk, in bytes.

    Returns:
        Their numbers, ascending; all of them, unless there are many.
    """
    if len(sizes) < MANY_CHUNKS:
        return list(range(len(sizes)))
    # By places, so that bytes count and not chunks. The first chunk of a tree holds its structure, which is small and
    # seldom changes: it tells nothing of the rest.
    ends = list(accumulate(sizes))
    places = (_OWN_RANDOM.randrange(ends[0], ends[-1]) for _ in range(LOOKED_AT_FIRST))
    return sorted({bisect_right(ends, place) for place in places})


def worth_reusing(objects: tuple[ObjectEntry, ...], wanted: Iterable[Chunk]) -> set[int]:
    """Choose the objects whose chunks are referred to; what is wanted of the others is uploaded again.

    As a log-structured file system cleans the segments with the least live data first (Rosenblum and Ousterhout,
    1991): an object is kept alive as a whole, so references to few bytes of it make the rest of it dead weight.

    Args:
        objects: Those of the base.
        wanted: The chunks of the base that the new state has as well; any of them several times.

    Returns:
        Indices into `objects`. They lie in at most :data:`MAX_FOLDERS` folders, and their sizes add up to at most
        :data:`MAX_DEAD_RATIO` times what is wanted of them.
    """
    live: dict[int, int] = {}
    for index, _, stored in {(chunk.object, chunk.offset, chunk.stored) for chunk in wanted}:
        live[index] = live.get(index, 0) + stored
    chosen = _in_few_folders(objects, live)
    kept = sum(objects[index].size for index in chosen)
    needed = sum(live[index] for index in chosen)
    for index in sorted(chosen, key=lambda index: live[index] / objects[index].size):
        if kept <= MAX_DEAD_RATIO * needed:
            break
        chosen.remove(index)
        kept -= objects[index].size
        needed -= live[index]
    return chosen


def _in_few_folders(objects: tuple[ObjectEntry, ...], live: dict[int, int]) -> set[int]:
    """Leave out the folders with the least live bytes, where there are too many.

    Half of them go at once, so that it need not be done at each save: what is gathered into the new state's own folder
    is the smallest, and the large ones stay where they are.
    """
    folders: dict[str, int] = {}
    for index, size in live.items():
        folder = folder_of(objects[index].key)
        folders[folder] = folders.get(folder, 0) + size
    if len(folders) <= MAX_FOLDERS:
        return set(live)
    largest = set(sorted(folders, key=lambda folder: -folders[folder])[: MAX_FOLDERS // 2])
    return {index for index in live if folder_of(objects[index].key) in largest}
