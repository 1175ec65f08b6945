"""The protocol with one step dropped or moved, each time another one.

For each the explorer finds what goes wrong: that is what the step is for. A mutant is an actor that overrides one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.protocol.explorer import Store
from tests.protocol.mutant_pinners import (
    LeavesFailedPin,
    LooksForFencesBeforeIntents,
    PutsPinLast,
    SharesPin,
    WithoutLookForAbort,
    WithoutLookForIntents,
    WithoutLookForTombstone,
)
from tests.protocol.mutant_pruners import (
    AbortAfterLook,
    BelievesInMemory,
    BreaksSession,
    ClearsAllSessions,
    ClearsBases,
    ClearsBeforeSweep,
    ClearsTombstones,
    ClearsWhatBasesReuse,
    ClearsWhatCameLate,
    GivesUpCommitted,
    IgnoresLostBase,
    IgnoresLostState,
    IgnoresSessions,
    IntentEndsAnyway,
    IntentEndsFirst,
    LeavesPins,
    ListsCommitsBeforeSessions,
    ListsFoldersOfMarkersOnly,
    ListsOwnFoldersOnly,
    ListsPinsFirst,
    ListsSessionsBeforeData,
    ListsSessionsBeforeTombstones,
    ListsTombstonesLast,
    ReadsManifestOfBase,
    SheltersOwnFolderOfBase,
    WithoutAbort,
    WithoutIntent,
    WithoutLookForIdBeforeDeletes,
    WithoutLookForIdBeforeTombstones,
    WithoutLookForIdOfVictims,
    WithoutPins,
)
from tests.protocol.mutant_readers import (
    DoesNotExplain,
    DoesNotLookAgain,
    IgnoresTombstones,
    ListsTombstonesFirst,
)
from tests.protocol.mutant_writers import (
    BelievesInMarker,
    BuildsOnWhatItRemembers,
    LooksForAbortOnly,
    LooksForFencesBeforeMarker,
    LooksForTombstoneOnly,
    MarkerBeforeData,
    NamedByContent,
    SessionAfterLook,
    SessionEndsBeforeMarker,
    TakesBackAfterMarker,
    TakesBackSessionFirst,
    TakesBackWithoutTombstone,
    WithoutListAfterId,
    WithoutLookForBase,
    WithoutLookForFences,
    WithoutLookForId,
    WithoutSession,
)
from tests.protocol.pinner import Pinner
from tests.protocol.protocol import Actor, Scenario
from tests.protocol.pruner import Pruner
from tests.protocol.scenarios import MEMORY, NEW_B, OLD_B
from tests.protocol.store import ANOTHER_RUN, committed, identity, objects_of
from tests.protocol.wiper import Wiper
from tests.protocol.writer import Writer

__all__ = ["HARMLESS", "MUTANTS", "Mutant"]

_B, _S = frozenset("B"), frozenset("S")
_B_AND_S = committed("B") | committed("S", objects_of("B")[0])


class Mutant(NamedTuple):
    """A setting in which a mutation shows, and what goes wrong there."""

    scenario: Scenario
    shows: str


_SAVE = Writer("S", "B")
_SAVE_ON_S = Writer("T", "S")
_PRUNE, _PRUNE_B, _PRUNE_S = Pruner("q"), Pruner("q", _B), Pruner("q", _S)
_STALE = Pruner("q", takes_for_dead=True)
_PIN_B = Pinner("n", "B")
_LOST, _UNPINNED = "is visible, and misses", "is pinned, and not visible"
_FORGOTTEN, _LEAK = "whose save was acknowledged, is not visible", "two prunes leave"


def _unsafe(shows: str, *, store: Store | None = None, **actors: Actor) -> Mutant:
    """One that does harm while all are at work."""
    return Mutant(Scenario(actors, store=committed("B") if store is None else store, tidies=None), shows)


def _leaks(shows: str, *, store: Store | None = None, tidies: type[Pruner] = Pruner, **actors: Actor) -> Mutant:
    """One that leaves something behind for good."""
    return Mutant(Scenario(actors, store=committed("B") if store is None else store, tidies=tidies), shows)


MUTANTS: Mapping[str, Mutant] = {
    "no session": _unsafe(_LOST, writer=WithoutSession("S", "B"), prune=_PRUNE_B),
    "session after the look for the base": _unsafe(_LOST, writer=SessionAfterLook("S", "B"), prune=_PRUNE_B),
    "no look for the base": _unsafe(_LOST, writer=WithoutLookForBase("S", "B"), prune=_PRUNE_B),
    "objects named by content": _unsafe(_LOST, writer=NamedByContent("S", "B"), prune=_PRUNE_B),
    "marker before data": _unsafe(_LOST, writer=MarkerBeforeData("S", "B")),
    "session deleted before the marker": _unsafe(_LOST, writer=SessionEndsBeforeMarker("S", "B"), prune=_PRUNE_B),
    "a lost answer taken for success": _unsafe(_FORGOTTEN, writer=BelievesInMarker("S", "B")),
    "no look for fences": _unsafe(_FORGOTTEN, writer=WithoutLookForFences("S", "B"), prune=_STALE),
    "fences looked for before the marker": _unsafe(
        _FORGOTTEN, writer=LooksForFencesBeforeMarker("S", "B"), prune=_STALE
    ),
    "only the tombstone looked for": _unsafe(_FORGOTTEN, writer=LooksForTombstoneOnly("S", "B"), prune=_STALE),
    "session taken back first": _leaks("two collections leave", writer=TakesBackSessionFirst("S", "B", fails=True)),
    "no tombstone of what is taken back": _leaks(
        "two collections leave", writer=TakesBackWithoutTombstone("S", "B", fails=True)
    ),
    "data taken back after the marker": _unsafe(_LOST, writer=TakesBackAfterMarker("S", "B")),
    "pins before the intent": _unsafe(_UNPINNED, prune=ListsPinsFirst("p", _B), pinner=_PIN_B),
    "no intent": _unsafe(_UNPINNED, prune=WithoutIntent("p", _B), pinner=_PIN_B),
    "pins only before the intent": _unsafe(_UNPINNED, prune=WithoutPins("p", _B), pinner=_PIN_B),
    "intent deleted before the tombstones": _unsafe(_UNPINNED, prune=IntentEndsFirst("p", _B), pinner=_PIN_B),
    "intent deleted with a tombstone under way": _unsafe(
        _UNPINNED, prune=IntentEndsAnyway("p", _B, unsure=True), pinner=_PIN_B
    ),
    "stale session deleted": _unsafe(_LOST, writer=_SAVE, prune=BreaksSession("p", _B, takes_for_dead=True)),
    "no abort": _unsafe(_FORGOTTEN, writer=_SAVE, prune=WithoutAbort("p", takes_for_dead=True)),
    "abort after the look for the marker": _unsafe(
        _FORGOTTEN, writer=_SAVE, prune=AbortAfterLook("p", takes_for_dead=True)
    ),
    "no look for the marker": _unsafe(_FORGOTTEN, writer=_SAVE, prune=GivesUpCommitted("p", takes_for_dead=True)),
    "sessions before the victims' tombstones": _unsafe(
        _LOST, writer=_SAVE, prune=ListsSessionsBeforeTombstones("p", _B)
    ),
    "tombstones listed last": _unsafe(_LOST, writer=_SAVE, p=ListsTombstonesLast("p"), q=_PRUNE_B),
    "commits before sessions": _unsafe(_LOST, writer=_SAVE, prune=ListsCommitsBeforeSessions("p", _B)),
    "only the folders of the dead": _leaks(
        _LEAK, store=_B_AND_S, tidies=ListsOwnFoldersOnly, p=Pruner("p", _B), q=_PRUNE_S
    ),
    "only the folders of markers": _leaks(_LEAK, tidies=ListsFoldersOfMarkersOnly, writer=_SAVE),
    "no sessions": _unsafe(_LOST, writer=_SAVE, prune=IgnoresSessions("p", _B)),
    "only the base's own objects": _unsafe(
        _LOST, store=_B_AND_S, writer=_SAVE_ON_S, prune=SheltersOwnFolderOfBase("p", _B | _S)
    ),
    "a lost marker of a base protects nothing": _unsafe(_LOST, writer=_SAVE, p=IgnoresLostBase("p", _B), q=_PRUNE),
    "a lost manifest of a base protects nothing": _unsafe(
        _LOST, writer=_SAVE, p=ReadsManifestOfBase("p", _B), q=_PRUNE
    ),
    "a lost manifest of a state protects nothing": _unsafe(
        _LOST, store=_B_AND_S, writer=_SAVE_ON_S, p=IgnoresLostState("p", _B), q=_PRUNE_S
    ),
    "markers of bases deleted": _leaks(_LEAK, store=_B_AND_S, writer=_SAVE_ON_S, prune=ClearsBases("p", _B | _S)),
    "markers of bases deleted, beside another prune": _unsafe(
        _LOST, store=_B_AND_S, writer=_SAVE_ON_S, p=ClearsBases("p", _B | _S), q=_PRUNE
    ),
    "markers of what bases reuse deleted": _leaks(
        _LEAK, store=_B_AND_S, writer=_SAVE_ON_S, p=ClearsWhatBasesReuse("p", _B), q=_PRUNE_S
    ),
    "markers deleted that came after the lists": _leaks(_LEAK, writer=_SAVE, p=ClearsWhatCameLate("p", _B), q=_PRUNE_S),
    "sessions of live saves deleted": _unsafe(_LOST, writer=_SAVE, p=ClearsAllSessions("p"), q=_PRUNE_B),
    "records before data": _leaks(_LEAK, prune=ClearsBeforeSweep("p", _B)),
    "tombstones deleted": _unsafe(_LOST, writer=_SAVE, prune=ClearsTombstones("p", _B, takes_for_dead=True)),
    "pins of the dead stay": _leaks(_LEAK, tidies=LeavesPins, prune=Pruner("p", _B), pinner=_PIN_B),
    "fences before intents": _unsafe(_UNPINNED, prune=_PRUNE_B, pinner=LooksForFencesBeforeIntents("n", "B")),
    "no look for intents": _unsafe(_UNPINNED, prune=_PRUNE_B, pinner=WithoutLookForIntents("n", "B")),
    "no look for an abort": _unsafe(_UNPINNED, writer=_SAVE, prune=_STALE, pinner=WithoutLookForAbort("n", "S")),
    "no look for a tombstone": _unsafe(_UNPINNED, prune=_PRUNE_B, pinner=WithoutLookForTombstone("n", "B")),
    "pin after the looks": _unsafe(_UNPINNED, prune=_PRUNE_B, pinner=PutsPinLast("n", "B")),
    "pins of one key": _unsafe(_UNPINNED, p=Pruner("p", _B), q=_PRUNE_B, m=SharesPin("m", "B"), n=SharesPin("n", "B")),
    "a failed pin stays": _unsafe("which failed, is there", prune=_PRUNE_B, pinner=LeavesFailedPin("n", "B")),
    "reader lists tombstones first": _unsafe(
        "which it never was", writer=_SAVE, prune=_STALE, reader=ListsTombstonesFirst()
    ),
    "reader lists no tombstones": _unsafe("which it never was", writer=_SAVE, prune=_STALE, reader=IgnoresTombstones()),
    "reader does not look for a tombstone": _unsafe("for damaged", prune=_PRUNE_B, reader=DoesNotExplain()),
    "what is remembered of a base counts in another store": _unsafe(
        _LOST, w=Wiper(), b=NEW_B, writer=BuildsOnWhatItRemembers("T", "B", remembers=OLD_B)
    ),
    "no look for the id before the marker": _unsafe(_LOST, w=Wiper(), b=NEW_B, writer=WithoutLookForId("T", "B")),
    "a base out of a list without an id": _unsafe(
        _LOST, store=committed("B") - {identity()}, w=Wiper(), writer=WithoutListAfterId("T", "B")
    ),
    "victims in another store": _unsafe(_FORGOTTEN, w=Wiper(), b=NEW_B, prune=WithoutLookForIdOfVictims("p", _B)),
    "no look for the id before tombstones": _unsafe(
        _FORGOTTEN, w=Wiper(), b=NEW_B, prune=WithoutLookForIdBeforeTombstones("p", _B)
    ),
    "no look for the id before deletes": _unsafe(
        _LOST, w=Wiper(), b=NEW_B, prune=WithoutLookForIdBeforeDeletes("p", _B)
    ),
    "what is remembered protects in another store": _unsafe(
        _LOST,
        store=committed("B", run=ANOTHER_RUN) | committed("S", objects_of("B", ANOTHER_RUN)[0], run=ANOTHER_RUN),
        p=BelievesInMemory("p", memory=MEMORY),
        q=Pruner("q", _B, ours=frozenset({identity(ANOTHER_RUN)})),
    ),
    "reader does not look for the marker": _unsafe("for damaged", w=Wiper(), reader=DoesNotLookAgain()),
    # What is not closed: somebody has looked, and acts, when all is wiped.
    "a wipe between the look and the marker": _unsafe(_LOST, w=Wiper(waits=False), writer=Writer("T", "B")),
    "a wipe between the look and the tombstone": _unsafe(
        _FORGOTTEN, w=Wiper(waits=False), b=NEW_B, prune=Pruner("p", _B)
    ),
}
"""By what is done wrong."""

HARMLESS: Mapping[str, Scenario] = {
    # A tombstone without an abort is that of a state that was visible and that somebody wanted removed. To look for
    # it tells the writer so: its state is gone, by the retention that it asked for or by another's.
    "only the abort looked for": Scenario(
        {"writer": LooksForAbortOnly("S", "B"), "prune": Pruner("p", _B, takes_for_dead=True)}
    ),
    # Data is only deleted in the folders of states that P2 saw dead: a session that is to count was put before that.
    # The order of the document is that of a prune that lists the whole store, which is how it was first proven.
    "sessions before data": Scenario({"writer": _SAVE, "p": ListsSessionsBeforeData("p", _B), "q": _PRUNE}),
}
"""What is done in another way, and shows nowhere."""
