"""Sealed JSON: people can read it, and a torn one is told from a good one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.errors import CorruptStateError, FormatError, UnsupportedTypeError
from statevault.sealed import from_sealed_json, sealed_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.text(min_size=1).filter(lambda key: key != "digest"), VALUES, max_size=6))
def test_what_was_encoded_comes_back(fields: dict[str, Any]) -> None:
    assert from_sealed_json(sealed_json(fields), where="here") == fields


def test_a_record_can_be_formatted_anew() -> None:
    data = sealed_json({"b": 1, "a": {"z": 2, "y": [1.5, "ü"]}})
    compact = json.dumps(dict(reversed(json.loads(data).items()))).encode()
    assert from_sealed_json(compact, where="here") == {"b": 1, "a": {"z": 2, "y": [1.5, "ü"]}}


def test_a_changed_record_is_damaged() -> None:
    data = sealed_json({"n_trials": 10})
    with pytest.raises(CorruptStateError, match='metadata.json.*delete its line "digest"'):
        from_sealed_json(data.replace(b"10", b"11"), where="metadata.json")


def test_a_cut_record_is_never_taken_for_a_whole_one() -> None:
    data = sealed_json({"n_trials": 10, "names": ["a", "b"]})
    for end in range(len(data) - 1):  # without its last line feed, it is whole
        with pytest.raises((CorruptStateError, FormatError)):
            from_sealed_json(data[:end], where="here")


def test_a_record_without_a_digest_is_another_programs() -> None:
    assert from_sealed_json(b'{"n_trials": 3}', where="here") == {"n_trials": 3}
    assert str(from_sealed_json(b'{"score": NaN}', where="here")["score"]) == "nan"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1]",
        b"null",
        b"\xff",
        b"{" * 100_000,
        b'{"x": NaN, "digest": "00"}',
        b'{"x": "\\ud800", "digest": "00"}',
        b'{"x": "\\ud800"}',
        b'{"x": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_told(data: bytes) -> None:
    with pytest.raises(FormatError, match="here"):
        from_sealed_json(data, where="here")


@pytest.mark.parametrize("fields", [{"a": float("inf")}, {"a": object()}, {"a": "\ud800"}])
def test_what_is_not_json_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedTypeError):
        sealed_json(fields)
