"""The requests that the guide to operations tells are those that are made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from statevault.state_persistence import LatestStatesKeeper, StateStore
from statevault.state_persistence.keepers import Retention
from tests.docs.examples import ROOT
from tests.state_persistence.components import Folder
from tests.state_persistence.packs import add_markers, collect_and_pack, filled
from tests.state_persistence.storages import DictStorage, WatchedStorage

GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
KINDS = ("put", "list", "head", "get", "delete")
FILES = 7


def rows() -> Iterator[tuple[str, list[str]]]:
    """The table: each operation, and its numbers as they are written."""
    table = GUIDE[GUIDE.index("| operation | PUT |") :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        operation, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        yield operation, numbers


def value(written: str, known: dict[str, int]) -> int:
    """What ``n + 4`` comes to."""
    return sum(known[term] if term.isalpha() else int(term) for term in re.split(r"\s*\+\s*", written))


class Saving:
    """A store with some states of one folder."""

    def __init__(self, *, incremental: bool = True) -> None:
        self.storage = WatchedStorage(DictStorage())
        self.folder = Folder({f"{i}.bin": bytes([i]) * 100 for i in range(FILES)})
        self.store = StateStore(self.storage, incremental=incremental)
        self.store.register("folder", self.folder)

    def counted(self, operation: Callable[[], object]) -> dict[str, int]:
        """The requests of an operation."""
        self.storage.calls.clear()
        operation()
        counts = Counter(call.partition(" ")[0] for call in self.storage.calls)
        return {kind: counts[kind] for kind in KINDS}


def first(saving: Saving) -> dict[str, int]:
    return saving.counted(saving.store.save_state)


def changed(saving: Saving, name: str | None = None) -> dict[str, int]:
    saving.store.save_state()
    for i in range(2):
        saving.folder.files[f"{i}.bin"] = b"changed"
    return saving.counted(lambda: saving.store.save_state(name=name))


def load(saving: Saving) -> dict[str, int]:
    saving.store.save_state()
    saving.store = StateStore(saving.storage)
    saving.store.register("folder", saving.folder)
    return saving.counted(saving.store.load_state)


def listed(saving: Saving) -> dict[str, int]:
    saving.store.save_state()
    other = StateStore(saving.storage)
    other.states()
    for _ in range(3):
        saving.store.save_state()
    return saving.counted(other.states)


def listed_by_pack(saving: Saving) -> dict[str, int]:
    storage = filled()
    collect_and_pack(storage)
    add_markers(storage, 50, 52)
    saving.storage = WatchedStorage(storage)
    return saving.counted(StateStore(saving.storage).states)


def removed(saving: Saving) -> dict[str, int]:
    saving = Saving(incremental=False)
    for _ in range(9):
        saving.store.save_state()
    saving.store.states()
    return saving.counted(lambda: saving.store.remove(saving.store.names()[:4]))


def pinned(saving: Saving) -> dict[str, int]:
    saving.store.save_state(name="a.state")
    return saving.counted(lambda: saving.store.pin("a.state"))


CASES: dict[str, tuple[Callable[[Saving], dict[str, int]], dict[str, int]]] = {
    "save, the first": (first, {"n": FILES}),
    "save, `c` files changed": (changed, {"c": 2, "f": 1}),
    "the same under a given name": (lambda saving: changed(saving, "given.state"), {"c": 2, "f": 1}),
    "load the newest": (load, {"n": FILES}),
    "list the states, of `s` that are new to the process": (listed, {"s": 3}),
    "the first list of a process, of `u` states that are not in the marker pack": (listed_by_pack, {"u": 3}),
    "remove `r` states that share nothing": (removed, {"r": 4}),
    "pin": (pinned, {}),
}


@pytest.mark.parametrize(("operation", "written"), list(rows()))
def test_an_operation_makes_the_requests_of_the_guide(operation: str, written: list[str]) -> None:
    measure, known = CASES[operation]
    promised = dict(zip(KINDS, (value(number, known) for number in written), strict=True))
    made = measure(Saving())
    if operation.startswith("remove"):
        made["list"] -= 1  # of names(), which is asked for the names
    assert made == promised


def test_the_guide_has_all_operations() -> None:
    assert {operation for operation, _ in rows()} == set(CASES)


def test_an_agent_that_saves_each_minute_makes_the_requests_of_the_guide() -> None:
    saving = Saving()
    saving.folder.files = {f"{i}.bin": bytes([i]) * 100 for i in range(12)}
    retention = Retention(saving.store, LatestStatesKeeper("", 100))
    made = []
    for number in range(103):
        saving.folder.files |= {f"{i}.bin": f"{number}, {i}".encode() * 50 for i in range(3)}
        for_save = saving.counted(saving.store.save_state)
        made.append((for_save, saving.counted(lambda: retention(saving.store.path(saving.store.names()[-1])))))
    for_retention = [counts["get"] for _, counts in made]
    for_save, counts = made[-1]
    assert for_save == {"put": 6, "list": 4, "head": 3, "get": 0, "delete": 1}
    # One LIST is that of names(), which is asked for the path.
    assert counts == {"put": 2, "list": 12 + 1, "head": 0, "get": 3, "delete": 3}
    assert max(for_retention) == 201
    assert "6 PUT, 4 LIST, 3 HEAD and 1 DELETE for the save, and 2\nPUT, 12 LIST, 3 GET and 3 DELETE" in GUIDE
