"""Objects as bytes: tree files, pickles, zstd frames, digests, seals. Knows nothing of stores.

NumPy and torch are imported only when an object or a file needs them.
"""

from __future__ import annotations

from statevault.codecs.compression import MIN_GAIN, compress_chunk, decompress_chunk, worth_compressing
from statevault.codecs.digests import DIGEST_SIZE, digest, digest_of_parts
from statevault.codecs.pickles import (
    PicklePolicy,
    current_pickle_policy,
    load_pickle,
    looks_like_pickle,
    pickle_policy,
    save_pickle,
)
from statevault.codecs.seal import MAX_SEAL_SIZE, Seal, SealWriter, find_seal
from statevault.codecs.shuffle import shuffle, unshuffle
from statevault.codecs.tree.decode import decode_tree
from statevault.codecs.tree.encode import encode_tree
from statevault.codecs.tree.file import holds_pickle, read_tree, segment_boundaries, write_tree
from statevault.codecs.tree.held import real_files
from statevault.codecs.tree.layout import EncodedTree
from statevault.codecs.tree.unchanging import Unchanging

__all__ = [
    "DIGEST_SIZE",
    "MAX_SEAL_SIZE",
    "MIN_GAIN",
    "EncodedTree",
    "PicklePolicy",
    "Seal",
    "SealWriter",
    "Unchanging",
    "compress_chunk",
    "current_pickle_policy",
    "decode_tree",
    "decompress_chunk",
    "digest",
    "digest_of_parts",
    "encode_tree",
    "find_seal",
    "holds_pickle",
    "load_pickle",
    "looks_like_pickle",
    "pickle_policy",
    "read_tree",
    "real_files",
    "save_pickle",
    "segment_boundaries",
    "shuffle",
    "unshuffle",
    "worth_compressing",
    "write_tree",
]
