"""What must be left of a store when all has come to rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from statevault.format.keys import VAULT, manifest_key
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.collection import collect, rehearse_collection
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import Storage

__all__ = ["check_no_garbage"]


def check_no_garbage(storage: Storage) -> None:
    """Two collections leave what visible states need (some of it in the folders of states that are gone), and no more.

    Everybody who saved is dead. Tombstones stay: they keep dead names dead. A rehearsal tells beforehand what comes,
    and changes nothing.
    """
    catalog = Catalog(storage)
    for _ in range(2):
        before = list(storage.list())
        told = rehearse_collection(storage, by="test", stale_after=timedelta(0))
        assert list(storage.list()) == before
        assert told == replace(collect(storage, catalog, by="test", stale_after=timedelta(0)), uploads=0)
    listing = Catalog(storage).listing()
    live = {key.state for key in listing.visible}
    needed = {manifest_key(state) for state in live}
    store = StateStore(storage)
    for state in live:
        needed |= {entry.key for entry in store.open_state(state).manifest.objects}
    assert {info.key for info in storage.list() if not info.key.startswith(VAULT)} == needed
    assert listing.sessions == frozenset()
    assert {key.state for key in listing.commits} == live
