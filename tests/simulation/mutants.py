"""Breaks the code under test on purpose, one step of the protocol at a time: the simulation must notice.

A mutant is the source of a module with a few of its lines changed. It is made when the module is imported, in a process
of its own, so that whoever has imported a name of the module has the mutant's.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from typing_extensions import override

__all__ = ["MUTANTS", "Mutant", "mutate"]

_PACKAGE = Path(__file__).parents[2] / "statevault" / "state_persistence"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake.

    Attributes:
        module: Where, below ``statevault.state_persistence``.
        changes: Pieces of its source, each of which occurs once, and what takes their place.
    """

    module: str
    changes: tuple[tuple[str, str], ...]

    def source(self) -> str:
        """The module's source with the mistake in it.

        Raises:
            ValueError: A piece that is to be changed does not occur once: the mutant has to follow the code.
        """
        path = _PACKAGE / f"{self.module.replace('.', '/')}.py"
        source = path.read_text(encoding="utf-8")
        for old, new in self.changes:
            if source.count(old) != 1:
                raise ValueError(f"{path} has {source.count(old)} times {old!r}: bring the mutant up to date")
            source = source.replace(old, new)
        return source


MUTANTS: dict[str, Mutant] = {
    # -- saving
    "the session is put after the look at the base": Mutant(
        "publish.commit",
        (
            (
                "    _put_session(storage, session)\n    may_clash",
                "    gone = base is not None and catalog.is_tombstoned(base.key)\n"
                "    _put_session(storage, session)\n    may_clash",
            ),
            (
                "base_is_gone=lambda: base is not None and catalog.is_tombstoned(base.key),",
                "base_is_gone=lambda: gone,",
            ),
        ),
    ),
    "there is no session": Mutant(
        "publish.commit", (("    _put_session(storage, session)\n    may_clash", "    may_clash"),)
    ),
    "the session does not name the base": Mutant(
        "publish.commit", (("base=None if base is None else base.key.state,", "base=None,"),)
    ),
    "the base's tombstone is not looked for": Mutant(
        "publish.commit",
        (
            (
                "base_is_gone=lambda: base is not None and catalog.is_tombstoned(base.key),",
                "base_is_gone=lambda: False,",
            ),
        ),
    ),
    "the manifest is put after the marker": Mutant(
        "publish.commit",
        (
            ("    storage.put(manifest_key(key.state), stored)\n", ""),
            (
                "    _put_marker(storage, key, marker)\n",
                "    _put_marker(storage, key, marker)\n"
                "    storage.put(manifest_key(key.state), compress_chunk(manifest.pack()))\n",
            ),
        ),
    ),
    "the session goes before the marker is put": Mutant(
        "publish.commit",
        (
            (
                "    _put_marker(storage, key, marker)\n",
                "    storage.delete([session_key(key.state)])\n    _put_marker(storage, key, marker)\n",
            ),
        ),
    ),
    "a marker without an answer is taken for put": Mutant(
        "publish.commit",
        ((" and _is_there(storage, commit_key(*key), marker):", ":"),),
    ),
    "the fences are not looked at": Mutant(
        "publish.ending",
        (("    if True in found:", "    if None in found:"),),
    ),
    "the abort is not looked for": Mutant(
        "publish.ending",
        (
            (
                "_tried(partial(storage.exists, tombstone_key(*key))), _tried(look.result)",
                "(_tried(partial(storage.exists, tombstone_key(*key))),)",
            ),
        ),
    ),
    "a failed save leaves no tombstone": Mutant(
        "publish.giving_up",
        (("        put_tombstone(storage, key, by=session.writer, reason=", "        _logger.debug("),),
    ),
    "sequences are counted from markers alone": Mutant(
        "records.catalog",
        (
            (
                "(key.sequence for key in (*self.commits, *self.tombstones))",
                "(key.sequence for key in self.commits)",
            ),
        ),
    ),
    "a name is not looked at again": Mutant(
        "publish.commit",
        (("may_clash = request.name is not None or not names.are_fine", "may_clash = False"),),
    ),
    # -- pruning
    "a prune of a dead writer puts no abort": Mutant(
        "pruning.removal",
        (
            (
                "        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=now).to_json())\n",
                "",
            ),
        ),
    ),
    "a prune looks for the marker before it puts the abort": Mutant(
        "pruning.removal",
        (
            (
                "        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=now).to_json())\n"
                "        if not storage.exists(commit_key(*key)):\n",
                "        missing = not storage.exists(commit_key(*key))\n"
                "        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=now).to_json())\n"
                "        if missing:\n",
            ),
        ),
    ),
    "commits are listed before sessions": Mutant(
        "pruning.prune",
        (
            ("    commits = catalog.commits()\n", ""),
            (
                "    seen = look_at_sessions(storage)\n",
                "    commits = catalog.commits()\n    seen = look_at_sessions(storage)\n",
            ),
        ),
    ),
    "bases of live sessions are not protected": Mutant(
        "pruning.protection",
        (
            (
                "bases = {session.base for session in sessions if session.base is not None and",
                "bases = {session.base for session in sessions if session.base is None and",
            ),
        ),
    ),
    "what visible states reuse is not protected": Mutant(
        "pruning.protection",
        (
            (
                "[record for record in records if not folders.isdisjoint(record.reuses)]",
                "[record for record in records if not True]",
            ),
        ),
    ),
    "the markers of bases go": Mutant(
        "pruning.prune",
        (
            (
                "done = [key for key in listing.commits if key.state in dead.keys() - sheltered]",
                "done = [key for key in listing.commits if key.state in dead]",
            ),
        ),
    ),
    # -- pins
    "a prune has no intent": Mutant(
        "pruning.removal", (("    storage.put(intent_key(prune), intent.to_json())\n", ""),)
    ),
    "a prune lists the pins before its intent": Mutant(
        "pruning.removal",
        (
            ("    storage.put(intent_key(prune), intent.to_json())\n", ""),
            (
                "    removed = [key for key in states if key.state not in pinned]\n",
                "    removed = [key for key in states if key.state not in pinned]\n"
                "    storage.put(intent_key(prune), intent.to_json())\n",
            ),
        ),
    ),
    "a prune's intent goes before the tombstones are there": Mutant(
        "pruning.removal",
        (
            ("    storage.delete([intent_key(prune)])\n    return removed", "    return removed"),
            (
                "    removed = [key for key in states if key.state not in pinned]\n",
                "    removed = [key for key in states if key.state not in pinned]\n"
                "    storage.delete([intent_key(prune)])\n",
            ),
        ),
    ),
    "intents are not looked at when a state is pinned": Mutant(
        "pruning.pins", (("    intent = _intent(storage, key.state)\n", "    intent = None\n"),)
    ),
    "the tombstone is looked for before the intents": Mutant(
        "pruning.pins",
        (
            (
                "    intent = _intent(storage, key.state)\n",
                "    tombstoned = storage.exists(tombstone_key(*key))\n    intent = _intent(storage, key.state)\n",
            ),
            ("    if storage.exists(tombstone_key(*key)) or", "    if tombstoned or"),
        ),
    ),
    # -- reading, collecting
    "a missing object is always taken for damage": Mutant(
        "restore.download", (("        if self._catalog.is_unchanged(self.record):\n", "        if True:\n"),)
    ),
    "tombstones are not looked at": Mutant(
        "records.catalog",
        (("return [key for key in self.commits if key.state not in dead]", "return list(self.commits)"),),
    ),
}


def mutate(name: str) -> None:
    """Make a mutant of a module that is not yet imported: its import raises what :meth:`Mutant.source` does."""
    mutant = MUTANTS[name]
    sys.meta_path.insert(0, _Finder(f"statevault.state_persistence.{mutant.module}", mutant))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, mutant: Mutant) -> None:
        self._module = module
        self._mutant = mutant

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    @override
    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutant.source(), self.path, "exec")
