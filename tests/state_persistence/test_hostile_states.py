"""A newest state that is made to do harm: memory is bounded by what is stored, and ``"latest"`` passes it over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from typing_extensions import override

from statevault.codecs import read_tree, write_tree
from statevault.errors import CorruptStateError, InvalidNameError
from statevault.state_persistence import PersistentStateMixin, StateStore
from tests.codecs.forge import forge
from tests.memory import peak_of
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.forged_states import Fields, change_manifest, chunk_of, put_manifest, replace_files
from tests.state_persistence.storages import DictStorage

MIB = 1024**2


@pytest.fixture
def storage() -> DictStorage:
    storage = DictStorage()
    folder = Folder({"step": b"1"})
    with store_with(storage, folder=folder) as store:
        store.save_state(name="old.state")
        folder.files = {"step": b"2"}
        store.save_state(name="new.state")
    return storage


def set_path(path: str) -> Callable[[Fields], object]:
    return lambda fields: fields["files"][0].__setitem__(1, path)


def be_of_absurd_size(fields: Fields) -> None:
    fields["objects"][0][1] = 2**63 - 1
    digest = fields["files"][0][4][0][4]
    chunks = [[0, number * 2**26, 2**26, 2**26, digest, 0] for number in range(2**15)]
    fields["files"][0] = [0, "folder/step", 2**41, 0, chunks]


def be_far_away(fields: Fields) -> None:
    fields["objects"][0][1] = 2**63 - 1
    fields["files"][0][4][0][1] = 2**60


HOSTILE: dict[str, Callable[[Fields], object]] = {
    "1,500 folders": set_path("folder/" + "d/" * 1500 + "f"),
    "a folder below 1,500 others": lambda fields: fields["directories"].append([0, "folder/" + "d/" * 1500 + "f"]),
    "a long path": set_path("folder/" + "/".join(["n" * 250] * 16)),
    "a name that is no text": lambda fields: fields["files"][0].__setitem__(1, b"folder/\xff"),
    "a path that escapes": set_path("../../step"),
    "a file and its folder": lambda fields: fields["files"].append([0, "folder/step/more", 0, 0, []]),
    "terabytes that are not there": be_of_absurd_size,
    "bytes far behind the end": be_far_away,
    "an object of another key": lambda fields: fields["objects"][0].__setitem__(0, "new.state/other"),
    "an object whose key no storage takes": lambda fields: fields["objects"][0].__setitem__(
        0, "new.state" + "/k" * 999
    ),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_latest_passes_over_a_hostile_state(storage: DictStorage, change: Callable[[Fields], object]) -> None:
    change_manifest(storage, "new.state", change)
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        assert store.load_state().name == "old.state"
        assert folder.files == {"step": b"1"}
        with pytest.raises(CorruptStateError):
            store.load_state("new.state")
        with pytest.raises(CorruptStateError):
            store.verify("new.state")
        assert [state.name for state in store.states()] == ["old.state", "new.state"]
        # And it is in nobody's way.
        store.save_state(name="next.state")
        store.remove(["new.state"])
        assert store.verify("next.state").name == "next.state"


def test_a_manifest_of_next_to_nothing_is_never_unpacked(storage: DictStorage) -> None:
    """8 kB of zstd reached 4 GiB of memory: 240 million empty lists in a field that nobody knows."""

    def bomb(fields: Fields) -> None:
        count = 40 * MIB
        packed: bytes = msgpack.packb(fields)
        lists = msgpack.packb("later") + msgpack.Packer().pack_array_header(count) + b"\x90" * count
        put_manifest(storage, "new.state", fields, bytes([packed[0] + 1]) + packed[1:] + lists)

    def load() -> None:
        with store_with(storage, folder=Folder()) as store:
            assert store.load_state().name == "old.state"

    fields: list[Fields] = []
    change_manifest(storage, "new.state", fields.append)
    bomb(fields[0])
    assert peak_of(load) < 4 * MIB


class Deep(PersistentStateMixin):
    """A component with a file in many folders."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        here = Path.cwd()
        os.chdir(path)
        try:
            for _ in range(self.levels):
                Path("d").mkdir()
                os.chdir("d")
            Path("f").write_bytes(b"content")
        finally:
            os.chdir(here)

    @override
    def load_state(self, path: Path) -> None:
        assert (path / "/".join(["d"] * self.levels + ["f"])).read_bytes() == b"content"


def test_folders_that_no_reader_takes_are_refused_at_save(tmp_path: Path) -> None:
    component = Deep(1500)
    with StateStore(tmp_path / "states", staging_dir=tmp_path / "staging") as store:
        store.register("deep", component)
        with pytest.raises(InvalidNameError, match=r"the path 'deep/d/d/.*64 folders; at most 63"):
            store.save_state()
        assert store.states() == []
        component.levels = 63
        with pytest.raises(InvalidNameError, match="at most 63"):
            store.save_state()
        # And what was staged is in nobody's way.
        component.levels = 62
        store.save_state()
        store.load_state()
        assert not [path for path in (tmp_path / "staging").rglob("d") if path.is_dir()]


class Tree(PersistentStateMixin):
    """A component with one tree file."""

    def __init__(self, value: object = None) -> None:
        self.value = value

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.value, path.with_suffix(".tree"), held=True)

    @override
    def load_state(self, path: Path) -> None:
        self.value = read_tree(path.with_suffix(".tree"), mapped=True)


def store_of(storage: DictStorage, tree: Tree) -> StateStore:
    store = StateStore(storage)
    store.register("tree", tree)
    return store


def states_of(*values: object) -> DictStorage:
    storage = DictStorage()
    tree = Tree()
    with store_of(storage, tree) as store:
        for number, value in enumerate(values):
            tree.value = value
            store.save_state(name=f"{number}.state")
    return storage


BIG = forge(b"\xdd" + (20 * MIB).to_bytes(4, "big") + b"\x90" * (20 * MIB))


def pieces_of_big() -> list[bytes]:
    return [BIG[start : start + MIB] for start in range(0, len(BIG), MIB)]


def compressed_far() -> tuple[list[list[Any]], bytes]:
    chunks, stored = [], b""
    for piece in pieces_of_big():
        chunk, content = chunk_of(piece, offset=len(stored), compressed=True)
        chunks.append(chunk)
        stored += content
    return chunks, stored


def the_same_over_and_over() -> tuple[list[list[Any]], bytes]:
    first, *same, last = pieces_of_big()
    # Of the middle one as it is, so that nothing has grown but by being referred to.
    begins, head = chunk_of(first, compressed=True)
    goes_on, middle = chunk_of(same[0][:4096], offset=len(head))
    ends, tail = chunk_of(last, offset=len(head) + len(middle), compressed=True)
    times = len(same) * MIB // 4096
    return [begins, *[goes_on] * times, ends], head + middle + tail


def overlapping() -> tuple[list[list[Any]], bytes]:
    first, *same, last = pieces_of_big()
    begins, head = chunk_of(first, compressed=True)
    content = same[0][:6144]
    ends, tail = chunk_of(last, offset=len(head) + len(content), compressed=True)
    times = len(same) * MIB // 4096
    middle = [chunk_of(content[:4096], offset=len(head) + number % 2000)[0] for number in range(times)]
    return [begins, *middle, ends], head + content + tail


THIN = {"compressed": compressed_far, "referred to": the_same_over_and_over, "overlapping": overlapping}


@pytest.mark.parametrize("make", THIN.values(), ids=THIN.keys())
def test_the_structure_of_a_tree_is_bounded_by_what_is_stored(
    make: Callable[[], tuple[list[list[Any]], bytes]],
) -> None:
    """2 kB of a store reached 1.9 GiB of memory."""
    storage = states_of({"step": 1}, {"step": 2})
    chunks, content = make()
    assert len(content) < 10_000
    replace_files(storage, "1.state", {"tree.tree": chunks}, {"tree.tree.zst": content})
    tree = Tree()

    def load() -> None:
        with store_of(storage, tree) as store:
            assert store.load_state().name == "0.state"

    # What is fetched passes through memory, and may be held there; it is not made objects of.
    assert peak_of(load) < 3 * len(BIG)
    assert tree.value == {"step": 1}
    with store_of(storage, tree) as store:
        for read in (store.load_state, store.verify):
            with pytest.raises(CorruptStateError, match="structure"):
                read("1.state")


HONEST = {
    "a million equal numbers": [0] * MIB,
    "empty lists": [[] for _ in range(MIB)],
    "equal texts": ["the same"] * 200_000,
    "the same over and over": [{"step": 1, "done": False} for _ in range(100_000)],
    "numbers": list(range(300_000)),
}


@pytest.mark.parametrize("value", HONEST.values(), ids=HONEST.keys())
def test_whatever_a_writer_writes_is_read(value: object) -> None:
    storage = states_of({"a": 1, "x": value}, {"a": 2, "x": value}, {"a": 2, "x": value})
    tree = Tree()
    with store_of(storage, tree) as store:
        for name in ("0.state", "1.state", "2.state"):
            store.verify(name)
            store.load_state(name)
        assert tree.value == {"a": 2, "x": value}
        # Also when it goes on from what was loaded, and in copies that share what they have in common.
        store.save_state(name="3.state")
        store.load_state("3.state")
        with store_of(DictStorage(), tree) as copies:
            store.copy_states(copies)
            for name in ("0.state", "1.state", "2.state", "3.state"):
                copies.load_state(name)
