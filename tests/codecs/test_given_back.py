"""What a tree takes, it gives back, whatever torch's defaults are; the rest is refused before anything is written."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch.overrides import TorchFunctionMode

from statevault import StateStore
from statevault.codecs import decode_tree, digest, encode_tree, read_tree, write_tree
from statevault.codecs.snapshot_memory import SnapshotMemory
from statevault.codecs.tree.held import HeldTrees, holding
from statevault.codecs.tree.received import ReceivedTree
from statevault.codecs.tree.stubs import is_stub
from statevault.errors import FormatError, UnsupportedTypeError
from tests.codecs import everything
from tests.codecs.forge import forge, tagged
from tests.codecs.profiles import codec_settings
from tests.codecs.same import assert_same
from tests.profiles import is_long

pack = msgpack.packb


class PassingOn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # and fill what torch.empty makes, by default
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "nothing": nullcontext,
    "cpu": lambda: default_device("cpu"),
    "meta": lambda: default_device("meta"),
    "within meta": lambda: torch.device("meta"),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
    "function mode": PassingOn,
}


class Component:
    """Keeps one value, as the models and buffers of statevault do."""

    def __init__(self, value: Any, *, mapped: bool) -> None:
        self.value = value
        self.mapped = mapped

    def save_state(self, path: Path) -> None:
        write_tree(self.value, path, held=True)

    def load_state(self, path: Path) -> None:
        self.value = read_tree(path, mapped=self.mapped)


def through_memory(value: Any, folder: Path) -> Any:
    del folder
    return decode_tree(b"".join(encode_tree(value)), map_location="cpu")


def through_a_file(value: Any, folder: Path, *, mapped: bool = False, map_location: Any = None) -> Any:
    write_tree(value, folder / "tree")
    return read_tree(folder / "tree", mapped=mapped, map_location=map_location)


def through_a_held_tree(value: Any, folder: Path) -> Any:
    trees = HeldTrees(folder, SnapshotMemory(lambda: 1 << 40))
    with holding(trees):
        write_tree(value, folder / "tree", held=True)
    assert is_stub(folder / "tree")
    try:
        return read_tree(folder / "tree")
    finally:
        trees.release()


def through_a_received_tree(value: Any, folder: Path) -> Any:
    write_tree(value, folder / "file")
    content = (folder / "file").read_bytes()
    tree = ReceivedTree(len(content))
    tree.memory[:] = content
    tree.complete(lambda memory: digest(memory) == digest(content))
    (folder / "tree").write_bytes(tree.stub)
    try:
        return read_tree(folder / "tree", mapped=True)
    finally:
        tree.release()


def through_a_store(value: Any, folder: Path, *, mapped: bool) -> Any:
    component = Component(value, mapped=mapped)
    with StateStore(folder / "states") as store:
        store.register("component", component)
        store.save_state()
        component.value = None
        store.load_state()
    return component.value


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "memory": through_memory,
    "file": through_a_file,
    "mapped file": functools.partial(through_a_file, mapped=True),
    "file to cpu": functools.partial(through_a_file, map_location="cpu"),
    "mapped file to cpu": functools.partial(through_a_file, mapped=True, map_location={"cuda:0": "meta"}),
    "held": through_a_held_tree,
    "received": through_a_received_tree,
    "store": functools.partial(through_a_store, mapped=False),
    "mapped store": functools.partial(through_a_store, mapped=True),
}


@functools.cache
def values() -> dict[str, Any]:
    made: dict[str, Any] = everything.quietly(everything.accepted)
    return made


def assert_given_back(got: Any, expected: Any) -> None:
    assert_same(got, expected)
    for name, value in got.items():
        if isinstance(value, torch.Tensor):
            assert not value.is_inference(), name
            assert value.is_leaf, name


PAIRS = [
    (setting, way)
    for setting, way in itertools.product(SETTINGS, WAYS)
    if setting == "meta" or way == "mapped file" or is_long()
]


@pytest.mark.parametrize(("setting", "way"), PAIRS)
def test_everything_comes_back_under_any_defaults(tmp_path: Path, setting: str, way: str) -> None:
    expected = values()
    with SETTINGS[setting]():
        got = WAYS[way](expected, tmp_path)
    assert_given_back(got, expected)


@pytest.mark.parametrize("name", everything.refused())
@pytest.mark.parametrize("setting", ["nothing", "meta", "inference"])
def test_the_rest_is_refused_with_its_place_and_a_remedy(tmp_path: Path, setting: str, name: str) -> None:
    make, words = everything.refused()[name]
    value = everything.quietly(make)
    with SETTINGS[setting](), pytest.raises(UnsupportedTypeError, match=words) as caught:
        write_tree({"good": 1, "some": [0, {"place": value}]}, tmp_path / "tree")
    assert str(caught.value).startswith("tree: ['some'][1]['place']: ")
    assert "allow_pickle=True" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transformation", ["vmap", "grad", "functionalize"])
def test_tensors_inside_of_transformations_are_refused(transformation: str) -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        with pytest.raises(UnsupportedTypeError, match=r"\['x'\].*inside of torch.func"):
            encode_tree({"x": x})
        return x.sum()

    getattr(torch.func, transformation)(body)(torch.ones(3) if transformation == "grad" else torch.ones(3, 4))


def test_a_mode_that_fakes_tensors_is_not_taken_for_damage(tmp_path: Path) -> None:
    from torch._subclasses import FakeTensorMode

    write_tree(torch.ones(30_000), tmp_path / "tree")
    for mapped in (False, True):
        with FakeTensorMode(), pytest.raises(Exception, match="FakeTensors instead of tensors") as caught:
            read_tree(tmp_path / "tree", mapped=mapped)
        assert not isinstance(caught.value, FormatError)


def test_loaded_parameters_can_be_trained_after_inference_mode() -> None:
    data = b"".join(encode_tree(torch.nn.Parameter(torch.ones(3))))
    with torch.inference_mode():
        parameter = decode_tree(data)
    parameter.sum().backward()
    torch.optim.SGD([parameter], lr=1.0).step()
    assert parameter.tolist() == [0, 0, 0]


def test_default_devices_do_not_move_what_map_location_moves() -> None:
    data = b"".join(encode_tree([torch.ones(3), torch.ones(300)]))
    for device, location in itertools.product(["cpu", "meta"], ["cpu", "meta"]):
        with default_device(device):
            assert [tensor.device.type for tensor in decode_tree(data, map_location=location)] == [location] * 2


def test_integers_of_one_size_come_back_as_one_type() -> None:
    for scalar in (np.longlong(-3), np.ulonglong(3)):
        got = decode_tree(b"".join(encode_tree([scalar, np.full(3, scalar)])))
        assert (got[0], got[0].dtype) == (scalar, scalar.dtype)
        assert (got[1].dtype, got[1].tolist()) == (scalar.dtype, [scalar] * 3)


def test_files_of_the_version_before_load() -> None:
    """It wrote these, and refused to read them."""
    names = ["qint8", "quint8", "qint32", "quint4x2", "quint2x4"]
    for name in names:
        dtype = getattr(torch, name)
        assert decode_tree(forge(tagged(35, pack(name)))) is dtype
        leaf = ["t", 0, name, [2, 60], [120, 1], 0, 0, None]
        tensor = decode_tree(forge(b"\xd6\0\0\0\0\0", leaf_table=[[None], [leaf]], segments=(bytes(1000),)))
        assert (tensor.dtype, tensor.shape, tensor.is_quantized) == (dtype, (2, 60), False)
    assert_same(decode_tree(forge(tagged(33, pack("|V0"), pack(b"")))), np.void(b""))
    assert decode_tree(forge(tagged(33, pack([[], [], [], 0, False]), pack(b"")))).dtype == np.dtype([])


def test_records_and_read_only_items_have_bytes_of_their_own() -> None:
    record = [["x"], ["<i4"], [0], 4, False, "record"]
    array = np.zeros(1, np.dtype((np.record, [("x", "<i4")])))
    expected = forge(b"\xd6\0\0\0\0\0", leaf_table=[[bytes(4)], [["a", 0, record, [1], "C"]]])
    assert b"".join(encode_tree(array)) == expected
    assert b"".join(encode_tree(array[0])) == forge(tagged(33, pack(record), pack(bytes(4))))
    array.flags.writeable = False
    assert b"".join(encode_tree(array[0])) == forge(tagged(33, pack(record), pack(bytes(4)), pack(True)))


def test_what_this_torch_does_not_know_is_named() -> None:
    with pytest.raises(FormatError, match="no dtype 'float3'"):
        decode_tree(forge(tagged(35, pack("float3"))))
    leaf = ["t", 0, "float32", [1] * 65, None, 0, 0, None]
    with pytest.raises(FormatError, match="65 dimensions"):
        decode_tree(forge(b"\xd6\0\0\0\0\0", leaf_table=[[b"1234"], [leaf]]))


def is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or value.dtype in everything.NUMPY_DTYPES


TORCH_DTYPES = st.sampled_from(everything.TORCH_DTYPES)
NUMPY_DTYPES = st.sampled_from(everything.NUMPY_DTYPES) | npst.nested_dtypes(max_leaves=6) | npst.array_dtypes()
SIZES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def views_of_tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any view of a tensor: cut, turned, expanded."""
    tensor = everything.raw_tensor(draw(TORCH_DTYPES), draw(SIZES))
    for dimension in range(tensor.dim()):
        start, step = draw(st.integers(0, 3)), draw(st.integers(1, 3))
        tensor = tensor[(*[slice(None)] * dimension, slice(start, None, step))]
    tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    if draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(draw(st.integers(0, 3)), *tensor.shape)
    if tensor.is_floating_point() and tensor.dtype.itemsize > 1 and draw(st.booleans()):
        tensor = tensor.requires_grad_()
    return torch.nn.Parameter(tensor, requires_grad=tensor.requires_grad) if draw(st.booleans()) else tensor


@st.composite
def views_of_arrays(draw: st.DrawFn) -> Any:
    """Any view of an array of any dtype: cut, turned, backwards; or one of its items."""
    array = everything.raw_array(np.dtype(draw(NUMPY_DTYPES)), draw(SIZES))
    indices: list[Any] = [slice(None, None, draw(st.sampled_from([1, 2, -1, -2]))) for _ in array.shape]
    array = array[(*indices, ...)].transpose(draw(st.permutations(range(array.ndim))))
    if draw(st.booleans()):
        array.flags.writeable = False
    if array.size and draw(st.booleans()):
        return array[(0,) * array.ndim]
    return array


# Torch takes one default device at a time.
DEVICES = st.sampled_from(["nothing", "cpu", "meta", "within meta"])
OTHERS = st.lists(
    st.sampled_from([name for name in SETTINGS if name not in ("cpu", "meta", "within meta")]), unique=True
)


@codec_settings()
@given(st.lists(views_of_tensors() | views_of_arrays(), max_size=6), DEVICES, OTHERS)
def test_any_array_or_tensor_is_given_back_or_refused(values: list[Any], device: str, others: list[str]) -> None:
    for tree in (values, {"all": tuple(values)}):
        with ExitStack() as stack:
            for setting in (device, *others):
                stack.enter_context(SETTINGS[setting]())
            try:
                data = b"".join(encode_tree(tree))
            except UnsupportedTypeError:
                # Only for what NumPy's strategy makes beyond: titles of fields, objects.
                assert not all(map(is_plain, values))
                continue
            got = decode_tree(data)
        assert_same(got, tree)
