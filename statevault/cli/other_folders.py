"""Folders that are no stores of states, and that the same commands look into: experiments, and policies as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from statevault.cli.experiments import ExperimentView
from statevault.cli.options import nothing_there, parsed_storage_options
from statevault.cli.policies import PoliciesView
from statevault.errors import FormatError
from statevault.experiments.overview import is_experiment
from statevault.persistence import list_policies
from statevault.state_persistence import StateStore
from statevault.storage import Storage, open_storage

__all__ = ["FolderView", "opened_any", "refuse_other_folder"]


class FolderView(Protocol):
    """What the commands show of a folder, and do with it."""

    def ls(self, *, as_json: bool) -> None:
        """Print what is there."""

    def show(self, name: str | None, *, as_json: bool) -> None:
        """Print what there is to know about one thing, or about the folder.

        Raises:
            StateNotFoundError: It is not there.
        """

    def verify(self, name: str | None, *, as_json: bool) -> bool:
        """Check every byte; returns whether all are as they should be.

        Raises:
            StateNotFoundError: What is named is not there.
        """

    def copy(self, target: Storage, names: Sequence[str] | None, *, as_json: bool) -> bool:
        """Copy to another place; returns whether all was copied, or there already.

        Raises:
            StateNotFoundError: What is named is not there.
        """


def refuse_other_folder(store: StateStore, url: str, options: dict[str, Any]) -> None:
    """Make sure that a store may begin at a place: beside states an experiment, or policies, would be seen no more.

    Args:
        store: The store that may begin there.
        url: Where.
        options: Of its storage.

    Raises:
        FormatError: An experiment is there, or policies as files.
        StorageError: The storage failed.
    """
    if store.exists():
        return
    storage = open_storage(url, options)
    try:
        what = "an experiment" if is_experiment(storage) else "policies" if list_policies(storage) else ""
    finally:
        storage.close()
    if what:
        raise FormatError(f"{storage.url} holds {what}, and is no place for states: name another folder")


@contextmanager
def opened_any(url: str, pairs: list[str] | None) -> Iterator[StateStore | FolderView]:
    """Open what a command names: a store, an experiment, or policies as files.

    Raises:
        StoreNotFoundError: None of these is there: rather a wrong path than an empty store.
        StorageError: The storage failed.
    """
    options = parsed_storage_options(pairs)
    with StateStore(url, storage_options=options) as store:
        if store.exists():
            yield store
            return
    storage = open_storage(url, options)
    try:
        if is_experiment(storage):
            yield ExperimentView(storage)
        elif policies := list_policies(storage):
            yield PoliciesView(storage, policies)
        else:
            raise nothing_there(storage.url)
    finally:
        storage.close()
