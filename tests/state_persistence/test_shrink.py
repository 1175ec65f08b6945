"""Byte planes: floats take less room, and come back bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.codecs import shuffle, unshuffle
from statevault.errors import CorruptStateError, FormatError
from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, SHUFFLED_WIDTHS
from statevault.state_persistence import StateStore
from statevault.state_persistence.content.chunk_encoding import Compression, decode_chunk, encode_chunk
from tests.state_persistence.components import Folder
from tests.state_persistence.storages import DictStorage

RNG = np.random.default_rng(1)
WEIGHTS = (RNG.standard_normal(700_000) * 0.02).astype("<f4")
FILES = {
    "float32.bin": WEIGHTS.tobytes(),
    "bfloat16.bin": (WEIGHTS.view("<u4") >> 16).astype("<u2").tobytes(),
    "float64.bin": RNG.standard_normal(200_000).tobytes(),
    "odd.bin": WEIGHTS.tobytes()[:-1] + b"abc",
    "text.txt": b"all quiet\n" * 10_000,
    "noise.bin": RNG.bytes(300_000),
    "tiny.bin": b"x",
    "empty.bin": b"",
}


@given(data=st.binary(max_size=200), width=st.sampled_from(sorted(SHUFFLED_WIDTHS.values())))
def test_planes_come_back(data: bytes, width: int) -> None:
    assert unshuffle(shuffle(data, width), width) == data


def test_planes_are_what_the_format_says() -> None:
    assert shuffle(b"aAbBcC!", 2) == b"abcABC!"
    assert shuffle(b"a123b456xy", 4) == b"ab142536xy"


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("name", FILES)
def test_a_chunk_comes_back(name: str, compression: Compression) -> None:
    raw = FILES[name] or b"-"
    stored, encoding = encode_chunk(raw, compression)
    assert bytes(decode_chunk(stored, encoding, size=len(raw))) == raw


@pytest.mark.parametrize(("name", "width", "share"), [("float32.bin", 4, 0.93), ("bfloat16.bin", 2, 0.9)])
def test_a_width_that_fits_the_items_is_found(name: str, width: int, share: float) -> None:
    stored, encoding = encode_chunk(FILES[name], Compression.SMALLEST)
    assert SHUFFLED_WIDTHS[encoding] % width == 0
    plain, _ = encode_chunk(FILES[name], Compression.ZSTD)
    assert len(stored) < share * len(plain)


def test_text_stays_text() -> None:
    assert encode_chunk(FILES["text.txt"], Compression.SMALLEST)[1] == ENCODING_ZSTD


def test_an_encoding_that_there_is_not_is_refused() -> None:
    with pytest.raises(FormatError, match="encoding 9"):
        decode_chunk(b"x", 9, size=1)
    with pytest.raises(CorruptStateError):
        decode_chunk(b"x", 3, size=1)


def saved(where: object, *, shrink: bool) -> tuple[int, dict[str, str]]:
    with StateStore(where, shrink=shrink) as store:  # type: ignore[arg-type]
        store.register("folder", Folder(FILES))
        store.save_state(name="a.state")
        manifest = store.open_state("a.state").manifest
        return store.info("a.state").stored_size, {
            file.path.removeprefix("folder/"): file.compression for file in manifest.files
        }


def test_a_state_takes_less_room_and_loads_as_it_was(tmp_path: Path) -> None:
    plain, _ = saved(tmp_path / "plain", shrink=False)
    shrunk, how = saved(tmp_path / "shrunk", shrink=True)
    assert shrunk < 0.95 * plain
    assert {name for name, what in how.items() if what == "shuffled"} - {"float64.bin"} == {
        "float32.bin",
        "bfloat16.bin",
        "odd.bin",
    }
    assert how["noise.bin"] == "none"
    folder = Folder()
    with StateStore(tmp_path / "shrunk") as store:  # a reader needs not be told
        store.register("folder", folder)
        store.verify("a.state")
        store.load_state("a.state")
    assert folder.files == FILES


def test_what_zstd_does_not_restore_is_not_named_as_if_it_did() -> None:
    storage = DictStorage()
    saved(storage, shrink=True)
    assert "a.state/folder/float32.bin.part.zst" in storage.objects
    assert "a.state/folder/noise.bin" in storage.objects


@pytest.mark.parametrize("shrink_there", [False, True])
def test_copies_and_increments_keep_the_planes(shrink_there: bool) -> None:
    here, there = DictStorage(), DictStorage()
    saved(here, shrink=True)
    with StateStore(here) as source, StateStore(there, shrink=shrink_there) as target:
        source.copy_states(target)
        assert target.info("a.state").stored_size <= source.info("a.state").stored_size
        target.verify("a.state")
        folder = Folder({**FILES, "tiny.bin": b"y"})
        target.register("folder", folder)
        target.save_state(name="b.state", base="a.state")
        assert target.info("b.state").new_size < 1000
        loaded = Folder()
    with StateStore(there) as target:
        target.register("folder", loaded)
        target.load_state("b.state")
    assert loaded.files == folder.files
    assert not [key for key in there.objects if key.endswith("float32.bin.zst")]


def test_a_plain_manifest_has_no_planes() -> None:
    storage = DictStorage()
    saved(storage, shrink=False)
    with StateStore(storage) as store:
        chunks = [chunk for file in store.open_state("a.state").manifest.files for chunk in file.chunks]
    assert {chunk.encoding for chunk in chunks} <= {ENCODING_PLAIN, ENCODING_ZSTD}
