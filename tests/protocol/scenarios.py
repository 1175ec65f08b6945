"""Who works on a store at the same time: the settings in which the protocol has to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.protocol.pinner import Pinner
from tests.protocol.protocol import Scenario
from tests.protocol.pruner import Pruner
from tests.protocol.reader import Reader
from tests.protocol.store import ANOTHER_RUN, committed, identity, marker, objects_of, tombstone
from tests.protocol.store import WIPED as HAS_BEEN_WIPED
from tests.protocol.wiper import Wiper
from tests.protocol.writer import Writer

__all__ = ["CROWDS", "LARGE", "MEMORY", "NEW_B", "NEW_S", "OLD_B", "SMALL", "UNSHARED", "WIPED", "WIPED_LARGE"]

_B, _S, _BOTH = frozenset("B"), frozenset("S"), frozenset("BS")
_X = objects_of("B")[0]
_B_AND_S = committed("B") | committed("S", _X)
# A prune has removed B, and left what S needs of it.
_S_ALONE = frozenset({_X, tombstone("B"), identity()}) | committed("S", _X)

_SAVE, _SAVE_ON_S = Writer("S", "B"), Writer("T", "S")
_PRUNE_B, _PRUNE_S, _PRUNE_BOTH = Pruner("p", _B), Pruner("q", _S), Pruner("p", _BOTH)
_STRICT_B, _STRICT_BOTH = Pruner("p", _B, takes_for_dead=True), Pruner("p", _BOTH, takes_for_dead=True)
_TIDY, _STRICT = Pruner("q"), Pruner("q", takes_for_dead=True)
_COLLECT = Pruner("q", takes_for_dead=True, collects=True)
_PIN_B, _PIN_S = Pinner("m", "B"), Pinner("m", "S")
_PASSING_B, _PASSING_S = Pinner("n", "B", unpins=True), Pinner("n", "S", unpins=True)

OLD_B = marker("B", objects_of("B"))
# Two states of the run before that share nothing.
UNSHARED = committed("B") | committed("S")
MEMORY = frozenset({OLD_B, marker("S", objects_of("S"))})
NEW_B = Writer("B", "", run=ANOTHER_RUN, awaits=HAS_BEEN_WIPED)
NEW_S = Writer("S", "B", run=ANOTHER_RUN, awaits=marker("B", objects_of("B", ANOTHER_RUN)))

SMALL: Mapping[str, Scenario] = {
    "prune, 2 pins": Scenario({"p": _PRUNE_B, "m": _PIN_B, "n": _PASSING_B}),
    "prune with lost answers, 2 pins": Scenario({"p": Pruner("p", _B, unsure=True), "m": _PIN_B, "n": _PASSING_B}),
    "2 prunes, lost answers, pin": Scenario({"p": Pruner("p", _B, unsure=True), "q": Pruner("q", _B), "n": _PASSING_B}),
    "2 prunes, 2 pins": Scenario({"p": _PRUNE_B, "q": Pruner("q", _B), "m": _PIN_B, "n": _PASSING_B}),
    "save, strict prune, pin": Scenario({"s": _SAVE, "p": _STRICT_BOTH, "n": _PASSING_S}),
    "save, strict prune, pin of the base": Scenario({"s": _SAVE, "p": _STRICT_B, "n": _PASSING_B}),
    "save, strict prune, reader": Scenario({"s": _SAVE, "p": _STRICT_BOTH, "r": Reader()}),
    "save with lost answers, strict prune": Scenario({"s": Writer("S", "B", unsure_marker=True), "p": _STRICT_B}),
    "save that fails, strict prune": Scenario({"s": Writer("S", "B", fails=True), "p": _STRICT_B}),
    "save with PUTs that land twice, strict prune": Scenario({"s": Writer("S", "B", twice=True), "p": _STRICT_B}),
    "save, prune, prune": Scenario({"s": _SAVE, "p": replace(_PRUNE_B, remembers=True), "q": _TIDY}),
    "save, strict prune, prune": Scenario({"s": _SAVE, "p": _STRICT_B, "q": _TIDY}),
    "save, prune, collection": Scenario({"s": _SAVE, "p": _PRUNE_B, "q": Pruner("q", collects=True)}),
    "save, prune of it, prune": Scenario({"s": _SAVE, "p": _PRUNE_B, "q": _PRUNE_S}),
    "chain of saves, strict prune": Scenario({"s": _SAVE, "t": _SAVE_ON_S, "p": _STRICT_BOTH}),
    "save on a chain, strict prune": Scenario({"t": _SAVE_ON_S, "p": _STRICT_BOTH}, store=_B_AND_S),
    "save on a chain, prune, prune": Scenario({"t": _SAVE_ON_S, "p": _PRUNE_BOTH, "q": _TIDY}, store=_B_AND_S),
    "save on a chain, prune that remembers, prune": Scenario(
        {"t": _SAVE_ON_S, "p": replace(_PRUNE_BOTH, remembers=True), "q": _TIDY}, store=_B_AND_S
    ),
    "save on a chain, prune, prune of the middle": Scenario(
        {"t": _SAVE_ON_S, "p": _PRUNE_B, "q": _PRUNE_S}, store=_B_AND_S
    ),
    "save on an orphan, prune, prune": Scenario({"t": _SAVE_ON_S, "p": _TIDY, "q": _PRUNE_S}, store=_S_ALONE),
    "save on an orphan, prune, prune of it": Scenario(
        {"t": _SAVE_ON_S, "p": Pruner("p", frozenset("T")), "q": _PRUNE_S}, store=_S_ALONE
    ),
    "chain, 2 prunes, reader": Scenario({"p": _PRUNE_B, "q": _PRUNE_S, "r": Reader()}, store=_B_AND_S),
}
"""For every run of the tests."""

WIPED: Mapping[str, Scenario] = {
    name: replace(scenario, tidies=None)
    for name, scenario in {
        "save on a base that it remembers": Scenario(
            {"w": Wiper(), "b": NEW_B, "t": Writer("T", "B", remembers=OLD_B)}
        ),
        "save that reads its base": Scenario({"w": Wiper(), "b": NEW_B, "t": Writer("T", "B")}),
        "save, chain of saves": Scenario(
            {"w": Wiper(), "b": NEW_B, "s": NEW_S, "t": Writer("T", "B", remembers=OLD_B)}
        ),
        "prune by name": Scenario({"w": Wiper(), "b": NEW_B, "p": _PRUNE_B}),
        "prune by name, chain of saves": Scenario({"w": Wiper(), "b": NEW_B, "s": NEW_S, "p": _PRUNE_B}),
        "prune that remembers": Scenario(
            {"w": Wiper(), "b": NEW_B, "s": NEW_S, "p": replace(_PRUNE_BOTH, memory=MEMORY)}, store=UNSHARED
        ),
        "collection": Scenario({"w": Wiper(), "b": NEW_B, "p": replace(_PRUNE_B, collects=True)}),
        "reader": Scenario({"w": Wiper(), "b": NEW_B, "r": Reader()}),
    }.items()
}
"""A store is wiped and used again by another run, while somebody goes on who knew it before."""

WIPED_LARGE: Mapping[str, Scenario] = {
    "prune that remembers, prune of the new run": Scenario(
        {
            "w": Wiper(),
            "b": NEW_B,
            "s": NEW_S,
            "p": Pruner("p", memory=MEMORY),
            "q": Pruner("q", _B, ours=frozenset({identity(ANOTHER_RUN)})),
        },
        store=UNSHARED,
        tidies=None,
    ),
}
"""Likewise, for the long profile."""

LARGE: Mapping[str, Scenario] = {
    "save, 2 strict prunes": Scenario({"s": _SAVE, "p": _STRICT_B, "q": _STRICT}),
    "save, strict prune, strict collection": Scenario({"s": _SAVE, "p": _STRICT_B, "q": _COLLECT}),
    "save, strict prune, pin, reader": Scenario({"s": _SAVE, "p": _STRICT_BOTH, "n": _PASSING_S, "r": Reader()}),
    "save, strict prune, 2 pins": Scenario({"s": _SAVE, "p": _STRICT_BOTH, "m": _PIN_S, "n": _PASSING_S}),
    "save that fails, 2 prunes": Scenario({"s": Writer("S", "B", fails=True), "p": _STRICT_B, "q": _TIDY}),
    "save with lost answers, 2 prunes": Scenario(
        {"s": Writer("S", "B", unsure_marker=True), "p": _STRICT_B, "q": _TIDY}
    ),
    "save, 2 prunes, pin": Scenario({"s": _SAVE, "p": _PRUNE_B, "q": _PRUNE_S, "n": _PASSING_S}),
    "save, 2 prunes, reader": Scenario({"s": _SAVE, "p": _PRUNE_B, "q": _PRUNE_S, "r": Reader()}),
    "chain of saves, 2 prunes": Scenario({"s": _SAVE, "t": _SAVE_ON_S, "p": _PRUNE_B, "q": _PRUNE_S}),
    "chain of saves, strict prune, pin": Scenario({"s": _SAVE, "t": _SAVE_ON_S, "p": _STRICT_BOTH, "n": _PASSING_S}),
    "chain of saves, strict prune, reader": Scenario({"s": _SAVE, "t": _SAVE_ON_S, "p": _STRICT_BOTH, "r": Reader()}),
    "save on a chain, prune, collection": Scenario(
        {"t": _SAVE_ON_S, "p": _STRICT_BOTH, "q": Pruner("q", collects=True)}, store=_B_AND_S
    ),
    "save on a chain, 2 prunes that remember": Scenario(
        {"t": _SAVE_ON_S, "p": replace(_PRUNE_B, remembers=True), "q": replace(_PRUNE_S, remembers=True)},
        store=_B_AND_S,
    ),
    "save on an orphan, 2 strict prunes": Scenario(
        {"t": _SAVE_ON_S, "p": Pruner("p", _S, takes_for_dead=True), "q": _STRICT}, store=_S_ALONE
    ),
    "save on a chain, 2 prunes, pin": Scenario(
        {"t": _SAVE_ON_S, "p": _PRUNE_B, "q": _PRUNE_S, "n": _PASSING_S}, store=_B_AND_S
    ),
    "save on a chain, 2 prunes, reader": Scenario(
        {"t": _SAVE_ON_S, "p": _PRUNE_B, "q": _PRUNE_S, "r": Reader()}, store=_B_AND_S
    ),
}
"""For the long profile: minutes."""

CROWDS: Mapping[str, Scenario] = {
    "from one state": Scenario(
        {
            "s": Writer("S", "B"),
            "t": Writer("T", "S", unsure_marker=True),
            "p": _STRICT_B,
            "q": replace(_PRUNE_S, remembers=True),
            "o": Pruner("o", takes_for_dead=True, collects=True),
            "m": _PASSING_S,
            "n": Pinner("n", "T"),
            "r": Reader(),
        }
    ),
    "from a chain": Scenario(
        {
            "t": Writer("T", "S", twice=True),
            "p": Pruner("p", _BOTH, unsure=True),
            "q": _PRUNE_S,
            "o": Pruner("o", frozenset("T"), takes_for_dead=True),
            "m": _PASSING_B,
            "n": _PIN_S,
            "r": Reader(),
        },
        store=_B_AND_S,
    ),
    "with saves that fail": Scenario(
        {
            "s": Writer("S", "B", fails=True),
            "t": Writer("T", "S", fails=True),
            "p": _STRICT_BOTH,
            "q": replace(_TIDY, remembers=True),
            "o": Pruner("o", collects=True),
            "n": _PASSING_S,
            "r": Reader(),
        }
    ),
}
"""Too many at once to be explored: for random walks."""
