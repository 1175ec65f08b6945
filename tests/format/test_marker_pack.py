from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.errors import FormatError
from statevault.format.marker_pack import MAX_PACK_SIZE, MarkerPack, PackedMarker, microseconds

MARKERS = [PackedMarker(1, "a.state", 2, 1_700_000_000_123_456, b"{}"), PackedMarker(2, "b.state", 3, -1, b"\xff\x00{")]


def test_a_pack_comes_back_as_it_was() -> None:
    pack = MarkerPack(markers=MARKERS)
    assert MarkerPack.unpack(pack.pack(), where="here") == pack


def test_an_entry_takes_no_more_room_than_it_says() -> None:
    entries = [PackedMarker(10**12 - 1, "s" * 200, size, 2**62, b"x" * size) for size in (1, 300, 70_000)]
    for entry in entries:
        assert len(msgpack.packb(entry)) <= PackedMarker.room(entry.state, entry.size)
    assert len(MarkerPack(markers=[]).pack()) <= PackedMarker.room("", 0)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = msgpack.unpackb(MarkerPack(markers=MARKERS).pack())
    change(fields)
    packed: bytes = msgpack.packb(fields)
    return packed


MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a newer version": lambda p: p.update(version=2),
    "no version": lambda p: p.update(version=None),
    "another format": lambda p: p.update(format="statevault-manifest"),
    "no markers": lambda p: p.pop("markers"),
    "markers that are none": lambda p: p.update(markers=[1, 2]),
    "an entry that is too short": lambda p: p["markers"][0].pop(),
    "an entry that is too long": lambda p: p["markers"][0].append(1),
    "no sequence": lambda p: p["markers"][0].__setitem__(0, 0),
    "no state's name": lambda p: p["markers"][0].__setitem__(1, "../a.state"),
    "a negative size": lambda p: p["markers"][0].__setitem__(2, -1),
    "a huge size": lambda p: p["markers"][0].__setitem__(2, 17 << 20),
    "a time that is text": lambda p: p["markers"][0].__setitem__(3, "2026"),
    "text for bytes": lambda p: p["markers"][0].__setitem__(4, "{}"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_pack_is_refused(what: str) -> None:
    with pytest.raises(FormatError, match="here is malformed"):
        MarkerPack.unpack(changed(MALFORMED[what]), where="here")


def test_fields_of_later_versions_are_passed_over() -> None:
    assert MarkerPack.unpack(changed(lambda p: p.update(later=1)), where="here").markers == MARKERS


def test_a_pack_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(FormatError, match="at most"):
        MarkerPack.unpack(bytes(MAX_PACK_SIZE + 1), where="here")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_pack_or_refused(data: bytes) -> None:
    with suppress(FormatError):
        MarkerPack.unpack(data, where="here")


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_instants_are_told_apart_to_the_microsecond(one: datetime, other: datetime) -> None:
    assert (microseconds(one) == microseconds(other)) == (one == other)
    assert microseconds(one.astimezone(timezone(timedelta(0), "same"))) == microseconds(one)


def test_an_instant_without_a_time_zone_is_none() -> None:
    assert microseconds(None) is None
    assert microseconds(datetime(2026, 1, 1)) is None
    assert microseconds(datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC)) == 1_000_002
