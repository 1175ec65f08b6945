"""What lies in an experiment's folder and is the experiment's: other files are not even looked at."""

from __future__ import annotations

from collections.abc import Iterator

from statevault.errors import ObjectNotFoundError
from statevault.experiments.layout import OWN_PREFIXES, TOP_KEYS, is_own_key, older_key
from statevault.storage import ObjectInfo, Storage

__all__ = ["own_objects"]


def own_objects(storage: Storage) -> Iterator[ObjectInfo]:
    """All objects of an experiment, by their keys: those at the top first.

    Args:
        storage: Its folder.

    Raises:
        StorageError: The storage failed.
    """
    for top in sorted(TOP_KEYS):
        for key in dict.fromkeys((top, older_key(top))):
            try:
                yield storage.head(key)
            except ObjectNotFoundError:
                continue
    for prefix in OWN_PREFIXES:
        for found in storage.list(prefix):
            if is_own_key(found.key):
                yield found
