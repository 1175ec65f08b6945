"""Under which keys the new objects of a state lie: whole files, or parts of them (``docs/format.md``, section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from statevault.format.keys import object_key

__all__ = ["ObjectName", "object_names"]


@dataclass(frozen=True, slots=True)
class ObjectName:
    """The keys that one file's object may have.

    Attributes:
        path: The file's logical path: the name of an object that holds all of it.
        part: The name of one that holds only some of its chunks, so that nobody takes it for the file.
        may_compress: Whether an object that holds all of it may be compressed: whether ``<path>.zst`` is no other file.
    """

    path: str
    part: str
    may_compress: bool

    def key(self, state: str, *, whole: bool, compressed: bool) -> str:
        """The key of the object in the folder of `state`."""
        return object_key(state, self.path if whole else self.part, compressed=compressed)

    def all_keys(self, state: str) -> list[str]:
        """Every key that it may have."""
        return [
            self.key(state, whole=whole, compressed=compressed)
            for whole in (True, False)
            for compressed in (False, True)
        ]


def object_names(paths: Iterable[str]) -> dict[str, ObjectName]:
    """Name the objects of the files of a state, so that none has the name of another one or of a folder.

    Args:
        paths: The logical paths of all files.

    Returns:
        By logical path.
    """
    paths = list(paths)
    taken = set(paths)
    for path in paths:
        while path := path.rpartition("/")[0]:
            taken.add(path)
    names = {}
    for path in paths:
        part = f"{path}.part"
        while part in taken or f"{part}.zst" in taken:
            part += "~"
        names[path] = ObjectName(path, part, f"{path}.zst" not in taken)
    return names
