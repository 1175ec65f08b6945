"""The writer of a state: steps 1 to 7 of a save (``docs/format.md``, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.explorer import AnyOf, Claim, Key, Program, then
from tests.protocol.store import Delete, Find, Put, marker, objects_of, session, tombstone

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
    """

    state: str
    base: str
    fails: bool = False
    unsure_marker: bool = False
    twice: bool = False

    def begin(self) -> Program:
        """Step 1."""
        markers = yield Find("marker", self.of_base)
        if not markers or (yield Find("tombstone", self.of_base)):
            return then(self.announce, session(self.state, ""), frozenset())
        (base,) = markers
        # The manifest of the base is its own; all else can be reused.
        return then(self.announce, session(self.state, self.base), base.content - {objects_of(self.base)[-1]})

    def announce(self, own: Key, reused: frozenset[Key]) -> Program:
        """Step 2."""
        answered = yield Put(own, twice=self.twice, unsure=self.fails)
        return then(self.look_for_base, own, reused) if answered else then(None)

    def look_for_base(self, own: Key, reused: frozenset[Key]) -> Program:
        """Step 3."""
        if reused and (yield Find("tombstone", self.of_base)):
            reused = frozenset()
        return then(self.upload, own, reused)

    def upload(self, own: Key, reused: frozenset[Key]) -> Program:
        """Step 4."""
        for key in objects_of(self.state):
            answered = yield Put(key, twice=self.twice, unsure=self.fails)
            if not answered:
                return then(self.take_back, own)
        return then(self.commit, own, reused)

    def commit(self, own: Key, reused: frozenset[Key], tries: int = _TRIES_OF_MARKER) -> Program:
        """Step 5: after a lost answer, look; then again, or give up with an error and leave all as it is."""
        record = marker(self.state, {*objects_of(self.state), *reused})
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
        return then(None, claim=None if is_fenced else Claim("acknowledged", self.state))

    def end(self, own: Key) -> Program:
        """Step 7 alone, for those that leave something out of step 6."""
        yield Delete(own)
        return then(None, claim=Claim("acknowledged", self.state))

    def take_back(self, own: Key) -> Program:
        """What a save does that fails in step 4: the session goes last, while it is there a prune finds the rest."""
        for key in objects_of(self.state):
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
