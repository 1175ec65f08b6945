"""What must hold of a store after every step, checked on the objects themselves, by none of the code under test but the
decoding of records and manifests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from statevault.codecs import decompress_chunk, digest
from statevault.format.keys import (
    COMMITS,
    PINS,
    SESSIONS,
    TOMBSTONES,
    VAULT,
    StateKey,
    commit_key,
    manifest_key,
    parse_state_keys,
    tombstone_key,
)
from statevault.format.manifest import ENCODING_ZSTD, Manifest
from statevault.format.records import CommitRecord, TombstoneRecord
from tests.simulation.scheduler import Scheduler
from tests.simulation.storage import Objects
from tests.state_persistence.components import Files

__all__ = ["CONTENT", "Invariants"]

CONTENT = "content"
"""The key of a state's metadata that tells which content it must have."""


@dataclass(slots=True)
class _Seen:
    """A state that was visible at some time.

    Attributes:
        key: Its place in the order of states.
        content: The number of its content.
        writer: Who saved it.
        since: The step from which on it was visible.
        gone_at: The step at which it was removed.
        needed: What it needs, with the bytes that it needs.
    """

    key: StateKey
    content: int
    writer: str
    since: int
    gone_at: int | None = None
    needed: dict[str, bytes] = field(default_factory=dict)


class Invariants:
    """Follows one store, and notes what must not be.

    Attributes:
        seen: All states that were ever visible, by name.
        contents: What was saved, by number.
        acknowledged: The states of which a save returned.
        removable: The states that somebody asked to remove.
        pinned: The pins that hold, by the name of their state.
        any_given_up: Whether a state was removed before it was there: its writer failed, or was taken for dead.
    """

    def __init__(self, objects: Objects, scheduler: Scheduler, contents: list[Files]) -> None:
        self.objects = objects
        self.contents = contents
        self.seen: dict[str, _Seen] = {}
        self.acknowledged: dict[str, StateKey] = {}
        self.removable: set[str] = set()
        self.pinned: defaultdict[str, set[str]] = defaultdict(set)
        self.any_given_up = False
        self._scheduler = scheduler
        self._commits: defaultdict[str, set[int]] = defaultdict(set)
        self._tombstones: defaultdict[str, set[int]] = defaultdict(set)
        self._needed_by: defaultdict[str, set[str]] = defaultdict(set)
        # Data of a writer that lived on when the tombstone of its state was collected for its age, since a clock had
        # jumped by a week: waste that no record names any more (docs/format.md, section 7, "Age").
        self._too_late: set[str] = set()

    # -- what actors tell

    def acknowledge(self, state: str, sequence: int, after: StateKey | None) -> None:
        """A save returned; it began when `after` was the last one that had returned."""
        key = StateKey(sequence, state)
        if state in self.acknowledged:
            self._violated(f"{state} was saved twice")
        if after is not None and key < after:
            self._violated(f"{key} was saved after {after}, and sorts before it")
        self.acknowledged[state] = key
        if not self.is_visible(state) and state not in self.removable:
            self._violated(f"{state} was acknowledged, and is not visible")

    @property
    def last_acknowledged(self) -> StateKey | None:
        """The last in the order of states of those that were acknowledged."""
        return max(self.acknowledged.values(), default=None)

    def pin_holds(self, state: str, pin: str) -> None:
        """A pin returned."""
        self.pinned[state].add(pin)
        if not self.is_visible(state):
            self._violated(f"{state} was pinned, and is not visible")

    def check_loaded(self, state: str, files: Files, since: int) -> None:
        """A load returned: what it gave must be exactly one state that was visible meanwhile."""
        self._check_was_visible(state, since)
        if files != self.contents[self.seen[state].content]:
            self._violated(f"{state} was loaded with other content than was saved")

    def check_latest(self, state: str | None, since: int) -> None:
        """The newest state was asked for, from step `since` on."""
        if state is not None:
            self._check_was_visible(state, since)
        key = StateKey(0, "") if state is None else self.seen[state].key
        newer = [other for other in self.seen.values() if other.key > key and _throughout(other, since)]
        if newer:
            self._violated(f"the latest was said to be {state}, and {newer[0].key.state} was there all the time")

    def check_listed(self, states: list[str], since: int) -> None:
        """A listing returned: all that was there all the time is in it, nothing that never was, in order."""
        for state in states:
            self._check_was_visible(state, since)
        keys = [self.seen[state].key for state in states]
        if keys != sorted(keys):
            self._violated(f"a listing is out of order: {keys}")
        missing = {name for name, seen in self.seen.items() if _throughout(seen, since)} - set(states)
        if missing:
            self._violated(f"a listing lacks {missing}, which was there all the time")

    def check_gone(self, state: str) -> None:
        """A state was said to have been removed."""
        if self.is_visible(state):
            self._violated(f"{state} was said to be removed, and is visible")

    # -- what happened in the store

    def is_visible(self, state: str) -> bool:
        """Whether a state is there."""
        return bool(self._commits.get(state)) and not self._tombstones.get(state)

    @property
    def visible(self) -> list[StateKey]:
        """All states that are there, in order."""
        return sorted(seen.key for seen in self.seen.values() if seen.gone_at is None)

    def look(self) -> None:
        """Check what changed since the last look."""
        changed = self.objects.changed
        while changed:
            key = changed.pop(0)
            if key.startswith(COMMITS):
                self._records(self._commits, key, COMMITS)
            elif key.startswith(TOMBSTONES):
                self._records(self._tombstones, key, TOMBSTONES)
            elif self._tombstones.get(key.partition("/")[0]) == set():
                self._too_late.add(key)
            for state in self._needed_by.get(key, ()):
                if self.objects.content.get(key) != self.seen[state].needed[key]:
                    self._violated(f"{state} is visible, and {key}, which it needs, was taken away or replaced")

    def check_rest(self) -> None:
        """When all has come to rest and was collected: what visible states need is there, and nothing else."""
        visible = {key.state for key in self.visible}
        needed = {key for state in visible for key in self.seen[state].needed if not key.startswith(VAULT)}
        data = {key for key in self.objects.content if not key.startswith(VAULT)}
        if data - self._too_late != needed:
            self._violated(f"garbage was left: {sorted(data - needed)}")
        if left := self.objects.keys(SESSIONS):
            self._violated(f"sessions were left: {left}")
        if dead := {state for state, sequences in self._commits.items() if sequences} - visible:
            self._violated(f"markers of dead states were left: {dead}")
        if pins := [key for key in self.objects.keys(PINS) if key.split("/")[2] not in visible]:
            self._violated(f"pins of dead states were left: {pins}")
        for state in visible & self.pinned.keys():
            for pin in self.pinned[state]:
                if not any(key.startswith(f"{PINS}{state}/{pin}.") for key in self.objects.content):
                    self._violated(f"the pin {pin} of {state} has gone")

    def _records(self, records: defaultdict[str, set[int]], key: str, prefix: str) -> None:
        ((sequence, state),) = parse_state_keys([key], prefix)
        if key in self.objects.content:
            records[state].add(sequence)
        else:
            records[state].discard(sequence)
        seen = self.seen.get(state)
        if seen is None and self._tombstones.get(state):
            self.any_given_up = True
        if self.is_visible(state):
            if seen is None:
                self._appeared(StateKey(min(self._commits[state]), state))
            elif seen.gone_at is not None and sequence > seen.key.sequence:
                # Its tombstone was collected, and nothing was left of it: the name is free.
                self.acknowledged.pop(state, None)
                self.removable.discard(state)
                self._appeared(StateKey(sequence, state))
            elif seen.gone_at is not None:
                self._violated(f"{state} was removed, and is visible again")
            elif len(self._commits[state]) > 1:
                self._violated(f"{state} has two places in the order of states: {self._commits[state]}")
        elif seen is not None and seen.gone_at is None:
            self._went(state, seen)

    def _appeared(self, key: StateKey) -> None:
        """Decode a state that has become visible, and compare it with what was saved."""
        marker = self.objects.content[commit_key(*key)]
        record = CommitRecord.from_json(marker, where=key.state)
        content = record.metadata[CONTENT]
        assert isinstance(content, int)
        seen = self.seen[key.state] = _Seen(key, content, record.writer, self._scheduler.steps)
        packed = self.objects.content.get(manifest_key(key.state))
        if packed is None:
            self._violated(f"{key.state} is visible without its manifest")
            return
        if digest(packed).hex() != record.manifest.digest:
            self._violated(f"{key.state} is visible with another manifest than its marker says")
            return
        manifest = Manifest.unpack(decompress_chunk(packed, size=record.manifest.size), where=key.state)
        lost = [entry for entry in manifest.objects if len(self.objects.content.get(entry.key, b"")) != entry.size]
        if lost:
            self._violated(f"{key.state} is visible without {lost[0].key}")
            return
        files: Files = {}
        for file in manifest.files:
            chunks = []
            for chunk in file.chunks:
                whole = self.objects.content[manifest.objects[chunk.object].key]
                stored = whole[chunk.offset : chunk.offset + chunk.stored]
                chunks.append(decompress_chunk(stored, size=chunk.size) if chunk.encoding == ENCODING_ZSTD else stored)
            files[file.path.partition("/")[2]] = b"".join(chunks)
        if files != self.contents[content]:
            self._violated(f"{key.state} is visible with other content than was saved")
        keys = [commit_key(*key), manifest_key(key.state), *(entry.key for entry in manifest.objects)]
        seen.needed = {needed: self.objects.content[needed] for needed in keys}
        for needed in keys:
            self._needed_by[needed].add(key.state)

    def _went(self, state: str, seen: _Seen) -> None:
        seen.gone_at = self._scheduler.steps
        for key in seen.needed:
            self._needed_by[key].discard(state)
        if not self._tombstones.get(state):
            self._violated(f"the marker of {state} has gone without a tombstone")
        if state in self.acknowledged and state not in self.removable:
            self._violated(f"{state} was acknowledged, and was removed though nobody asked for it")
        if self.pinned.get(state) and not self._is_given_up(seen):
            self._violated(f"{state} was removed in spite of its pins {sorted(self.pinned[state])}")

    def _is_given_up(self, seen: _Seen) -> bool:
        """Whether a state was removed by its own writer, who had told nobody that it is safe: it took too long."""
        tombstone = self.objects.content.get(tombstone_key(*seen.key))
        if tombstone is None or seen.key.state in self.acknowledged:
            return False
        return TombstoneRecord.from_json(tombstone, where=seen.key.state).by == seen.writer

    def _check_was_visible(self, state: str, since: int) -> None:
        seen = self.seen.get(state)
        if seen is None:
            self._violated(f"{state} was told of, and was never visible")
            self.seen[state] = _Seen(StateKey(0, state), 0, "", 0, 0)
        elif seen.gone_at is not None and seen.gone_at < since:
            self._violated(f"{state} was told of, long after it was removed")

    def _violated(self, what: str) -> None:
        self._scheduler.violated(what)


def _throughout(seen: _Seen, since: int) -> bool:
    return seen.since < since and seen.gone_at is None
