"""The writer of a state: steps 1 to 7 of a save (``docs/format.md``, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from tests.protocol.explorer import AnyOf, Claim, Key, Program, Task, then
from tests.protocol.store import Await, Delete, Find, Put, identity, manifest_of, marker, objects_of, session, tombstone

__all__ = ["Writer"]

_TRIES_OF_MARKER = 2


@dataclass(frozen=True)
class Writer:
    """One save.

    The LIST of the folders that are to be referred to (step 4) is left out: it is there for what others than
    statevault take away, and the protocol has to be safe without it.

    Attributes:
        state: What it saves.
        base: Whose objects it reuses, if that one is visible.
        fails: The answers to the PUTs of steps 2 and 4 may be lost: then it takes back what it can.
        unsure_marker: The answer to the PUT of step 5 may be lost.
        twice: Every PUT may land a second time, at any time later.
        remembers: The base's marker as it knows it from before, of the run without a mark.
        run: The mark of its run: what it puts has it in its content.
        awaits: It begins when this is there.
    """

    state: str
    base: str
    fails: bool = False
    unsure_marker: bool = False
    twice: bool = False
    remembers: Key | None = None
    run: str = ""
    awaits: Key | None = None

    def begin(self) -> Program:
        """Step 1."""
        if self.awaits is not None:
            yield Await(self.awaits)
        markers = yield Find("marker", self.of_base)
        ids = yield Find("id")
        dead = markers and (yield Find("tombstone", self.of_base))
        if not ids:
            yield Put(identity(self.run))
            if identity(self.run) not in (yield Find("id")):
                return then(None)  # what is not listed may lie there all the same
            # Only what is listed with an id is known to be of the store that has it.
            return self.again
        if not markers or dead:
            return then(self.announce, session(self.state, "", self.run), ids, frozenset())
        if self.remembers is not None and identity() in ids:
            return then(self.build_on, self.remembers, ids)
        return then(self.read_base, ids)

    def read_base(self, ids: frozenset[Key]) -> Program:
        """Step 1: GET the marker of the base, and its manifest. If it has gone, there is none."""
        markers = yield Find("marker", self.of_base)
        if not markers:
            return then(self.announce, session(self.state, "", self.run), ids, frozenset())
        (base,) = markers
        return then(self.build_on, base, ids)

    def build_on(self, base: Key, ids: frozenset[Key]) -> Program:
        """Step 1: all of the base but its manifest can be reused."""
        yield from ()
        reused = base.content - {manifest_of(base)}
        return then(self.announce, session(self.state, self.base, self.run), ids, reused)

    def announce(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        """Step 2."""
        answered = yield Put(own, twice=self.twice, unsure=self.fails)
        return then(self.look_for_base, own, ids, reused) if answered else then(None)

    def look_for_base(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        """Step 3."""
        if reused and (yield Find("tombstone", self.of_base)):
            reused = frozenset()
        return then(self.upload, own, ids, reused)

    def upload(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        """Step 4."""
        for key in objects_of(self.state, self.run):
            answered = yield Put(key, twice=self.twice, unsure=self.fails)
            if not answered:
                return then(self.take_back, own)
        return then(self.look_for_id, own, ids, reused)

    def look_for_id(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        """Step 4: is this still the store that step 1 has listed? If somebody has wiped it, the save begins again."""
        known = yield Find("id", begins=self.state)
        return self.again if ids.isdisjoint(known) else then(self.commit, own, reused)

    @property
    def again(self) -> Task:
        """To begin again, with nothing remembered."""
        return then(_forgetful(self).begin)

    def commit(self, own: Key, reused: frozenset[Key], tries: int = _TRIES_OF_MARKER) -> Program:
        """Step 5: after a lost answer, look; then again, or give up with an error and leave all as it is."""
        record = marker(self.state, {*objects_of(self.state, self.run), *reused})
        answered = yield Put(record, twice=self.twice, unsure=self.unsure_marker)
        if answered or (yield Find("marker", self.here)):
            return then(self.look_for_fences, own)
        return then(self.commit, own, reused, tries - 1) if tries > 1 else then(None)

    def look_for_fences(self, own: Key) -> Program:
        """Steps 6 and 7, whose calls are made at the same time."""
        return (yield from self.hear(own, frozenset({"abort", "tombstone", "session"}), is_fenced=False))

    def hear(self, own: Key, left: frozenset[str], is_fenced: bool) -> Program:
        """Steps 6 and 7, of whose calls some are left that have not been answered yet."""
        first, told = yield AnyOf(
            {kind: Delete(own) if kind == "session" else Find(kind, self.here) for kind in sorted(left)}
        )
        is_fenced |= first != "session" and bool(told)
        # What the other look says makes no difference any more.
        left = left & {"session"} - {first} if is_fenced else left - {first}
        if left:
            return then(self.hear, own, left, is_fenced)
        return then(None, claim=None if is_fenced else Claim("acknowledged", self.state + self.run))

    def end(self, own: Key) -> Program:
        """Step 7 alone, for those that leave something out of step 6."""
        yield Delete(own)
        return then(None, claim=Claim("acknowledged", self.state + self.run))

    def take_back(self, own: Key) -> Program:
        """What a save does that fails in step 4: the session goes last, while it is there a prune finds the rest."""
        for key in objects_of(self.state, self.run):
            yield Delete(key)
        yield Put(tombstone(self.state), twice=self.twice)
        yield Delete(own)
        return then(None)

    @property
    def here(self) -> frozenset[str]:
        """The state, as calls take it."""
        return frozenset({self.state})

    @property
    def of_base(self) -> frozenset[str]:
        """The base, as calls take it."""
        return frozenset({self.base})


@cache  # so that it is the same each time: a task is known by its actor
def _forgetful(writer: Writer) -> Writer:
    return replace(writer, remembers=None, awaits=None)
