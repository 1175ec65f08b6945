"""Seals: found where they are, and nowhere else."""

from __future__ import annotations

import pytest

from statevault.codecs import MAX_SEAL_SIZE, SealWriter, digest, find_seal
from statevault.errors import UnsupportedTypeError


def sealed(payload: bytes, info: dict[str, object]) -> bytes:
    writer = SealWriter(info)
    writer.update(payload)
    return payload + writer.finish()


def test_a_seal_says_what_it_was_given() -> None:
    info = {"iteration": 7, "name": "ü", "nested": {"list": [1, None, True]}}
    data = sealed(b"payload", info)
    seal = find_seal(data)
    assert seal is not None
    assert seal.info == info
    assert len(data) - seal.size == len(b"payload")
    assert seal.digest == digest(data[: len(data) - seal.digested_from_end])


def test_a_seal_is_found_with_any_part_of_the_payload_before_it() -> None:
    data = sealed(b"x" * 100, {})
    seal = find_seal(data)
    assert seal is not None
    for start in range(101):
        assert find_seal(data[start:]) == seal
    for start in range(101, len(data)):
        assert find_seal(data[start:]) is None


@pytest.mark.parametrize("payload", [b"", b"short", b"x" * 1000])
def test_a_file_that_is_cut_anywhere_has_no_seal(payload: bytes) -> None:
    data = sealed(payload, {"a": 1})
    for end in range(len(data)):
        assert find_seal(data[:end]) is None


def test_what_looks_like_the_end_of_a_seal_only_is_none() -> None:
    for tail in (b"svS1", b"\0\0\0\0svS1", b"\xff\xff\xff\xffsvS1", b"\x40\0\0\0svS1", b"x" * 100 + b"\x40\0\0\0svS1"):
        assert find_seal(tail) is None
        assert find_seal(b"\0" * 200 + tail) is None


def test_a_seal_that_says_something_else_than_a_json_object_is_none() -> None:
    data = bytearray(sealed(b"", {}))
    assert data[8:10] == b"{}"
    data[8:10] = b"[]"
    assert find_seal(data) is None
    data[8:10] = b"{]"
    assert find_seal(data) is None


def test_a_seal_has_at_most_the_size_of_a_zip_comment() -> None:
    room = MAX_SEAL_SIZE - SealWriter({"text": ""}).size
    assert SealWriter({"text": "x" * room}).size == MAX_SEAL_SIZE
    with pytest.raises(UnsupportedTypeError, match="65535"):
        SealWriter({"text": "x" * (room + 1)})


@pytest.mark.parametrize("info", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_a_seal_says_json_only(info: dict[str, object]) -> None:
    with pytest.raises(UnsupportedTypeError, match="must be JSON"):
        SealWriter(info)
