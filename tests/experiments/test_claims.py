"""Claims: at most one worker holds one, whatever the order of calls, and the dead are told from the living."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from greenlet import greenlet  # type: ignore[import-untyped, unused-ignore]
from typing_extensions import override

from statevault.errors import StorageError, TrialTakenError
from statevault.experiments.claims import BEAT_EVERY, STALE_AFTER, Claim, take_claim
from statevault.experiments.held import HeldClaims
from statevault.storage import Body, ObjectInfo
from tests.profiles import rounds
from tests.state_persistence.storages import DictStorage, TimedStorage

PREFIX = "algorithm_0/trial_0/claims/"


class SteppedStorage(DictStorage):
    """Hands over to the scheduler before each call."""

    def _step(self) -> None:
        parent = greenlet.getcurrent().parent
        if parent is not None:
            parent.switch()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        self._step()
        return super().put(key, body, create_only=create_only)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._step()
        return super().get(key, start, end)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step()
        return iter(list(super().list(prefix)))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._step()
        super().delete(keys)


def elsewhere(storage: DictStorage, name: str, **changes: Any) -> None:
    """A claim of a process on another machine."""
    record = {"host": "far", "machine": "another", "pid": 1, "started": "1", "at": ""} | changes
    storage.put(PREFIX + name, json.dumps(record).encode())
    storage.put(PREFIX + name + ".beat", b"{}")


def own_record() -> dict[str, Any]:
    storage = DictStorage()
    claim = take_claim(storage, PREFIX)
    record: dict[str, Any] = json.loads(storage.objects[PREFIX + claim.name])
    return record


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_whatever_the_order_of_calls_one_at_most_holds_it(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    outcomes: Counter[int] = Counter()
    for seed in range(rounds(short=400, long=20_000)):
        choice = random.Random(seed)
        storage = SteppedStorage()
        names = iter(choice.sample(["a", "b", "c", "d", "e", "f", "g", "h"], 8))
        monkeypatch.setattr("statevault.experiments.claims.secrets.token_hex", lambda _, names=names: next(names))
        monkeypatch.setattr("statevault.experiments.claims.time.sleep", lambda _, storage=storage: storage._step())
        holding: set[int] = set()
        held: list[int] = []

        def work(
            number: int,
            storage: SteppedStorage = storage,
            choice: random.Random = choice,
            holding: set[int] = holding,
            held: list[int] = held,
        ) -> None:
            for _ in range(2):
                try:
                    claim = take_claim(storage, PREFIX)
                except TrialTakenError:
                    continue
                assert not holding
                holding.add(number)
                for _ in range(choice.randrange(4)):
                    storage._step()
                claim.check()
                assert holding == {number}
                held.append(number)
                holding.remove(number)
                claim.release()

        running = [greenlet(lambda number=number, work=work: work(number)) for number in range(workers)]
        while running:
            chosen = choice.choice(running)
            chosen.switch()
            running = [each for each in running if not each.dead]
        assert held, "of some who came at once, one gets it"
        assert not storage.objects
        outcomes[len(held)] += 1
    assert len(outcomes) > 1


def test_a_claim_of_a_living_process_stands() -> None:
    storage = TimedStorage()
    elsewhere(storage, "0")
    storage.now += STALE_AFTER
    with pytest.raises(TrialTakenError, match=r"process 1 on 'far' has trial 0 of algorithm 0.*delete .*claims/0"):
        take_claim(storage, PREFIX)
    assert storage.objects.keys() == {PREFIX + "0", PREFIX + "0.beat"}


def test_a_claim_that_nothing_is_heard_of_is_taken_away() -> None:
    storage = TimedStorage()
    elsewhere(storage, "0")
    storage.now += STALE_AFTER + timedelta(seconds=1)
    claim = take_claim(storage, PREFIX)
    assert storage.objects.keys() == {PREFIX + claim.name, PREFIX + claim.name + ".beat"}


def test_beats_keep_a_claim_alive() -> None:
    storage = TimedStorage()
    elsewhere(storage, "0")
    other = Claim(storage, PREFIX, "0")
    for _ in range(20):
        storage.now += BEAT_EVERY
        other.beat()
    with pytest.raises(TrialTakenError):
        take_claim(storage, PREFIX)


def test_without_times_a_claim_from_elsewhere_stands() -> None:
    storage = DictStorage()
    elsewhere(storage, "0")
    with pytest.raises(TrialTakenError, match="delete"):
        take_claim(storage, PREFIX)


def test_a_claim_of_a_dead_process_of_this_machine_is_taken_away() -> None:
    storage = DictStorage()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    elsewhere(storage, "0", **{**own_record(), "pid": process.pid})
    take_claim(storage, PREFIX)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_that_got_the_number_of_a_dead_one_is_another() -> None:
    storage = DictStorage()
    elsewhere(storage, "0", **{**own_record(), "started": "12345"})
    take_claim(storage, PREFIX)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_clock_that_jumps_takes_nothing_from_a_process_of_this_machine() -> None:
    storage = TimedStorage()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    elsewhere(storage, "0", **{**own_record(), "pid": process.pid, "started": started})
    storage.now += timedelta(days=400)
    with pytest.raises(TrialTakenError, match=f"process {process.pid}"):
        take_claim(storage, PREFIX)
    process.kill()
    process.communicate()
    take_claim(storage, PREFIX)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"[]", b'{"machine": 3}', b'{"pid": "x"}'])
def test_a_claim_that_is_not_understood_stands_until_it_is_old(content: bytes) -> None:
    storage = TimedStorage()
    storage.put(PREFIX + "0", content)
    with pytest.raises(TrialTakenError, match="another process has"):
        take_claim(storage, PREFIX)
    storage.now += STALE_AFTER * 2
    take_claim(storage, PREFIX)


def test_what_is_left_of_a_beat_is_no_claim() -> None:
    storage = DictStorage()
    storage.put(PREFIX + "0.beat", b"{}")
    claim = take_claim(storage, PREFIX)
    assert PREFIX + "0.beat" not in storage.objects
    claim.release()
    assert not storage.objects


def test_who_was_taken_for_dead_is_told_and_a_late_beat_brings_nothing_back() -> None:
    storage = TimedStorage()
    lost = take_claim(storage, PREFIX)
    storage.delete([PREFIX + lost.name])
    lost.beat()
    with pytest.raises(TrialTakenError, match="has lost trial 0 of algorithm 0"):
        lost.check()
    take_claim(storage, PREFIX)


def test_a_claim_that_can_not_be_put_leaves_nothing() -> None:
    class Full(DictStorage):
        @override
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            raise StorageError("no answer")

    storage = Full()
    with pytest.raises(StorageError, match="no answer"):
        take_claim(storage, PREFIX)
    assert not storage.objects


def test_a_process_is_one_worker() -> None:
    storage = DictStorage()
    one, two = HeldClaims(storage, "scope"), HeldClaims(storage, "scope")
    one.ensure(PREFIX)
    two.ensure(PREFIX)
    assert len(storage.objects) == 2
    with two.exclusively(PREFIX), pytest.raises(TrialTakenError, match="another thread"), one.exclusively(PREFIX):
        pass
    assert not storage.objects


def test_of_threads_one_at_most_is_in_the_block() -> None:
    storage = DictStorage()
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            try:
                with HeldClaims(storage, "threads").exclusively(PREFIX):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except TrialTakenError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert set(most) == {1}
    assert not storage.objects


def test_claims_that_are_held_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    from statevault.experiments import held as held_module

    monkeypatch.setattr(held_module, "BEAT_EVERY", timedelta(seconds=0.02))
    monkeypatch.setattr(held_module, "_process", held_module._Process())
    storage = DictStorage()
    beats = threading.Event()
    claims = HeldClaims(storage, "beating")
    claims.ensure(PREFIX)
    [beat] = [key for key in storage.objects if key.endswith(".beat")]
    storage.objects[beat] = b""
    for _ in range(500):
        if storage.objects[beat]:
            break
        beats.wait(0.02)
    assert storage.objects[beat]
    claims.release_all()
    assert not storage.objects


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_holds_nothing_of_its_parents() -> None:
    storage = DictStorage()
    claims = HeldClaims(storage, "forked")
    claims.ensure(PREFIX)
    child = os.fork()
    if child == 0:
        os._exit(1 if claims.is_held(PREFIX) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert claims.is_held(PREFIX)
    claims.release(PREFIX)
