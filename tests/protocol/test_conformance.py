"""Whether statevault makes the calls that the model makes, in the same order.

A read of statevault's may answer several questions of the model at once (one LIST of all records), or none. But all
that the model asks is asked, between the same PUTs and DELETEs, and there are no other PUTs and DELETEs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

import pytest

from statevault.errors import SaveFencedError, StateVaultError, StorageError
from statevault.format.keys import abort_key, intent_key, session_key
from statevault.format.records import AbortRecord, IntentRecord, SessionRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.collection import collect
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from tests.protocol.explorer import Call, Key, Store, Task, run_alone
from tests.protocol.pinner import Pinner
from tests.protocol.pruner import Pruner
from tests.protocol.reader import Reader
from tests.protocol.store import Delete, Find, Put, abort, committed, intent, objects_of, session
from tests.protocol.writer import Writer
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage, WatchedStorage

RECORDS = {
    "sessions": "session",
    "commits": "marker",
    "tombstones": "tombstone",
    "aborts": "abort",
    "intents": "intent",
    "pins": "pin",
    "ids": "id",
}
ANY = "*"
NAMELESS = {"intent", "id"}
"""Whose keys name no state."""
NOW = datetime.now(UTC)
OLD, NEW = {"x": b"x" * 3000}, {"x": b"x" * 3000, "y": b"y" * 3000}
B = committed("B")
B_AND_S = B | committed("S", objects_of("B")[0])


class Step(NamedTuple):
    """A call, of the model or of statevault."""

    verb: str
    kind: str
    state: str


def of_model(calls: Iterable[Call]) -> Iterator[Step]:
    for call in calls:
        match call:
            case Find(kind, states):
                yield Step("find", kind, ANY if states is None or len(states) > 1 else min(states))
            case Put(Key(_, _, "manifest") as key):
                yield Step("put", "manifest", key.state)
            case Put(key):
                yield Step("put", key.kind, ANY if key.kind in NAMELESS else key.state)
            case Delete(Key("window")):
                pass  # a note of the model's
            case Delete(key):
                yield Step("delete", key.kind, ANY if key.kind in NAMELESS else key.state)


def of_code(calls: Iterable[str]) -> Iterator[Step]:
    for call in calls:
        verb, _, argument = call.partition(" ")
        keys = re.findall(r"'([^']+)'", argument) if verb == "delete" else [argument]
        for key in keys:
            yield Step(verb if verb in ("put", "delete") else "find", *place(key, is_put=verb == "put"))


def place(key: str, *, is_put: bool) -> tuple[str, str]:
    """The kind and the state of a key, or of the prefix of a LIST."""
    folder, _, rest = key.partition("/")
    if folder != "_vault":
        return ("manifest" if is_put and rest.startswith("manifest") else "object"), folder or ANY
    kind, _, name = rest.partition("/")
    state = re.sub(r"^\d{12}\.", "", name).partition("/")[0]
    found = RECORDS.get(kind, kind or ANY)
    return found, ANY if found in NAMELESS else state or ANY


def in_order(steps: Iterable[Step]) -> list[Step]:
    """What the order of DELETEs of records is, and how many objects a folder has, makes no difference.

    Nor which is first of what is done at the same time: the look for the id, and the PUT of the manifest.
    """
    ordered: list[Step] = []
    for (verb, of_objects), run in groupby(steps, key=lambda step: (step.verb, step.kind == "object")):
        found = list(run)
        if verb == "delete" or (of_objects and verb == "put"):
            found = sorted(set(found))
        ordered += found
    for number, step in enumerate(ordered):
        if (step.verb, step.kind) == ("put", "manifest"):
            looks = [look for look in ordered[:number] if look.kind == "id" and look.verb == "find"][-1:]
            for look in looks:
                ordered.insert(number + 1, look)
                del ordered[max(place for place in range(number) if ordered[place] == look)]
    return ordered


def answers(read: Step, question: Step) -> bool:
    is_told_of = read.kind == question.kind or (read.kind == ANY and question.kind != "object")
    return question.verb == "find" and is_told_of and (read.state == ANY or question.state in (ANY, read.state))


def check_that_it_conforms(code: Sequence[Step], model: Sequence[Step]) -> None:
    left = list(model)
    for number, step in enumerate(code):
        if step.verb == "find":
            while left and answers(step, left[0]):
                left.pop(0)
        else:
            assert left, f"{step} is too much"
            assert step == left.pop(0), f"step {number} of {code}"
    assert not left, f"not done in {code}"


@dataclass(frozen=True)
class Case:
    """The same, done by the model and by statevault.

    Attributes:
        store: Where the model begins.
        task: What it does.
        prepare: Brings a storage to where the model begins.
        act: What statevault does.
    """

    store: Store
    task: Task
    prepare: Callable[[WatchedStorage], object]
    act: Callable[[WatchedStorage], object]


def nothing(storage: WatchedStorage) -> None:
    """Begin with an empty store."""
    storage.put("_vault/format.json", b'{"format": "statevault", "version": 1}')


def save_b(storage: WatchedStorage) -> None:
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="B")


def save_s(storage: WatchedStorage) -> None:
    with store_with(storage, folder=Folder(NEW)) as store:
        store.save_state(name="S")


def save_s_and_be_fenced(storage: WatchedStorage) -> None:
    def give_up(call: str) -> None:
        if call.startswith("put _vault/commits"):
            storage.inner.put(abort_key("S"), AbortRecord(state="S", by="p", at=NOW).to_json())

    storage.before = give_up
    with pytest.raises(SaveFencedError):
        save_s(storage)


def fail_to_save_s(storage: WatchedStorage) -> None:
    def fail(call: str) -> None:
        if call.startswith("put S/"):
            storage.calls.clear()
            raise StorageError("the disk is full")

    storage.before = fail
    with pytest.raises(StorageError):
        save_s(storage)


def save_both(storage: WatchedStorage) -> None:
    with store_with(storage, folder=(folder := Folder(OLD))) as store:
        store.save_state(name="B")
        folder.files = NEW
        assert store.info(store.save_state(name="S").name).base == "B"


def remove(*states: str) -> Callable[[WatchedStorage], object]:
    return lambda storage: prune(storage, Catalog(storage), states, by="p", reason="r", stale_after=timedelta(days=9))


def remove_and_give_up(storage: WatchedStorage) -> None:
    prune(storage, Catalog(storage), [], by="p", reason="r", stale_after=timedelta(0))


def with_session_on(base: str) -> Callable[[WatchedStorage], object]:
    def prepare(storage: WatchedStorage) -> None:
        save_both(storage)
        record = SessionRecord(state="T", sequence=3, writer="w", base=base, started_at=NOW)
        storage.put(session_key("T"), record.to_json())

    return prepare


def pin_s(storage: WatchedStorage) -> None:
    with StateStore(storage) as store, suppress(StateVaultError):
        store.pin("S")


def pin_and_unpin_s(storage: WatchedStorage) -> None:
    with StateStore(storage) as store:
        store.pin("S")
        store.unpin("S")


def with_intent(storage: WatchedStorage) -> None:
    save_both(storage)
    record = IntentRecord(prune="0" * 16, states=["S"], by="p", at=NOW)
    storage.put(intent_key("0" * 16), record.to_json())


def with_abort(storage: WatchedStorage) -> None:
    save_both(storage)
    storage.put(abort_key("S"), AbortRecord(state="S", by="p", at=NOW).to_json())


def load_s(storage: WatchedStorage) -> None:
    with store_with(storage, folder=Folder()) as store:
        store.load_state("S")


SAVE = Writer("S", "B")
PRUNE_B, PRUNE_S = (Pruner("p", frozenset(state), remembers=True) for state in "BS")
STRICT = Pruner("p", takes_for_dead=True)
COLLECT = Pruner("p", takes_for_dead=True, collects=True)

CASES = {
    "a save without a base": Case(frozenset(), Task(SAVE.begin), nothing, save_s),
    "a save with a base": Case(B, Task(SAVE.begin), save_b, save_s),
    "a save that is fenced": Case(B | {abort("S")}, Task(SAVE.begin), save_b, save_s_and_be_fenced),
    "a save that fails": Case(B, Task(SAVE.take_back, (session("S", "B"),)), save_b, fail_to_save_s),
    "a prune": Case(B_AND_S, Task(PRUNE_B.begin), save_both, remove("B")),
    "a prune of what a session has as its base": Case(
        B_AND_S | {session("T", "S")}, Task(PRUNE_S.begin), with_session_on("S"), remove("S")
    ),
    "a prune that gives up a save": Case(
        B_AND_S | {session("T", "S")}, Task(STRICT.begin), with_session_on("S"), remove_and_give_up
    ),
    "a collection that gives up a save": Case(
        B_AND_S | {session("T", "S")},
        Task(COLLECT.begin),
        with_session_on("S"),
        lambda storage: collect(storage, Catalog(storage), by="p", stale_after=timedelta(0)),
    ),
    "a pin that holds": Case(B_AND_S, Task(Pinner("n", "S").begin), save_both, pin_s),
    "a pin that is taken off": Case(B_AND_S, Task(Pinner("n", "S", unpins=True).begin), save_both, pin_and_unpin_s),
    "a pin beside an intent": Case(B_AND_S | {intent("p", "S")}, Task(Pinner("n", "S").begin), with_intent, pin_s),
    "a pin of what was given up": Case(B_AND_S | {abort("S")}, Task(Pinner("n", "S").begin), with_abort, pin_s),
    "a load": Case(B_AND_S - {*committed("B")} | {objects_of("B")[0]}, Task(Reader().begin), save_both, load_s),
}


CHOICES = 6
"""So many options has the model at most."""


def both(case: Case) -> tuple[list[Step], list[list[Step]]]:
    """The steps of statevault, and those of the model in each order that it leaves open."""
    storage = WatchedStorage(DictStorage())
    case.prepare(storage)
    storage.calls.clear()
    case.act(storage)
    models = []
    for choice in range(CHOICES):
        calls: list[Call] = []
        run_alone(case.store, case.task, called=calls.append, choice=choice)
        models.append(in_order(of_model(calls)))
    return in_order(of_code(storage.calls)), models


def check_that_it_conforms_to_one(code: Sequence[Step], models: Sequence[Sequence[Step]]) -> None:
    failures = []
    for model in models:
        try:
            check_that_it_conforms(code, model)
        except AssertionError as failure:
            failures.append(failure)
        else:
            return
    raise failures[0]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_statevault_makes_the_calls_of_the_model(case: Case) -> None:
    check_that_it_conforms_to_one(*both(case))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_call_that_is_left_out_is_noticed(case: Case) -> None:
    code, models = both(case)
    writes = [number for number, step in enumerate(code) if step.verb != "find"]
    questions = [{(step.kind, step.state) for step in model if step.verb == "find"} for model in models]
    asked = set.intersection(*questions)
    # What a prune has read when it looked ahead, the model may remember; but it is read.
    for kind, state in set.union(*questions) - asked:
        assert any(answers(step, Step("find", kind, state)) for step in code if step.verb == "find")
    for left_out in writes:
        with pytest.raises(AssertionError):
            check_that_it_conforms_to_one([step for number, step in enumerate(code) if number != left_out], models)
    for kind, state in asked:
        question = Step("find", kind, state)
        with pytest.raises(AssertionError):
            check_that_it_conforms_to_one([step for step in code if not answers(step, question)], models)
    assert writes or asked
