"""Pins: a state that is pinned stays, and a pin beside a prune holds or fails, never half."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import (
    FormatError,
    InvalidNameError,
    PinConflictError,
    StateNotFoundError,
    StatePrunedError,
    StateVaultError,
    StorageError,
)
from statevault.format.keys import (
    ABORTS,
    COMMITS,
    IDS,
    INTENTS,
    PINS,
    SESSIONS,
    TOMBSTONES,
    StateKey,
    abort_key,
    intent_key,
)
from statevault.format.records import AbortRecord, IntentRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.removal import remove_states
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import DictStorage, FailingStorage, Failure, ProcessDiedError, WatchedStorage

OLD, NEW = some_files(1), some_files(2)
NOW = datetime.now(UTC)


def a_store_with_two_states() -> DictStorage:
    storage = DictStorage()
    folder = Folder(OLD)
    with store_with(storage, folder=folder) as store:
        store.save_state(name="old.state")
        folder.files = dict(NEW)
        store.save_state(name="new.state")
    return storage


def records(storage: DictStorage, prefix: str) -> list[str]:
    return [key for key in storage.objects if key.startswith(prefix)]


def test_pins_are_named_counted_and_taken_off() -> None:
    storage = a_store_with_two_states()
    with StateStore(storage) as store:
        store.pin("old.state", "paper")
        store.pin("old.state", "paper")
        store.pin("old.state", "demo")
        store.pin("latest")
        assert store.pins() == {"old.state": ("demo", "paper"), "new.state": ("pin",)}
        assert store.unpin("old.state", "paper") == 2
        assert store.pins()["old.state"] == ("demo",)
        assert store.remove(["old.state", "new.state"]).spared == ("old.state", "new.state")
        assert store.unpin("old.state") == 1
        assert store.unpin("old.state") == 0
        assert store.remove(["old.state"]).removed == ("old.state",)
        assert store.pins() == {"new.state": ("pin",)}


def test_a_pin_by_the_path_of_a_state(tmp_path: Path) -> None:
    with store_with(tmp_path, folder=Folder(OLD)) as store:
        path = store.save_state()
        store.pin(path, "mine")
        assert store.pins() == {path.name: ("mine",)}
        assert store.unpin(path) == 1


def test_what_cannot_be_pinned() -> None:
    storage = a_store_with_two_states()
    with StateStore(storage) as store:
        with pytest.raises(StateNotFoundError, match="nothing"):
            store.pin("nothing.state")
        for act in (store.unpin, lambda state: store.remove([state]), lambda state: store.freed_by([state])):
            with pytest.raises(StateNotFoundError, match="latest"):
                act("latest")
        with pytest.raises(InvalidNameError, match="name of a pin"):
            store.pin("old.state", "a/b")
        with pytest.raises(InvalidNameError, match="name of a pin"):
            store.pin("old.state", "")
        store.remove(["old.state"])
        with pytest.raises(StatePrunedError):
            store.pin("old.state")
    assert records(storage, PINS) == []


def test_a_state_that_somebody_pinned_by_hand_is_pinned() -> None:
    storage = a_store_with_two_states()
    storage.put(f"{PINS}old.state/by-hand", b"")
    with StateStore(storage) as store:
        assert store.remove(["old.state"]).spared == ("old.state",)
        assert store.pins() == {"old.state": ("by-hand",)}


def test_the_intent_of_a_prune_that_died_forbids_the_pin_and_says_what_to_do() -> None:
    storage = a_store_with_two_states()
    intent = IntentRecord(prune="00aa" * 4, states=["old.state"], by="host:1:x", at=NOW)
    storage.put(intent_key("00aa" * 4), intent.to_json())
    with StateStore(storage) as store:
        store.pin("new.state")
        with pytest.raises(PinConflictError, match=r"host:1:x .* _vault/intents/00aa"):
            store.pin("old.state")
    assert records(storage, f"{PINS}old.state") == []


@pytest.mark.parametrize("content", [b"{", b"x" * (17 << 20)], ids=["no json", "too large"])
def test_an_intent_that_cannot_be_read_may_be_for_any_state(content: bytes) -> None:
    storage = a_store_with_two_states()
    storage.put(intent_key("00aa" * 4), content)
    with StateStore(storage) as store, pytest.raises(FormatError, match=r"00aa.* is not pinned, .*statevault gc"):
        store.pin("old.state")
    assert records(storage, PINS) == []


def test_what_is_no_intent_by_its_key_forbids_no_pin() -> None:
    storage = a_store_with_two_states()
    storage.put(intent_key(".DS_Store"), b"{")
    with StateStore(storage) as store:
        store.pin("old.state")
        assert store.pins() == {"old.state": ("pin",)}


def test_a_state_whose_writer_was_given_up_is_not_pinned() -> None:
    """The prune that gave it up may be about to put its tombstone: it looked for the marker before it was there."""
    storage = a_store_with_two_states()
    storage.put(abort_key("old.state"), AbortRecord(state="old.state", by="p", at=NOW).to_json())
    with StateStore(storage) as store, pytest.raises(PinConflictError, match="took its writer for dead"):
        store.pin("old.state")
    assert records(storage, PINS) == []


def at_each_call(
    storage: DictStorage, operation: Callable[[StateStore], object], meanwhile: Callable[[], None], number: int
) -> bool:
    """Run an operation, and something else just before its call of a number; whether it makes so many calls."""
    made = 0

    def before(call: str) -> None:
        nonlocal made
        made += 1
        if made == number:
            meanwhile()

    with StateStore(WatchedStorage(storage, before)) as store:
        operation(store)
    return made >= number


def check_pin_and_prune(storage: DictStorage, *, holds: bool) -> None:
    with StateStore(storage) as store:
        visible = store.names()
        if holds:
            assert visible == ["old.state", "new.state"]
            store.verify("old.state")
            assert store.remove(["old.state"]).spared == ("old.state",)
        else:
            assert records(storage, PINS) == []
        assert records(storage, INTENTS) == []
        store.verify("new.state")
    check_no_garbage(storage)


def test_a_prune_at_each_call_of_a_pin() -> None:
    number, outcomes = 0, set()
    while True:
        number += 1
        storage = a_store_with_two_states()
        holds = True

        def prune(storage: DictStorage = storage) -> None:
            with StateStore(storage) as other:
                other.remove(["old.state"])

        def pin(store: StateStore) -> None:
            nonlocal holds
            try:
                store.pin("old.state")
            except (StatePrunedError, PinConflictError):
                holds = False

        reached = at_each_call(storage, pin, prune, number)
        if not reached:
            break
        check_pin_and_prune(storage, holds=holds)
        outcomes.add(holds)
    assert number > 4
    assert outcomes == {True, False}


def test_a_pin_at_each_call_of_a_prune() -> None:
    number, outcomes = 0, set()
    while True:
        number += 1
        storage = a_store_with_two_states()
        holds = True

        def pin(storage: DictStorage = storage) -> None:
            nonlocal holds
            with StateStore(storage) as other:
                try:
                    other.pin("old.state")
                except (StatePrunedError, PinConflictError):
                    holds = False

        if not at_each_call(storage, lambda store: store.remove(["old.state"]), pin, number):
            break
        check_pin_and_prune(storage, holds=holds)
        outcomes.add(holds)
    assert number > 8
    assert outcomes == {True, False}


def test_a_pin_and_a_prune_that_each_go_on_while_the_other_stands_still() -> None:
    """The prune has listed the pins; the pin begins, and stands still at one of its calls until the prune has ended."""
    number, outcomes = 0, set()
    while True:
        number += 1
        storage = a_store_with_two_states()
        pinner = _Pinner(storage, stands_still_at=number)

        def before(call: str, pinner: _Pinner = pinner) -> None:
            if call.startswith("put _vault/tombstones/") and not pinner.is_alive():
                pinner.start()
                pinner.wait()

        # P0 alone: the marker, by which a late pinner sees as well that the state has gone, is still there.
        remove_states(WatchedStorage(storage, before), [StateKey(1, "old.state")], by="p", reason="test")
        pinner.go_on()
        pinner.join(300)
        assert pinner.holds is not None
        if pinner.calls < number:
            break
        check_pin_and_prune(storage, holds=pinner.holds)
        outcomes.add(pinner.holds)
    assert number > 5
    assert outcomes == {False}


class _Pinner(threading.Thread):
    """Pins ``old.state``, and stands still before a call of a number."""

    def __init__(self, storage: DictStorage, *, stands_still_at: int) -> None:
        super().__init__(daemon=True)
        self.holds: bool | None = None
        self.calls = 0
        self._storage = storage
        self._stands_still_at = stands_still_at
        self._stands_still = threading.Event()
        self._may_go_on = threading.Event()

    @override
    def run(self) -> None:
        with StateStore(WatchedStorage(self._storage, self._before)) as store:
            try:
                store.pin("old.state")
                self.holds = True
            except (StatePrunedError, PinConflictError):
                self.holds = False
        self._stands_still.set()

    def wait(self) -> None:
        assert self._stands_still.wait(300)

    def go_on(self) -> None:
        self._may_go_on.set()

    def _before(self, call: str) -> None:
        self.calls += 1
        if self.calls == self._stands_still_at:
            self._stands_still.set()
            assert self._may_go_on.wait(300)


@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
@pytest.mark.parametrize("failure", list(Failure), ids=lambda failure: failure.value)
def test_a_pin_that_fails_at_each_call(failure: Failure, dies: bool) -> None:
    number = 0
    while True:
        number += 1
        storage = a_store_with_two_states()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        store = StateStore(failing)
        held = False
        try:
            store.pin("old.state", "paper")
            held = True
        except StorageError as error:
            failing.land()
            left = [key for key in records(storage, PINS) if key not in "".join(getattr(error, "__notes__", []))]
            assert left == [], "what may be left is named"
        except ProcessDiedError:
            failing.land()
        if len(failing.calls) < number:
            break
        with StateStore(storage) as reopened:
            if held:
                assert reopened.remove(["old.state"]).spared == ("old.state",)
            reopened.unpin("old.state")
            assert reopened.remove(["old.state"]).removed == ("old.state",)
        check_no_garbage(storage)
    assert number > 4


@pytest.mark.parametrize("failure", list(Failure), ids=lambda failure: failure.value)
def test_an_unpin_that_fails_can_be_repeated(failure: Failure) -> None:
    for number in (1, 2):
        storage = a_store_with_two_states()
        with StateStore(storage) as store:
            store.pin("old.state")
        with StateStore(FailingStorage(storage, fail_at=number, failure=failure)) as store, suppress(StateVaultError):
            store.unpin("old.state")
        with StateStore(storage) as store:
            store.unpin("old.state")
            assert store.pins() == {}


def test_a_prune_whose_tombstone_has_no_answer_keeps_its_intent() -> None:
    """The tombstone may land at any time: until then nobody may pin the state."""
    storage = a_store_with_two_states()
    calls = FailingStorage(storage)
    with StateStore(calls) as store:
        store.remove(["old.state"])
    number = 1 + next(i for i, call in enumerate(calls.calls) if call.startswith("put _vault/tombstones/"))

    storage = a_store_with_two_states()
    late = FailingStorage(storage, fail_at=number, failure=Failure.LATE)
    with StateStore(late) as store, pytest.raises(StorageError):
        store.remove(["old.state"])
    with StateStore(storage) as store:
        with pytest.raises(PinConflictError):
            store.pin("old.state")
        late.land()
        with pytest.raises(StatePrunedError):
            store.pin("old.state")
        store.remove([])
        assert store.names() == ["new.state"]
    check_no_garbage(storage)


def test_names_that_no_storage_takes_are_in_nobodys_way(tmp_path: Path) -> None:
    folder = Folder({"a": b"a"})
    with store_with(tmp_path, folder=folder) as store:
        store.save_state(name="a.state")
        store.save_state(name="b.state")
        store.remove(["a.state"])
        long_ago = (NOW - timedelta(days=30)).timestamp()
        for key in (INTENTS, ABORTS, SESSIONS, TOMBSTONES, COMMITS, f"{PINS}a.state/", IDS):
            (tmp_path / key).mkdir(parents=True, exist_ok=True)
            for name in (b"\xff\xfe", b"a\nb"):
                file = os.fsencode(tmp_path / key) + b"/" + name
                with open(file, "wb"):  # noqa: PTH123 - a name that no Path is made of
                    os.utime(file, (long_ago, long_ago))
        store.save_state(name="c.state")
        store.pin("b.state")
        store.unpin("b.state")
        store.remove(["b.state"])
        store.gc()
        assert store.names() == ["c.state"]
