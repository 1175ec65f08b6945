"""Every value that the format holds comes back as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.codecs import decode_tree, encode_tree
from tests.codecs.corpus import ARRAYS, PLAIN_VALUES, Point, training_state
from tests.codecs.profiles import codec_settings
from tests.codecs.same import assert_same


def round_trip(value: Any) -> Any:
    encoded = encode_tree(value)
    data = b"".join(encoded)
    assert len(data) == encoded.size
    return decode_tree(data)


def named(value: object) -> str:
    """The name of a test. A set's order changes from process to process, and its tests may run in several."""
    shown = "" if isinstance(value, (set, frozenset)) else repr(value)
    return f"{type(value).__name__} {shown:.30}"


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=named)
def test_plain_value_comes_back_bit_exact(value: Any) -> None:
    assert_same(round_trip(value), value)


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=named)
def test_value_comes_back_from_inside_containers(value: Any) -> None:
    nested = {"list": [value, 1], "tuple": ({"x": value},), 5: {"deep": [[value]]}}
    assert_same(round_trip(nested), nested)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}")
def test_array_comes_back_bit_exact(array: Any) -> None:
    assert_same(round_trip([array])[0], array)


def test_arrays_come_back_writable_and_own_their_memory() -> None:
    frozen = np.arange(10_000)
    frozen.flags.writeable = False
    loaded = round_trip(frozen)
    loaded += 1
    assert loaded.flags.owndata
    assert frozen[0] == 0


def test_memory_order_is_kept() -> None:
    fortran = np.asfortranarray(np.arange(1000.0).reshape(50, 20))
    assert round_trip(fortran).flags.f_contiguous


def test_an_array_that_occurs_twice_stays_one_object() -> None:
    array = np.zeros(1000)
    loaded = round_trip({"a": array, "b": [array]})
    assert loaded["a"] is loaded["b"][0]
    assert encode_tree([array, array]).size == encode_tree([array, None]).size


def test_memmap_comes_back_as_array(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "m", dtype="f4", mode="w+", shape=(300,))
    mapped[:] = 2
    loaded = round_trip(mapped)
    assert type(loaded) is np.ndarray
    assert (loaded == 2).all()


def test_dict_order_is_kept() -> None:
    keys = [f"k{i * 7919 % 1000}" for i in range(1000)]
    assert list(round_trip(dict.fromkeys(keys, 0))) == keys
    assert list(round_trip({(k,): 0 for k in keys})) == [(k,) for k in keys]


def test_equal_sets_make_equal_bytes() -> None:
    forwards = {str(i) for i in range(1000)}
    backwards = {str(i) for i in reversed(range(1000))}
    assert b"".join(encode_tree(forwards)) == b"".join(encode_tree(backwards))


def test_encoding_leaves_the_object_alone() -> None:
    state = training_state()
    before = copy.deepcopy(state)
    round_trip(state)
    assert_same(state, before)


def test_frozen_dataclass_keys_are_found_again() -> None:
    assert round_trip({Point(1, 2): "here"})[Point(1, 2)] == "here"


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: {b"k": x}])
def test_256_levels_of_nesting_are_fine(wrap: Any) -> None:
    value: Any = 1
    for _ in range(256):
        value = wrap(value)
    assert round_trip(value) == value


def test_segments_are_views_of_the_objects_memory() -> None:
    array = np.zeros(1000, dtype="u1")
    encoded = encode_tree([array, np.zeros((100, 100))[:, ::2], b"x" * 1000])
    assert encoded.private == (False, True, True)
    array[:] = 7
    assert bytes(encoded.segments[0]) == b"\x07" * 1000


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.complex_numbers()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.decimals()
)
KEYS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=5)
        | st.sets(KEYS, max_size=5)
        | st.builds(bytearray, st.binary())
    ),
    max_leaves=30,
)


@codec_settings()
@given(TREES)
def test_any_tree_comes_back_bit_exact(tree: Any) -> None:
    assert_same(round_trip(tree), tree)
