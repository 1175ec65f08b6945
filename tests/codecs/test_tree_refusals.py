"""What can't be stored is refused at save, with its place, its type and a remedy."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import threading
from collections import defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from statevault.codecs import decode_tree, encode_tree, pickle_policy, read_tree, write_tree
from statevault.errors import FormatError, PickleNotAllowedError, UnsupportedTypeError
from tests.codecs.corpus import Mode


class DictSubclass(dict[str, int]):
    pass


class FloatSubclass(float):
    pass


class Picklable:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picklable) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class WithFinalizer:
    x: int = 0

    def __del__(self) -> None:
        pass


@dataclasses.dataclass
class WithSetter:
    x: int

    @property
    def y(self) -> int:
        return self.x

    @y.setter
    def y(self, value: int) -> None:
        self.x = value


class OddZone(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None, /) -> datetime.timedelta:
        return datetime.timedelta(hours=1)

    def dst(self, moment: datetime.datetime | None, /) -> None:
        return None

    def tzname(self, moment: datetime.datetime | None, /) -> str:
        return "odd"


WITH_METADATA = np.dtype("f8", metadata={"unit": "m"})


def local_classes() -> tuple[Any, Any, Any]:
    local = namedtuple("local", ["x"])  # noqa: PYI024

    class Local(enum.Enum):
        A = 1

    @dataclasses.dataclass
    class LocalData:
        x: int

    return local(1), Local.A, LocalData(1)


def with_extra_attribute() -> Any:
    value = WithSetter(1)
    value.__dict__["note"] = 2
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "dicts, lists"),
        (DictSubclass(), r"store dict\(value\)"),
        (FloatSubclass(1), r"store float\(value\)"),
        (lambda: 0, "function"),
        (threading.Lock(), "lock"),
        (int, "type"),
        (range(3), "range"),
        (memoryview(b"x"), "memoryview"),
        (defaultdict(lambda: 0), r"store dict\(value\)"),
        (np.array([object()]), "dtype is object"),
        # numpy 2 only
        *[(np.array(["x"], dtype=kind()), "StringDType") for kind in [getattr(np.dtypes, "StringDType", None)] if kind],
        (np.ma.masked_array([1], [True]), "MaskedArray"),
        (np.zeros(2, dtype=[("a", "O")]), "dtype"),
        (np.zeros(2, WITH_METADATA), "carries metadata, which would be lost"),
        (np.zeros(2, [("a", "i4"), ("b", WITH_METADATA, (2,))]), "carries metadata"),
        (np.zeros(2, [("a", [("b", WITH_METADATA)])])[0], "carries metadata"),
        (np.zeros(2, np.dtype([("a", "i4")], metadata={"unit": "m"})), "carries metadata"),
        (np.array(["x"], np.dtype("U3", metadata={"unit": "m"})), "carries metadata"),
        (np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "titles": ["A"]})), "dtype is"),
        (np.zeros(2, [("a", "i4")]).view(np.recarray), r"numpy\.asarray"),
        (np.record(5), r"come back as a numpy\.void"),
        (np.random.default_rng(), "bit_generator.state"),
        (np.random.RandomState(1), "get_state"),
        (torch.Generator(), "get_state"),
        (torch.nn.Linear(1, 1), "state_dict"),
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.empty(3, device="meta"), "meta device"),
        (torch.nn.UninitializedParameter(), "UninitializedParameter"),
        (datetime.datetime(2024, 1, 1, tzinfo=OddZone()), "zoneinfo"),
        (Mode.READ | Mode.WRITE, "store its value"),
        (WithFinalizer(), "__del__"),
        (with_extra_attribute(), "'note'"),
        *[(value, "module level") for value in local_classes()],
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_refused_with_place_type_and_remedy(value: Any, words: str) -> None:
    tree = {"models": {"policy": [1, 2, (3, value)]}}
    with pytest.raises(UnsupportedTypeError, match=words) as caught:
        encode_tree(tree)
    message = str(caught.value)
    assert message.startswith("['models']['policy'][2][1]: ")
    assert type(value).__name__ in message
    assert "allow_pickle=True" in message


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_tensor_is_refused() -> None:
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(UnsupportedTypeError, match=r"\['q'\].*int_repr"):
        encode_tree({"q": tensor})


def test_the_file_is_named_and_none_is_left(tmp_path: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"policy\.tree: \['x'\]: "):
        write_tree({"x": object()}, tmp_path / "policy.tree")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_cannot_be_stored_is_named_without_running_its_repr() -> None:
    class Key:
        def __repr__(self) -> str:
            raise AssertionError

    with pytest.raises(UnsupportedTypeError, match=r"\[<.*Key>\]"):
        encode_tree({Key(): 1})


def test_a_key_that_is_too_long_to_be_shown_is_named() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^\['a'\]\[<int>\]: object can't be stored"):
        encode_tree({"a": {10**5000: object()}})


def test_fields_are_named_as_attributes() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^\['s'\]\.x: object"):
        encode_tree({"s": WithSetter(object())})  # type: ignore[arg-type]


def test_a_cycle_is_named() -> None:
    inner: dict[str, Any] = {"list": [1]}
    inner["list"].append(inner)
    with pytest.raises(UnsupportedTypeError, match=r"^\['a'\] contains itself, at \['list'\]\[1\]"):
        encode_tree({"a": inner})


@pytest.mark.parametrize("levels", [257, 5000])
def test_too_deep_nesting_is_refused(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    with pytest.raises(UnsupportedTypeError, match="256 levels deep"):
        encode_tree(value)


def test_a_stack_that_is_almost_full_is_a_clear_error() -> None:
    nested: Any = 1
    for _ in range(200):
        nested = [nested]

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            encode_tree(nested)

    with pytest.raises((UnsupportedTypeError, RecursionError)) as caught:
        descend(1000)
    assert isinstance(caught.value, RecursionError)  # it's the caller's own recursion
    with pytest.raises(UnsupportedTypeError, match="stack"):
        descend(700)


def test_values_are_pickled_where_allowed(tmp_path: Any) -> None:
    path = tmp_path / "x.tree"
    value = {"plain": 1, "odd": Picklable(3), "again": [Picklable(4)], "array": np.array([Picklable(5)])}
    with pytest.raises(UnsupportedTypeError):
        write_tree(value, path)
    write_tree(value, path, allow_pickle=True)
    loaded = read_tree(path, allow_pickle=True)
    assert loaded["odd"] == Picklable(3)
    assert loaded["array"][0] == Picklable(5)
    for allow_pickle in (None, False):
        with pytest.raises(PickleNotAllowedError, match="allow_pickle=True"):
            read_tree(path, allow_pickle=allow_pickle)


def test_what_pickle_cannot_hold_either_is_named() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"^\['f'\]: function can't be stored, nor pickled"):
        encode_tree({"f": lambda: 0}, allow_pickle=True)


def test_a_policy_that_forbids_pickles_wins() -> None:
    data = b"".join(encode_tree(Picklable(1), allow_pickle=True))
    with pickle_policy(allowed=False):
        with pytest.raises(UnsupportedTypeError):
            encode_tree(Picklable(1), allow_pickle=True)
        with pytest.raises(PickleNotAllowedError):
            decode_tree(data, allow_pickle=True)
    with pickle_policy(allowed=True):
        assert decode_tree(b"".join(encode_tree(Picklable(1)))) == Picklable(1)
        with pytest.raises(UnsupportedTypeError):
            encode_tree(Picklable(1), allow_pickle=False)


def test_a_pickle_that_fails_to_load_is_a_format_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(encode_tree(Picklable(1), allow_pickle=True))
    monkeypatch.delattr("tests.codecs.test_tree_refusals.Picklable")
    with pytest.raises(FormatError, match="Picklable"):
        decode_tree(data, allow_pickle=True)
