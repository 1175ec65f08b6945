"""Files of older runs: one that was cut short is never taken for a whole one."""

from __future__ import annotations

import pickle
import random

import pytest
import zstandard

from statevault.errors import CorruptStateError
from statevault.experiments.pickles import PickledObjects
from statevault.experiments.unsealed import check_unsealed
from statevault.sealed import SealedFiles
from tests.state_persistence.storages import DictStorage

CONTENT = {"weights": random.Random(0).randbytes(3000), "zeros": bytes(10_000), "text": "x." * 50}


@pytest.mark.parametrize("with_size", [False, True])
@pytest.mark.parametrize("with_checksum", [False, True])
def test_a_frame_that_was_cut_anywhere_is_found(with_size: bool, with_checksum: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=with_checksum, write_content_size=with_size)
    whole = compressor.compress(pickle.dumps(CONTENT))
    storage = DictStorage()
    storage.put("a", whole)
    check_unsealed(storage, "a")
    for end in range(len(whole)):
        storage.put("a", whole[:end])
        with pytest.raises(CorruptStateError, match="a in dict://"):
            check_unsealed(storage, "a")


def test_a_sealed_file_that_was_cut_anywhere_is_found() -> None:
    storage = DictStorage()
    pickles = PickledObjects(SealedFiles(storage), 3)
    described = pickles.put("a", CONTENT, {"kind": "test"})
    whole = storage.objects["a"]
    for end in range(len(whole)):
        if end == described.size:
            continue  # all of the seal is gone: this is what an older run wrote
        storage.objects["a"] = whole[:end]
        with pytest.raises(CorruptStateError):
            check_unsealed(storage, "a")


def test_a_flipped_byte_of_a_frame_with_a_checksum_is_found() -> None:
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(pickle.dumps(CONTENT))
    storage = DictStorage()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        storage.put("a", bytes(changed))
        try:
            check_unsealed(storage, "a")
        except CorruptStateError:
            continue
        # What it says of its window may be another, and is not part of the content.
        assert zstandard.ZstdDecompressor().decompress(bytes(changed)) == pickle.dumps(CONTENT)


def test_a_pickle_that_is_not_compressed_ends_as_pickles_do() -> None:
    storage = DictStorage()
    storage.put("a", pickle.dumps(CONTENT))
    check_unsealed(storage, "a")
    for content in (b"", pickle.dumps(CONTENT)[:-1]):
        storage.put("a", content)
        with pytest.raises(CorruptStateError, match="cut short"):
            check_unsealed(storage, "a")
