"""Whether every save gets a number, and a place behind those before it, whatever else lies in the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from statevault.format.keys import FORMAT_KEY, MAX_SEQUENCE, MAX_UNREAD_SEQUENCE, commit_key, tombstone_key
from statevault.format.records import CommitRecord, FormatRecord
from statevault.state_persistence.records.catalog import Catalog
from tests.protocol.explorer import Store
from tests.protocol.numbering import Collector, Numbered, Record, Remover, Saver, Vandal, key_of, listed, visible
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage

SCENARIOS = {
    "saves, what is no record": Numbered({"s": Saver(), "t": Saver(), "v": Vandal()}),
    "saves, a forged marker": Numbered({"s": Saver(), "t": Saver(), "v": Vandal(forges=True)}),
    "saves, removal, collection, what is no record": Numbered(
        {"s": Saver(3), "v": Vandal(), "p": Remover(), "c": Collector()}
    ),
    "saves, removal, collection, a forged marker": Numbered(
        {"s": Saver(3), "v": Vandal(forges=True), "p": Remover(), "c": Collector()}
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_every_save_comes_after_those_before_it(scenario: Numbered) -> None:
    found = scenario.explore()
    print(f"\n{found.states} states", end=" ")
    assert found.violation is None, "\n".join((*found.trace, found.violation))


class StopsAtTheLast(Saver):
    @override
    def choose(self, store: Store) -> int | None:
        largest = max(self.counting(store), default=0)
        return largest + 1 if largest < self.last else None


class GoesBeyondTheLast(Saver):
    @override
    def choose(self, store: Store) -> int | None:
        return max(self.counting(store), default=0) + 1


class CountsAll(Saver):
    @override
    def counting(self, store: Store) -> Iterator[int]:
        return (record.number for kind in ("commit", "tombstone") for record in listed(store, kind))


class CountsWhatCannotBeRead(Saver):
    @override
    def counting(self, store: Store) -> Iterator[int]:
        yield from super().counting(store)
        yield from (record.number for record in visible(store))


class CountsTheDead(Saver):
    @override
    def counting(self, store: Store) -> Iterator[int]:
        yield from super().counting(store)
        yield from (record.number for record in listed(store, "tombstone") if record.sound)


class CountsNothingBeyond(Saver):
    @override
    def counting(self, store: Store) -> Iterator[int]:
        return (number for number in super().counting(store) if number <= self.unread)


class TakesTheLargest(Saver):
    @override
    def choose(self, store: Store) -> int | None:
        return max(self.counting(store), default=1)


MUTANTS = {
    "the last number ends the saves": (StopsAtTheLast, True, "finds no number"),
    "numbers without an end": (GoesBeyondTheLast, True, "is no number"),
    "all count": (CountsAll, False, "only the names tell"),
    "what can't be read counts": (CountsWhatCannotBeRead, False, "only the names tell"),
    "the dead count": (CountsTheDead, False, "only the names tell"),
    "nothing beyond the limit counts": (CountsNothingBeyond, False, "only the names tell"),
    "the largest again": (TakesTheLargest, False, "only the names tell"),
}


@pytest.mark.parametrize(("saver", "forges", "shows"), MUTANTS.values(), ids=MUTANTS)
def test_no_part_of_the_rule_can_be_dropped(saver: type[Saver], forges: bool, shows: str) -> None:
    found = Numbered({"s": saver(3), "v": Vandal(forges=forges)}).explore()
    print(f"\n{found.states} states, {len(found.trace)} steps: {found.violation}", end=" ")
    assert found.violation is not None
    assert shows in found.violation


NUMBERS = st.sampled_from(
    [1, 2, 3, MAX_UNREAD_SEQUENCE - 1, MAX_UNREAD_SEQUENCE, MAX_UNREAD_SEQUENCE + 1, MAX_SEQUENCE - 1, MAX_SEQUENCE]
)
RECORDS = st.builds(Record, NUMBERS, st.sampled_from(["a", "b", "c"]), st.booleans())


def a_marker() -> bytes:
    storage = DictStorage()
    with store_with(storage, folder=Folder({"a": b"b"})) as store:
        store.save_state(name="a")
    return storage.objects[commit_key(1, "a")]


MARKER = CommitRecord.from_json(a_marker(), where="a")


@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.place), st.lists(RECORDS, max_size=3))
def test_statevault_chooses_the_number_of_the_model(commits: list[Record], tombstones: list[Record]) -> None:
    storage = DictStorage()
    storage.put(FORMAT_KEY, FormatRecord().to_json())
    for record in commits:
        marker = MARKER.model_copy(update={"state": record.name, "sequence": record.number})
        storage.put(commit_key(record.number, record.name), marker.to_json() if record.sound else b"{}")
    for record in tombstones:
        storage.put(tombstone_key(record.number, record.name), b"{}")
    catalog = Catalog(storage)
    modelled = frozenset(
        key_of(kind, record) for kind, records in (("commit", commits), ("tombstone", tombstones)) for record in records
    )
    saver = Saver(unread=MAX_UNREAD_SEQUENCE, last=MAX_SEQUENCE)
    assert catalog.next_sequence(catalog.listing()) == saver.choose(modelled)
