"""What several commands take: the store's URL, its storage options, ``--json``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from statevault.errors import StateNotFoundError, StoreNotFoundError
from statevault.state_persistence import StateStore
from statevault.storage import normalized_url, parent_and_name
from statevault.storage.redaction import redacted

__all__ = [
    "AsJson",
    "StateArgument",
    "StorageOptions",
    "StoreArgument",
    "nothing_there",
    "opened",
    "own_name",
    "own_names",
    "parsed_storage_options",
]

_TEXTS = frozenset({"key", "secret", "token", "username", "password", "profile", "region_name", "endpoint_url"})

StoreArgument = Annotated[
    str, typer.Argument(metavar="URL", help="The store: a path, or s3://bucket/prefix, gs://bucket/prefix, …")
]
StateArgument = Annotated[str, typer.Argument(metavar="STATE", help="A state's name, or 'latest'.", show_default=True)]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        "-o",
        metavar="KEY=VALUE",
        help="An option of fsspec's filesystem: endpoint_url=http://127.0.0.1:9000, client_kwargs.region_name=eu-1. "
        "The usual environment variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) hold where this is silent.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def parsed_storage_options(pairs: list[str] | None) -> dict[str, Any]:
    """Make a nested dict of ``a.b=value`` pairs; a value that is JSON is taken as such.

    Raises:
        typer.BadParameter: A pair has no ``=``.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, separator, text = pair.partition("=")
        if not separator or not all(key.split(".")):
            raise typer.BadParameter(f"--storage-option takes KEY=VALUE, not {pair!r}")
        *parents, last = key.split(".")
        place = options
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"--storage-option {key}: {parent!r} has a value of its own already")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        # A key of digits is text all the same.
        place[last] = value if last not in _TEXTS or isinstance(value, dict | str) else text
    return options


def own_names(store: StateStore, states: list[str]) -> list[str]:
    """The names of states of a store, which must all be there; no marker but that of 'latest' is read.

    Raises:
        StateNotFoundError: One is not there, or is a path into another store.
    """
    known = set(store.names())
    names = []
    for state in states:
        if state in known:
            names.append(state)
            continue
        info = store.info(state)  # says what is wrong with any but "latest" and a path
        if info.path != store.path(info.name):
            raise _elsewhere(store, state)
        names.append(info.name)
    return names


def own_name(store: StateStore, state: str) -> str:
    """The name of one state of a store, as a user gives it, or 'latest'; nothing is asked of the storage.

    Raises:
        StateNotFoundError: It is a path into another store.
    """
    if "/" not in state:
        return state
    root, name = parent_and_name(state)
    if root != normalized_url(store.url):
        raise _elsewhere(store, state)
    return name


def opened(url: str, pairs: list[str] | None) -> StateStore:
    """Open the store that a command names.

    Raises:
        StoreNotFoundError: Nothing was ever saved there: rather a wrong path than an empty store.
    """
    store = StateStore(url, storage_options=parsed_storage_options(pairs))
    if not store.exists():
        raise nothing_there(store.url)
    return store


def _elsewhere(store: StateStore, state: str) -> StateNotFoundError:
    return StateNotFoundError(f"{redacted(state)} is not in {store.url}: name that store instead")


def nothing_there(url: str) -> StoreNotFoundError:
    """The error that nothing was ever saved at a place."""
    return StoreNotFoundError(f"there is no store at {url}: nothing was saved there, or the path is wrong")
