"""A store compared with a plain dict, over random histories of saves, loads, removals, damage and reopening."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from statevault.errors import CorruptStateError, StateExistsError, StateNotFoundError, StatePrunedError
from statevault.format.keys import manifest_key
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from tests.profiles import rounds
from tests.state_persistence.components import Files, Folder
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import DictStorage

names = st.from_regex(r"[a-c]{1,2}\.state", fullmatch=True)
file_names = st.sampled_from(["a", "b", "deep/c", "deep/d", "a.zst", "ü n"])
# Few large ones, so that states share them.
contents = st.one_of(st.binary(max_size=40), st.integers(0, 2).map(lambda n: bytes([n]) * 5000))
files = st.dictionaries(file_names, contents, max_size=4)
metadatas = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=2)


class StoreModel(RuleBasedStateMachine):
    """`states` is what the store must hold, in order, `needs` the objects of each; `gone` the names that it held.

    `damaged` are those that can't be loaded, `unreadable` those of which nobody can tell what they need.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storage = DictStorage()
        self.folder = Folder()
        self.states: dict[str, tuple[Files, dict[str, object]]] = {}
        self.needs: dict[str, set[str]] = {}
        self.gone: set[str] = set()
        self.damaged: set[str] = set()
        self.unreadable: set[str] = set()

    saved = Bundle("saved")

    @initialize(incremental=st.booleans())
    def open(self, incremental: bool) -> None:
        self.incremental = incremental
        self.store = StateStore(self.storage, incremental=incremental)
        self.store.register("folder", self.folder)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open(self.incremental)

    @rule(target=saved, name=names, content=files, metadata=metadatas)
    def save(self, name: str, content: Files, metadata: dict[str, object]) -> str:
        self.folder.files = dict(content)
        if name in self.states or name in self.gone:
            with pytest.raises(StateExistsError):
                self.store.save_state(name=name)
        else:
            self.note(self.store.save_state(name=name, metadata=metadata).name, content, metadata)  # type: ignore[arg-type]
        return name

    @rule(content=files)
    def save_unnamed(self, content: Files) -> None:
        self.folder.files = dict(content)
        self.note(self.store.save_state().name, content, {})

    def note(self, name: str, content: Files, metadata: dict[str, object]) -> None:
        self.states[name] = (dict(content), metadata)
        self.needs[name] = {manifest_key(name)} | {entry.key for entry in self.store.open_state(name).manifest.objects}

    @rule(name=saved)
    def load(self, name: str) -> None:
        self.folder.files = {}
        if name in self.gone:
            with pytest.raises(StatePrunedError):
                self.store.load_state(name)
        elif name in self.damaged:
            with pytest.raises(CorruptStateError):
                self.store.load_state(name)
        else:
            self.store.load_state(name)
            assert self.folder.files == self.states[name][0]

    @rule()
    def load_latest(self) -> None:
        good = [name for name in self.states if name not in self.damaged]
        if good:
            assert self.store.load_state("latest").name == good[-1]
            assert self.folder.files == self.states[good[-1]][0]
        else:
            with pytest.raises((StateNotFoundError, CorruptStateError)):
                self.store.load_state("latest")

    @rule(names=st.lists(consumes(saved), max_size=3))
    def remove(self, names: list[str]) -> None:
        alive = [name for name in self.states if name in names]
        with self.pruned():
            assert list(self.store.remove(names).removed) == alive
            self.gone |= set(alive)
            for name in alive:
                del self.states[name], self.needs[name]
            self.unreadable &= self.states.keys()

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(set().union(*self.needs.values()))))
        self.storage.objects[key] = self.storage.objects[key][:-1]
        self.damaged |= {name for name, needed in self.needs.items() if key in needed}
        self.unreadable |= {name for name in self.states if key == manifest_key(name)}

    @rule()
    def sweep(self) -> None:
        with self.pruned():
            prune(self.storage, Catalog(self.storage), [], by="test", reason="test", stale_after=timedelta(0))

    @contextmanager
    def pruned(self) -> Iterator[None]:
        """A prune, which stops before its first write where nobody can tell what a state needs."""
        try:
            yield
        except CorruptStateError:
            assert self.unreadable, "all can be read"

    @invariant()
    def lists_what_it_must(self) -> None:
        infos = self.store.states()
        assert [info.name for info in infos] == list(self.states)
        assert [info.metadata for info in infos] == [metadata for _, metadata in self.states.values()]
        assert [info.sequence for info in infos] == sorted({info.sequence for info in infos})
        assert [info.size for info in infos] == [sum(map(len, content.values())) for content, _ in self.states.values()]

    @invariant()
    def keeps_what_it_needs(self) -> None:
        assert set().union(*self.needs.values()) <= self.storage.objects.keys()

    def teardown(self) -> None:
        self.store.close()
        if not self.unreadable:
            check_no_garbage(self.storage)


StoreModel.TestCase.settings = settings(
    max_examples=rounds(short=60, long=2000),
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    # To explain a failure, which is shrunk already, takes longer than a test may.
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
TestStoreModel = StoreModel.TestCase
