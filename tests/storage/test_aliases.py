"""Other spellings of a store's URL: each is refused before anything is put, or is the same store, or another one."""

from __future__ import annotations

import pytest

from statevault.errors import InvalidNameError, StateExistsError
from statevault.state_persistence import StateStore
from statevault.storage import Storage, open_storage
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder, some_files, store_with

PLAIN = "{url}/store"
AMBIGUOUS = [
    "{url}//store",
    "{url}///store",
    "{url}/./store",
    "{url}/store/.",
    "{url}/other/../store",
    "{url}/store/other/..",
]
"""Whether they are the same place as the plain URL differs from server to server."""
ODD = ["{url}\\store", "{url}\\/store", "{url}/store\\", "{url}/store\n"]
"""What a disk keeps as it is, and a server does not always."""
SAME = ["{url}/store/", "{url}/store//"]
OTHERS = ["{url}%2Fstore", "{url}/store%2F", "{url}/store?versionId=1", "{url}/store#1"]
"""What is just part of a name, everywhere."""


def spelled(target: StorageTarget, form: str) -> Storage:
    return open_storage(form.format(url=target.url), target.storage_options)


def save(storage: Storage, seed: int, name: str = "best.state") -> None:
    with store_with(storage, folder=Folder(some_files(seed))) as store:
        store.save_state(name=name)


def contents(target: StorageTarget) -> dict[str, bytes]:
    keys = target.raw.keys()
    return {key: target.raw.get(key) for key in keys}


def test_no_spelling_of_a_url_touches_the_states_that_lie_there(target: StorageTarget) -> None:
    save(spelled(target, PLAIN), 1)
    save(spelled(target, PLAIN), 2, "second.state")
    before = contents(target)
    is_local = target.name == "local"
    for form in AMBIGUOUS + ODD * (not is_local):
        # A disk has one way to read a path, so that these are the same folder.
        expected = StateExistsError if is_local else InvalidNameError
        with pytest.raises(expected, match="never used twice|single forward slashes") as caught:
            save(spelled(target, form), 3)
        assert len(str(caught.value)) < 400
        assert contents(target) == before, form
    for form in SAME:
        with pytest.raises(StateExistsError):
            save(spelled(target, form), 3)
        assert contents(target) == before, form
    for form in OTHERS + ODD * is_local:
        storage = spelled(target, form)
        save(storage, 3)
        with StateStore(storage) as store:
            assert store.names() == ["best.state"], form
            store.verify("best.state")
        with StateStore(spelled(target, PLAIN)) as store:
            assert store.names() == ["best.state", "second.state"], form
    assert contents(target).items() >= before.items()
