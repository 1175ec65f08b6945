"""Loading parts of a state: single components and members, and what fits of a state that does not fit."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import pytest

from statevault.errors import ComponentNotFoundError
from statevault.state_persistence import PersistentMembers, StateStore
from tests.state_persistence.components import Files, Folder, store_with


class Shelf:
    """A component made of members: folders by name."""

    def __init__(self, **members: Folder) -> None:
        self.members = members

    @property
    def member_names(self) -> Collection[str]:
        return self.members.keys()

    def save_state(self, path: Path) -> None:
        path.mkdir()
        for name, member in self.members.items():
            member.save_state(path / name)

    def load_state(self, path: Path) -> None:
        self.load_members(path, self.member_names)

    def load_members(self, path: Path, names: Collection[str]) -> None:
        for name in names:
            self.members[name].load_state(path / name)


class Text(Folder):
    """A member that is one file, with a suffix."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.text = text

    def save_state(self, path: Path) -> None:
        path.with_name(f"{path.name}.txt").write_text(self.text)

    def load_state(self, path: Path) -> None:
        self.loads += 1
        assert [entry.name for entry in path.parent.iterdir()] == [f"{path.name}.txt"]
        self.text = path.with_name(f"{path.name}.txt").read_text()


A: Files = {"a.bin": b"a" * 100}
B: Files = {"deep/b.bin": b"b" * 100}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with one state: `models` made of a, b, note and note.v2; `data`; `old`."""
    with StateStore(tmp_path) as store:
        store.register("models", Shelf(a=Folder(A), b=Folder(B), note=Text("one"), **{"note.v2": Text("two")}))
        store.register("data", Folder({"x": b"x"}))
        store.register("old", Folder({"y": b"y"}))
        store.save_state(name="full.state")
    return tmp_path


def test_a_member_is_loaded_alone(root: Path) -> None:
    a, b = Folder(), Folder()
    with StateStore(root) as store:
        store.register("models", Shelf(a=a, b=b))
        loaded = store.load_state("latest", components=["models/b"])
    assert b.files == B
    assert a.loads == 0
    assert (loaded.loaded, loaded.missing, loaded.left_over) == (("models/b",), (), ())
    assert loaded.name == "full.state"


def test_only_the_bytes_of_a_member_are_read(root: Path) -> None:
    for file in (root / "full.state" / "models" / "a").rglob("*.bin*"):
        file.write_bytes(b"damage")
    b = Folder()
    with StateStore(root) as store:
        store.register("models", Shelf(a=Folder(), b=b))
        store.load_state("full.state", components=["models/b"])
    assert b.files == B


def test_members_with_similar_names_are_told_apart(root: Path) -> None:
    note, v2 = Text(), Text()
    with StateStore(root) as store:
        store.register("models", Shelf(note=note, **{"note.v2": v2}))
        store.load_state("latest", components=["models/note"])
        assert (note.text, v2.text) == ("one", "")
        store.load_state("latest", components=["models/note.v2"])
    assert (note.text, v2.text) == ("one", "two")


def test_a_component_and_a_member_of_it_is_all_of_it(root: Path) -> None:
    a, b = Folder(), Folder()
    with StateStore(root) as store:
        store.register("models", Shelf(a=a, b=b))
        assert store.load_state("latest", components=["models/b", "models"]).loaded == ("models",)
    assert (a.files, b.files) == (A, B)


def test_a_member_that_is_not_there_is_an_error(root: Path) -> None:
    new = Folder(A)
    with StateStore(root) as store:
        store.register("models", Shelf(new=new))
        store.register("data", Folder())
        with pytest.raises(ComponentNotFoundError, match=r"no component 'models/new', it has: .*models/a/a\.bin"):
            store.load_state("latest", components=["models/new"])
        with pytest.raises(ComponentNotFoundError, match="no member 'nonsense' to load; it has: new"):
            store.load_state("latest", components=["models/nonsense"])
        with pytest.raises(ComponentNotFoundError, match="'data' has no member 'x'"):
            store.load_state("latest", components=["data/x"])
        loaded = store.load_state("latest", components=["models/new", "data"], strict=False)
    assert (loaded.loaded, loaded.missing) == (("data",), ("models/new",))
    assert new.loads == 0


def test_what_fits_is_loaded_and_what_does_not_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, new, data, more = Folder(), Folder(), Folder(), Folder()
    with StateStore(root) as store:
        store.register("models", Shelf(a=a, new=new))
        store.register("more", more)
        store.register("data", data)
        with pytest.raises(ComponentNotFoundError, match="no component 'more'.*strict=False"):
            store.load_state()
        assert (a.loads, data.loads) == (0, 0)
        loaded = store.load_state(strict=False)
    assert loaded.loaded == ("models/a", "data")
    assert loaded.missing == ("models/new", "more")
    assert loaded.left_over == ("old", "models/b", "models/note.txt", "models/note.v2.txt")
    assert (a.files, data.files) == (A, {"x": b"x"})
    assert (new.loads, more.loads) == (0, 0)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any("models/new, more" in warning for warning in warnings)
    assert any("old, models/b" in warning for warning in warnings)


def test_a_component_that_is_left_over_is_an_error(root: Path) -> None:
    with (
        store_with(root, data=Folder()) as store,
        pytest.raises(ComponentNotFoundError, match="'models'.*strict=False"),
    ):
        store.load_state()


def test_optional_components_may_be_missing_on_either_side(root: Path) -> None:
    models, data = Shelf(a=Folder(), b=Folder(), note=Text(), **{"note.v2": Folder()}), Folder()
    with StateStore(root) as store:
        store.register("models", Shelf(a=Folder(), b=Folder()))
        store.register("data", data)
        store.register("rng", Folder())
        with pytest.raises(ComponentNotFoundError, match="'old'"):
            store.load_state(optional=["rng"])
        assert data.loads == 0
        loaded = store.load_state(optional=["rng", "old"])
    assert loaded.loaded == ("models", "data")
    assert (loaded.missing, loaded.left_over) == (("rng",), ("old",))
    assert isinstance(models, PersistentMembers)


def test_a_loaded_state_is_described_as_any_state(root: Path) -> None:
    with store_with(root, data=Folder()) as store:
        loaded, info = store.load_state(components=["data"]), store.info()
    assert loaded.info == info
    assert loaded.size == info.size


def test_an_empty_member_is_there(tmp_path: Path) -> None:
    empty = Folder()
    with StateStore(tmp_path) as store:
        store.register("models", Shelf(empty=empty))
        store.save_state()
        assert store.load_state(strict=False).loaded == ("models/empty",)
    assert empty.loads == 1
