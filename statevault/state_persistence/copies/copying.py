"""Copying committed states from one store to another.

A copy is a save whose files are read from another store: it is published by the same steps (``docs/format.md``,
section 5), so that a copy that dies half-way leaves what a save that died leaves. What a copy keeps of its state:
all files, bit for bit and under the same digests, empty folders, flags, the components and their order, the instant,
the writer, the metadata, and the name where it is free. What is the target's own: the sequence, and so the order, in
which states come as they are copied; what they share with other states there; and the pins.

By what it keeps a copy is known again: a state is not copied where one of the same writer and instant, with the same
components, sizes and metadata, is visible. That makes copying resumable, without a record of its own.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.copies.source_file import Source
from statevault.state_persistence.publish.commit import SaveRequest, commit_snapshot
from statevault.state_persistence.publish.names import StateNames
from statevault.state_persistence.publish.reuse import Base
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.restore.download import StateReader
from statevault.state_persistence.snapshot.snapshot import Snapshot
from statevault.storage import Storage
from statevault.worker_pool import WorkerPool

__all__ = ["CopiedState", "CopyReport", "CopySide", "copy_states"]

_logger = logging.getLogger(__name__)
_CONCURRENT_READS = 8


class CopySide(NamedTuple):
    """The store at one end of a copy.

    Attributes:
        storage: Its objects.
        catalog: Its states.
        writer: Who writes there.
    """

    storage: Storage
    catalog: Catalog
    writer: str


@dataclass(frozen=True, slots=True)
class CopiedState:
    """What became of a state that was to be copied.

    Attributes:
        state: Its name in the source.
        outcome: ``"copied"``; ``"present"``: the target has it; ``"damaged"`` in the source, so that it was not
            copied; ``"pruned"``: it was removed from the source meanwhile.
        target: Its name in the target, None if it is not there.
        size: Bytes of its files; 0 if that is not known.
        uploaded: Bytes that were put for them: not those that the target had already.
        error: What is damaged, or how it went.
    """

    state: str
    outcome: Literal["copied", "present", "damaged", "pruned"]
    target: str | None = None
    size: int = 0
    uploaded: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What became of the states that were to be copied.

    Attributes:
        states: One for each, oldest first.
    """

    states: tuple[CopiedState, ...]

    @property
    def copied(self) -> tuple[CopiedState, ...]:
        """Those that are in the target now."""
        return self._those("copied")

    @property
    def present(self) -> tuple[CopiedState, ...]:
        """Those that were in the target already."""
        return self._those("present")

    @property
    def damaged(self) -> tuple[CopiedState, ...]:
        """Those that are damaged in the source."""
        return self._those("damaged")

    @property
    def pruned(self) -> tuple[CopiedState, ...]:
        """Those that were removed from the source meanwhile."""
        return self._those("pruned")

    @property
    def uploaded(self) -> int:
        """Bytes that were put in all."""
        return sum(state.uploaded for state in self.states)

    def _those(self, outcome: str) -> tuple[CopiedState, ...]:
        return tuple(state for state in self.states if state.outcome == outcome)


def copy_states(
    source: CopySide,
    target: CopySide,
    keys: Sequence[StateKey],
    *,
    on_progress: Callable[[int], None] | None = None,
    on_state: Callable[[CopiedState], None] | None = None,
) -> CopyReport:
    """Copy states.

    Args:
        source: Where they are.
        target: Where they are to be; need not be a store yet.
        keys: Which, oldest first.
        on_progress: Called with the number of bytes of the states' files that were done with since the last call, by
            several threads.
        on_state: Called after each state.

    Raises:
        StorageError: One of the two storages failed. What was copied stays: call again to go on.
        FormatError: One of the two is not a store, or of a newer version.
        InvalidNameError: A state's name is too long for the suffix that it would need.
        SaveFencedError: Again and again a prune of the target took this process for dead.
    """
    source.catalog.records(keys)  # several at once; what is wrong with one is said when its turn comes
    with WorkerPool(_CONCURRENT_READS, "statevault-copy") as readers:
        copier = _Copier(source, target, readers, on_progress or (lambda count: None))
        states = []
        for key in keys:
            states.append(copier.copy(key))
            if on_state is not None:
                on_state(states[-1])
    return CopyReport(tuple(states))


class _Copier:
    """Copies one state after the other, and remembers what the target has of them."""

    def __init__(
        self, source: CopySide, target: CopySide, readers: WorkerPool, on_progress: Callable[[int], None]
    ) -> None:
        self._source = source
        self._target = target
        self._readers = readers
        self._on_progress = on_progress
        self._present: dict[str, StateKey] = {}
        for record in target.catalog.records(target.catalog.listing().visible):
            if not isinstance(record, CorruptStateError):
                self._present[_identity(record)] = StateKey(record.sequence, record.state)
        # Where in the target the states are that were looked at, by their name in the source; the last one last.
        self._placed: dict[str, StateKey] = {}
        self._last: Base | None = None

    def copy(self, key: StateKey) -> CopiedState:
        try:
            record = self._source.catalog.record(key)
            if (there := self._present.get(_identity(record))) is not None:
                self._place(key.state, there)
                self._on_progress(record.size)
                return CopiedState(key.state, "present", there.state, record.size)
            reader = StateReader(self._source.storage, self._source.catalog, record)
        except (CorruptStateError, StatePrunedError) as error:
            return _failed(key, error)
        progress = _Progress(record.size, self._on_progress)
        source = Source(reader, self._readers, progress.advance)
        try:
            return self._publish(source)
        except Exception as error:
            if not source.failures:
                raise
            _logger.debug("copying %s ended with: %r", key.state, error)
            return _failed(key, source.failures[0])
        finally:
            progress.finish()

    def _publish(self, source: Source) -> CopiedState:
        record, manifest = source.reader.record, source.reader.manifest
        snapshot = Snapshot(
            created_at=record.created_at,
            components=tuple(manifest.components),
            files=source.files(),
            directories=tuple((entry.component, entry.path) for entry in manifest.directories),
        )
        request = SaveRequest(
            snapshot=snapshot,
            name=None,
            writer=self._target.writer,
            author=record.writer,
            metadata=record.metadata,
            find_base=lambda listing: self._base(record, listing),
        )
        # A name is a format without anything to fill in: it is taken as it is, or given a suffix.
        names = StateNames(record.state)
        made, self._last = commit_snapshot(self._target.storage, self._target.catalog, names, request)
        place = StateKey(made.sequence, made.state)
        self._present[_identity(made)] = place
        self._place(record.state, place)
        return CopiedState(record.state, "copied", made.state, made.size, made.new_size)

    def _place(self, state: str, key: StateKey) -> None:
        self._placed.pop(state, None)
        self._placed[state] = key

    def _base(self, record: CommitRecord, listing: Listing) -> Base | None:
        """What of the target probably has most of a state's chunks.

        Its own base, or the state before it, which share chunks with it in the source; or else the target's newest.
        """
        visible = listing.visible
        own = None if record.base is None else self._placed.get(record.base)
        before = next(reversed(self._placed.values()), None)
        for key in dict.fromkeys((own, before, visible[-1] if visible else None)):
            if key is None or key not in visible:
                continue
            if self._last is not None and self._last.key == key and self._last.is_still_there(listing):
                return self._last
            try:
                found = self._target.catalog.record(key)
                return Base.read(StateReader(self._target.storage, self._target.catalog, found))
            except (CorruptStateError, StatePrunedError) as error:
                _logger.warning("%s; its chunks are not used", error)
        return None


class _Progress:
    """Counts the bytes of one state: those of a put that is tried again once, those that the target has at the end."""

    def __init__(self, size: int, on_progress: Callable[[int], None]) -> None:
        self._left = size
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            count = min(count, self._left)
            self._left -= count
        self._on_progress(count)

    def finish(self) -> None:
        self.advance(self._left)


def _failed(key: StateKey, error: CorruptStateError | StatePrunedError) -> CopiedState:
    _logger.info("%s was not copied: %s", key.state, error)
    outcome: Literal["damaged", "pruned"] = "damaged" if isinstance(error, CorruptStateError) else "pruned"
    return CopiedState(key.state, outcome, error=str(error))


def _identity(record: CommitRecord) -> str:
    """What a copy has in common with its state, and no other state has."""
    what = (
        record.created_at.isoformat(),
        record.writer,
        record.components,
        record.files,
        record.size,
        record.metadata,
    )
    return json.dumps(what, sort_keys=True)
