"""A store compared with a plain dict, over random histories of saves, loads, removals, damage and reopening."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from statevault.errors import CorruptStateError, StateExistsError, StateNotFoundError, StatePrunedError
from statevault.format.keys import VAULT
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from tests.profiles import rounds
from tests.state_persistence.components import Files, Folder, store_with
from tests.state_persistence.storages import DictStorage

names = st.from_regex(r"[a-c]{1,2}\.state", fullmatch=True)
file_names = st.sampled_from(["a", "b", "deep/c", "deep/d", "a.zst", "ü n"])
contents = st.one_of(st.binary(max_size=40), st.integers(0, 9).map(lambda n: bytes([n]) * 5000))
files = st.dictionaries(file_names, contents, max_size=4)
metadatas = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=2)


class StoreModel(RuleBasedStateMachine):
    """`states` is what the store must hold, in order; `gone` the names that it held."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = DictStorage()
        self.folder = Folder()
        self.states: dict[str, tuple[Files, dict[str, object]]] = {}
        self.gone: set[str] = set()
        self.damaged: set[str] = set()

    saved = Bundle("saved")

    @initialize()
    def open(self) -> None:
        self.store = store_with(self.storage, folder=self.folder)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = store_with(self.storage, folder=self.folder)

    @rule(target=saved, name=names, content=files, metadata=metadatas)
    def save(self, name: str, content: Files, metadata: dict[str, object]) -> str:
        self.folder.files = dict(content)
        if name in self.states or name in self.gone:
            with pytest.raises(StateExistsError):
                self.store.save_state(name=name)
        else:
            self.store.save_state(name=name, metadata=metadata)  # type: ignore[arg-type]
            self.states[name] = (dict(content), metadata)
        return name

    @rule(content=files)
    def save_unnamed(self, content: Files) -> None:
        self.folder.files = dict(content)
        self.states[self.store.save_state().name] = (dict(content), {})

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
        assert list(self.store.remove(names).removed) == alive
        self.gone |= set(alive)
        for name in alive:
            del self.states[name]

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.states)))
        key = data.draw(st.sampled_from(sorted(key for key in self.storage.objects if key.startswith(f"{name}/"))))
        self.storage.objects[key] = self.storage.objects[key][:-1]
        self.damaged.add(name)

    @rule()
    def sweep(self) -> None:
        prune(self.storage, Catalog(self.storage), [], by="test", reason="test", stale_after=timedelta(0))

    @invariant()
    def lists_what_it_must(self) -> None:
        infos = self.store.states()
        assert [info.name for info in infos] == list(self.states)
        assert [info.metadata for info in infos] == [metadata for _, metadata in self.states.values()]
        assert [info.sequence for info in infos] == sorted({info.sequence for info in infos})
        assert [info.size for info in infos] == [sum(map(len, content.values())) for content, _ in self.states.values()]

    @invariant()
    def keeps_nothing_else(self) -> None:
        owners = {key.partition("/")[0] for key in self.storage.objects if not key.startswith(VAULT)}
        assert owners <= set(self.states) | self.damaged

    def teardown(self) -> None:
        self.store.close()


StoreModel.TestCase.settings = settings(
    max_examples=rounds(short=60, long=2000), stateful_step_count=25, deadline=None, print_blob=True
)
TestStoreModel = StoreModel.TestCase
