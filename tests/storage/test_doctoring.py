"""What is said of a storage by those who try it: true of good ones, and seen of bad ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from statevault.errors import StorageAccessError, StorageError, StorageFullError
from statevault.storage import Body, ObjectInfo, Storage, open_storage, probe
from statevault.storage.access import check_access
from statevault.storage.measure import measure_clock, measure_latency, measure_throughput
from tests.servers import StorageTarget
from tests.state_persistence.storages import DictStorage, joined

EVERYTHING = ("list", "write", "read", "replace", "delete")


class Refusing(DictStorage):
    """Refuses some kinds of requests."""

    def __init__(self, *refused: str, error: type[StorageError] = StorageAccessError) -> None:
        super().__init__()
        self.refused = refused
        self.error = error

    def _check(self, what: str) -> None:
        if what in self.refused:
            raise self.error(f"{what} is refused")

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        self._check("replace" if key in self.objects else "write")
        return super().put(key, body, create_only=create_only)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._check("read")
        return super().get(key, start, end)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._check("list")
        return super().list(prefix)

    @override
    def delete(self, keys: object) -> None:
        self._check("delete")
        super().delete(keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", EVERYTHING)
def test_what_is_refused_is_named_and_the_rest_tried(what: str) -> None:
    storage = Refusing(what)
    access = check_access(storage)
    assert list(access.refused) == [what]
    assert str(access.refused[what]) == f"{what} is refused"
    left = () if what == "write" else ("list", "write", "read", "replace", "delete")
    expected = {"list"} if what == "write" else set(left) - {what}
    assert set(access.allowed) == expected
    assert len(storage.objects) == (what == "delete")


def test_where_nothing_may_be_written_reading_is_tried_with_what_lies_there() -> None:
    storage = Refusing("write")
    storage.objects["_vault/format.json"] = b"{}"
    assert check_access(storage).allowed == ("list", "read")


def test_a_full_disk_is_a_refusal_and_a_broken_one_an_error() -> None:
    assert "write" in check_access(Refusing("write", error=StorageFullError)).refused
    storage = Refusing("read", error=StorageError)
    with pytest.raises(StorageError, match="read is refused"):
        check_access(storage)
    assert storage.objects == {}


class Broken(DictStorage):
    """Does one thing wrong."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.deleted: dict[str, bytes] = {}

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        if self.fault == "never replaces" and key in self.objects:
            return len(joined(body))
        return super().put(key, body, create_only=create_only and self.fault != "ignores create-only")

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if self.fault == "no ranges" and end is not None:
            raise StorageError("no ranges here")
        content = super().get(key, start, end)
        if self.fault == "flips a bit" and len(content) > 1_000_000:
            return content[:-1] + bytes([content[-1] ^ 1])
        return content

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if self.fault == "lists what was deleted":
            yield from (ObjectInfo(key, 1) for key in {**self.deleted, **self.objects} if key.startswith(prefix))
            return
        yield from () if self.fault == "lists late" else super().list(prefix)

    @override
    def delete(self, keys: object) -> None:
        self.deleted.update(self.objects)
        super().delete(keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "lacking"),
    [
        ("ignores create-only", "create_only"),
        ("never replaces", "replaces"),
        ("no ranges", "ranges"),
        ("lists late", "reads_own_writes"),
        ("lists what was deleted", "reads_own_writes"),
    ],
)
def test_the_probe_sees_what_is_lacking(fault: str, lacking: str) -> None:
    assert not getattr(probe(Broken(fault)), lacking)
    assert getattr(probe(DictStorage()), lacking)


def test_a_large_object_that_comes_back_changed_is_seen() -> None:
    assert not measure_throughput(Broken("flips a bit"), size=3_000_000).intact


@pytest.mark.parametrize("size", [1, 20 << 20])
def test_every_backend_is_measured_and_left_empty(target: StorageTarget, size: int) -> None:
    storage = open_storage(target.url, target.storage_options)
    assert check_access(storage).allowed == EVERYTHING
    timings = measure_latency(storage, count=2)
    assert list(timings) == ["put", "get", "head", "list", "delete"]
    assert all(0 < timing.median <= timing.worst for timing in timings.values())
    counts: list[int] = []
    seen = measure_throughput(storage, size=size, on_progress=counts.append)
    assert seen.intact
    assert seen.size == size
    assert sum(counts) == 2 * size
    clock = measure_clock(storage)
    assert clock is not None
    assert abs(clock.ahead_s) < 60  # The same machine.
    assert target.raw.keys() == []


@pytest.mark.parametrize("hours", [-3, 0, 5])
def test_a_clock_that_is_off_is_seen(hours: int) -> None:
    class Skewed(DictStorage):
        @override
        def head(self, key: str) -> ObjectInfo:
            modified = datetime.now(UTC) + timedelta(hours=hours)
            return ObjectInfo(key, 1, modified.replace(microsecond=0))

    seen = measure_clock(Skewed())
    assert seen is not None
    assert seen.ahead_s == pytest.approx(hours * 3600, abs=60)
    assert seen.uncertainty_s >= 0.5
    assert measure_clock(DictStorage()) is None


@pytest.mark.parametrize("what", ["write", "read", "list"])
def test_a_measurement_that_fails_leaves_nothing(what: str) -> None:
    storage: Storage = Refusing(what)
    with pytest.raises(StorageAccessError):
        measure_latency(storage)
    assert isinstance(storage, Refusing)
    assert storage.objects == {}
