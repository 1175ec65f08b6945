"""What must stay of the folders of dead states: step P6 of a prune (``docs/format.md``, section 7).

What can't be read is never taken for what protects nothing: it is an error, and so is what was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord, SessionRecord
from statevault.state_persistence.pruning.obstacles import base_in_the_way, states_in_the_way
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.records.catalog import Catalog

__all__ = ["OutdatedError", "Protection", "protect"]

_T = TypeVar("_T", StateKey, CommitRecord)
_R = TypeVar("_R")


class OutdatedError(Exception):
    """A record that was listed has gone: another prune is at work, and what was listed no longer tells all."""


class Protection(NamedTuple):
    """What must stay.

    Attributes:
        sheltered: Folders that stay as they are.
        needed: Keys of the objects that stay in others.
    """

    sheltered: set[str]
    needed: set[str]


def protect(
    catalog: Catalog,
    shared: SharedObjects,
    *,
    sessions: Iterable[SessionRecord],
    commits: Iterable[StateKey],
    dead: Mapping[str, StateKey],
    folders: set[str],
) -> Protection:
    """P6: find out what must stay.

    Args:
        catalog: The store's states.
        shared: What is known of the objects that they need of each other.
        sessions: What P4 has read.
        commits: What P5 has listed.
        dead: The states that P2 has listed, by their names.
        folders: Those of them in whose folders something may be garbage.

    Raises:
        OutdatedError: Another prune is at work.
        ObstacleError: A marker or a manifest can't be read.
        StatePrunedError: A marker has gone without a tombstone.
    """
    bases = {session.base for session in sessions if session.base is not None and session.state not in dead}
    sheltered = _sheltered_folders(catalog, [key for key in commits if key.state in bases & dead.keys()])
    visible = [key for key in commits if key.state not in dead]
    needed = _needed(catalog, shared, visible, folders - sheltered)
    return Protection(sheltered, needed)


def _sheltered_folders(catalog: Catalog, bases: list[StateKey]) -> set[str]:
    """P6: the folders in which dead bases of live sessions have objects. Nothing is deleted in them.

    Raises:
        OutdatedError: The marker of a base has gone: its session has ended, perhaps well, since commits were listed.
        ObstacleError: The marker of a base is damaged.
    """
    try:
        return {base.state for base in bases}.union(*(_record(catalog, base).reuses for base in bases))
    except CorruptStateError as error:
        raise base_in_the_way(error) from None


def _needed(catalog: Catalog, shared: SharedObjects, visible: list[StateKey], folders: set[str]) -> set[str]:
    """P6: the keys of the objects that visible states have in the folders of others, if they have some in these.

    What is remembered of a state may be of one that has gone since it was listed. That only protects more.

    Raises:
        OutdatedError: One of the states has gone since it was listed. What was saved on top of it meanwhile may need
            what it needed, and is not among those that were listed.
        ObstacleError: The marker or the manifest of one is damaged.
    """
    if not folders:
        return set()
    catalog.records(visible)  # several at once; looked at below
    records = _each(lambda key: _record(catalog, key), visible)
    sharing = [record for record in records if not folders.isdisjoint(record.reuses)]
    needed: set[str] = set()
    try:
        while sharing:
            # One of each name. No save leaves two markers of one, but what both need must stay.
            batch = {record.state: record for record in sharing}
            shares = shared.of(batch.values())
            needed |= {entry.key for state in shares.values() for share in state for entry in share.objects}
            sharing = [record for record in sharing if batch[record.state] is not record]
    except StatePrunedError as gone:
        raise OutdatedError(str(gone)) from None
    except CorruptStateError:
        # Those of the others are remembered, so that this only looks for the damaged ones.
        _each(lambda record: shared.of([record]), sharing)
        raise
    return needed


def _each(ask: Callable[[_T], _R], asked: Iterable[_T]) -> list[_R]:
    """Ask something of each state.

    Raises:
        ObstacleError: Some are damaged: all of them, since they can only be removed together.
    """
    answers = []
    sound = set()
    damaged = {}
    for each in asked:
        try:
            answers.append(ask(each))
            sound.add(each.state)
        except CorruptStateError as error:
            damaged[each.state] = error
    if damaged:
        raise states_in_the_way(damaged, twice=sound & damaged.keys())
    return answers


def _record(catalog: Catalog, key: StateKey) -> CommitRecord:
    """The marker of a state that was listed.

    Raises:
        OutdatedError: Another prune has removed the state since it was listed.
        StatePrunedError: Its marker has gone without a tombstone: it was lost, and might have protected something.
    """
    try:
        return catalog.record(key)
    except StatePrunedError as gone:
        if catalog.is_tombstoned(key):
            raise OutdatedError(str(gone)) from None
        raise StatePrunedError(
            f"the commit marker of {key.state!r} has gone without a tombstone: nothing was deleted"
        ) from None
