"""Keys of one hash: each is compared with all of the others, so that many of them would hold a load for hours.

Python's hashes of numbers, and of tuples and frozen sets of numbers, are no secret: all multiples of 2**61 - 1 hash to
0. A tree file may be of somebody who knows that, so that dicts and sets with many such keys are neither built nor
written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable

__all__ = ["MAX_OF_ONE_HASH", "crowded"]

MAX_OF_ONE_HASH = 100
"""How many keys of a dict, or items of a set, may have the same hash."""


def crowded(keys: Collection[Hashable]) -> bool:
    """Whether more than :data:`MAX_OF_ONE_HASH` of some keys have the same hash.

    Raises:
        TypeError: One of them has no hash.
    """
    if len(keys) <= MAX_OF_ONE_HASH:
        return False
    hashes = set(map(hash, keys))
    if len(keys) - len(hashes) < MAX_OF_ONE_HASH:
        return False
    return max(Counter(map(hash, keys)).values()) > MAX_OF_ONE_HASH
