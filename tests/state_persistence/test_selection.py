"""Which files belong to which member, and what is chosen: by names alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from statevault.errors import ComponentNotFoundError
from statevault.state_persistence.restore.selection import Contents, owner_of, select


class Members:
    """A component that has only names."""

    def __init__(self, *names: str) -> None:
        self.member_names: Collection[str] = names

    def save_state(self, path: Path) -> None:
        raise NotImplementedError

    def load_state(self, path: Path) -> None:
        raise NotImplementedError

    def load_members(self, path: Path, names: Collection[str]) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("entry", "owner"),
    [
        ("policy", "policy"),
        ("policy.tree", "policy"),
        ("policy.optim.pt", "policy"),
        ("policy.v2", "policy.v2"),
        ("policy.v2.tree", "policy.v2"),
        ("policy2.tree", None),
        ("polic", None),
        ("", None),
    ],
)
def test_a_file_belongs_to_the_longest_name_that_fits(entry: str, owner: str | None) -> None:
    for names in (["policy", "policy.v2"], ["policy.v2", "policy"]):
        assert owner_of(entry, names) == owner


COMPONENTS = {"models": Members("a", "b"), "time": Members()}
CONTENTS = Contents("x.state", {"models": ["models/a.tree", "models/b/deep/c", "models/old"], "time": ["time.tree"]})


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (None, {"models/a.tree", "models/b/deep/c", "models/old", "time.tree"}),
        (["models/a"], {"models/a.tree"}),
        (["models/b", "time"], {"models/b/deep/c", "time.tree"}),
        (["models/a", "models"], {"models/a.tree", "models/b/deep/c", "models/old"}),
        ([], set()),
    ],
)
def test_only_the_files_of_what_is_wanted_are_taken(wanted: list[str] | None, taken: set[str]) -> None:
    selection = select(CONTENTS, COMPONENTS, wanted=wanted)
    files = [(component, path) for component, paths in CONTENTS.paths.items() for path in paths]
    assert {path for component, path in files if selection.takes(component, path, COMPONENTS)} == taken
    assert (selection.missing, selection.left_over) == ((), ())


def test_components_keep_the_order_in_which_they_were_registered() -> None:
    assert select(CONTENTS, COMPONENTS, wanted=["time", "models/b", "models/a"]).loaded == (
        "models/b",
        "models/a",
        "time",
    )


def test_without_strictness_all_members_that_fit_are_taken() -> None:
    registered = {"models": Members("b", "new"), "rng": Members()}
    selection = select(CONTENTS, registered, strict=False)
    assert selection.loaded == ("models/b",)
    assert selection.missing == ("models/new", "rng")
    assert selection.left_over == ("time", "models/a.tree", "models/old")
    assert not selection.takes("models", "models/a.tree", registered)


def test_what_is_optional_may_be_missing_and_nothing_else() -> None:
    registered = {**COMPONENTS, "rng": Members(), "more": Members()}
    with pytest.raises(ComponentNotFoundError, match="'more'"):
        select(CONTENTS, registered, optional=["rng"])
    assert select(CONTENTS, registered, optional=["rng", "more"]).missing == ("rng", "more")
    with pytest.raises(ComponentNotFoundError, match="'time'"):
        select(CONTENTS, {"models": COMPONENTS["models"]}, optional=["rng"])
