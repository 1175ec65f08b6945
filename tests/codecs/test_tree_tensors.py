"""Tensors: dtypes, layouts, sharing, devices."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgpack
import pytest
import torch

from statevault.codecs import decode_tree, encode_tree, read_tree, write_tree
from statevault.codecs.tree.layout import build_head
from statevault.errors import FormatError, StateVaultError
from tests.codecs.forge import ext
from tests.codecs.same import assert_same, tensor_bytes

DTYPES = sorted({str(value)[6:] for value in vars(torch).values() if isinstance(value, torch.dtype)})


def round_trip(value: Any, **options: Any) -> Any:
    return decode_tree(b"".join(encode_tree(value)), **options)


def raw_tensor(dtype: torch.dtype, items: int) -> torch.Tensor:
    memory = torch.arange(items * dtype.itemsize, dtype=torch.int64).to(torch.uint8)
    if dtype is torch.bool:
        memory %= 2
    return torch.empty(0, dtype=torch.uint8).view(dtype).detach().set_(memory.untyped_storage(), 0, (items,), (1,))


@pytest.mark.parametrize("items", [0, 1, 3, 500])
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_bit_exact(name: str, items: int) -> None:
    tensor = raw_tensor(getattr(torch, name), items)
    assert_same(round_trip(tensor), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.zeros(0),
        torch.zeros(3, 0, 5),
        torch.randn(30, 40).t(),
        torch.randn(10, 20, 30).permute(2, 0, 1)[::3],
        torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last),
        torch.randn(1, 5).expand(1000, 5),
        torch.randn(100, 100)[:, 3],
        torch.randn(100)[50:60],
        torch.view_as_real(torch.randn(50, dtype=torch.complex64))[:, 1],
        torch.randn(50, dtype=torch.complex64).conj(),
        torch.randn(50, dtype=torch.complex64).conj().imag,
        torch.randn(300, requires_grad=True),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.stride()}",
)
def test_every_layout_comes_back(tensor: torch.Tensor) -> None:
    loaded = round_trip({"t": tensor})["t"]
    assert_same(loaded, tensor)
    assert loaded.is_leaf


def test_memory_format_is_kept() -> None:
    image = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    assert round_trip(image).stride() == image.stride()


def test_parameters_stay_parameters() -> None:
    module = torch.nn.Linear(30, 40)
    frozen = torch.nn.Parameter(torch.ones(1000), requires_grad=False)
    weight, loaded_frozen = round_trip([module.weight, frozen])
    assert type(weight) is torch.nn.Parameter
    assert weight.requires_grad
    assert type(loaded_frozen) is torch.nn.Parameter
    assert not loaded_frozen.requires_grad


def test_a_result_of_autograd_comes_back_as_leaf() -> None:
    loaded = round_trip(torch.ones(3, requires_grad=True) * 2)
    assert loaded.is_leaf
    assert loaded.requires_grad


def test_one_tensor_twice_is_one_tensor_again() -> None:
    tied = torch.nn.Parameter(torch.randn(500))
    loaded = round_trip({"embedding": tied, "head": [tied]})
    assert loaded["embedding"] is loaded["head"][0]


def test_overlapping_views_share_memory_again() -> None:
    base = torch.zeros(1000)
    loaded = round_trip({"whole": base, "row": base[10:20], "ints": base.view(torch.int32)[15:17]})
    loaded["whole"][15] = 1.0
    assert loaded["row"][5] == 1.0
    assert loaded["ints"][0] == 0x3F800000


def test_unaligned_start_of_a_shared_block_keeps_wider_views_aligned() -> None:
    base = torch.arange(4000, dtype=torch.int16)
    views = {"short": base[1:2000], "double": base.view(torch.float64)[1:300]}
    loaded = round_trip(views)
    assert_same(loaded, views)
    assert loaded["short"].untyped_storage().data_ptr() == loaded["double"].untyped_storage().data_ptr()


def test_disjoint_views_do_not_drag_the_storage_between_them() -> None:
    huge = torch.zeros(1_000_000)
    encoded = encode_tree([huge[:200], huge[-200:]])
    assert encoded.size < 10_000
    first, last = decode_tree(b"".join(encoded))
    assert first.untyped_storage().data_ptr() != last.untyped_storage().data_ptr()


def test_a_small_view_does_not_drag_its_storage() -> None:
    huge = torch.arange(1_000_000)
    for view in (huge[5:10], huge.view(1000, 1000)[:, 7], huge[::1000]):
        assert encode_tree(view).size < 20_000
        assert torch.equal(round_trip(view), view)


def test_two_storages_on_the_same_memory_are_shared_or_at_least_right() -> None:
    memory = bytearray(range(256)) * 16
    first = torch.frombuffer(memory, dtype=torch.uint8, count=3000)
    second = torch.frombuffer(memory, dtype=torch.int32, offset=1000)
    assert_same(round_trip([first, second]), [first, second])


def test_unaligned_memory_is_stored() -> None:
    memory = bytearray(range(256)) * 16
    tensor = torch.frombuffer(memory, dtype=torch.float32, offset=3, count=900)
    expected = bytes(memory[3:3603])
    assert tensor_bytes(round_trip(tensor)) == expected


def test_views_on_many_tensors_in_one_tree() -> None:
    base = torch.randn(64, 64)
    tree = {f"{i}": base[i : i + 3] for i in range(60)}
    encoded = encode_tree(tree)
    assert encoded.size < base.nbytes + 10_000
    assert_same(decode_tree(b"".join(encoded)), tree)


def test_empty_tensors_between_others_keep_their_shape() -> None:
    base = torch.randn(1000)
    tree = [base[:500], base[200:200], base[100:900], torch.zeros(0, 7), torch.zeros(0, 7)]
    assert_same(round_trip(tree), tree)


@pytest.mark.parametrize("mapped", [False, True])
def test_loaded_tensors_are_writable_and_independent_of_the_file(tmp_path: Any, mapped: bool) -> None:
    path = tmp_path / "x.tree"
    tensor = torch.randn(100_000)
    write_tree(tensor, path)
    before = path.read_bytes()
    loaded = read_tree(path, mapped=mapped)
    loaded.add_(1)
    assert path.read_bytes() == before
    path.unlink()
    assert torch.equal(loaded, tensor + 1)


def test_map_location_takes_a_device_or_a_mapping() -> None:
    tensor = torch.ones(300)
    assert round_trip(tensor, map_location="cpu").device.type == "cpu"
    assert round_trip(tensor, map_location=torch.device("meta")).device.type == "meta"
    assert round_trip(tensor, map_location={"cpu": "meta"}).device.type == "meta"
    assert round_trip(tensor, map_location={"cuda:0": "meta"}).device.type == "cpu"


@pytest.mark.parametrize("location", ["nowhere", 7.5, lambda storage, _: storage, {"cpu": None}])
def test_a_map_location_that_is_none_is_not_taken_for_damage(location: Any) -> None:
    with pytest.raises(StateVaultError, match=r"\(map_location\)") as caught:
        round_trip(torch.ones(300), map_location=location)
    assert not isinstance(caught.value, FormatError)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(StateVaultError, match=r"cuda:99 \(map_location\)") as caught:
        round_trip(torch.ones(300), map_location="cuda:99")
    assert not isinstance(caught.value, FormatError)


LITTLE_MEMORY = """
import os, pathlib, resource, sys, torch
from statevault.codecs import read_tree
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.RLIM_INFINITY))
try:
    read_tree(sys.argv[1])
except MemoryError as error:
    assert "2147483648 bytes" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is used")
def test_too_little_memory_is_not_taken_for_damage(tmp_path: Any) -> None:
    size = 2**31
    leaves = msgpack.packb([[None], [["t", 0, "uint8", [size], None, 0, 0, None]]])
    head = build_head([size], leaves, ext(0, bytes(4)), flags=0)
    with (tmp_path / "tree").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)  # no blocks on the disk
    subprocess.run([sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "tree")], check=True, timeout=600)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import statevault.codecs as codecs
from statevault.errors import MissingExtraError
for data in {files!r}:
    try:
        codecs.decode_tree(data)
    except MissingExtraError as error:
        assert "statevault[torch]" in str(error)
    else:
        raise AssertionError
"""


def test_without_torch_the_missing_extra_is_named() -> None:
    values = [torch.ones(3), torch.ones(300), torch.Size([1]), torch.float32, torch.device("cpu")]
    files = [b"".join(encode_tree(value)) for value in values]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH.format(files=files)], check=True, timeout=600)


def test_state_of_an_optimizer_can_be_loaded(tmp_path: Any) -> None:
    module = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 30)).sum().backward()
    optimizer.step()
    write_tree({"m": module.state_dict(), "o": optimizer.state_dict()}, tmp_path / "t")
    state = read_tree(tmp_path / "t")
    other = torch.nn.Linear(30, 20)
    other_optimizer = torch.optim.AdamW(other.parameters())
    other.load_state_dict(state["m"])
    other_optimizer.load_state_dict(state["o"])
    assert_same(other_optimizer.state_dict(), optimizer.state_dict())
    assert_same(dict(other.state_dict()), dict(module.state_dict()))


def test_torch_values_that_are_not_tensors() -> None:
    value = {"device": torch.device("cuda:1"), "dtype": torch.bfloat16, "size": torch.Size([2, 3])}
    assert_same(round_trip(value), value)


def test_random_state_of_torch() -> None:
    generator = torch.Generator().manual_seed(5)
    state = round_trip(generator.get_state())
    first = torch.rand(5, generator=generator)
    generator.set_state(state)
    assert torch.equal(torch.rand(5, generator=generator), first)
