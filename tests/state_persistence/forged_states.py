"""States as somebody could write them who may write to the store, and wishes it ill: digests right, content not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack

from statevault.codecs import compress_chunk, digest
from statevault.codecs.compression import compress_bounded
from statevault.format.keys import COMMITS, manifest_key
from tests.state_persistence.storages import DictStorage

__all__ = ["change_manifest", "chunk_of", "put_manifest", "replace_files"]

Fields = dict[str, Any]


def change_manifest(storage: DictStorage, state: str, change: Callable[[Fields], object]) -> None:
    """Change the manifest of a state, and its marker as it takes to agree."""
    import zstandard

    stored = storage.objects[manifest_key(state)]
    fields = msgpack.unpackb(zstandard.ZstdDecompressor().decompress(stored))
    change(fields)
    put_manifest(storage, state, fields)


def put_manifest(storage: DictStorage, state: str, fields: Fields, packed: bytes | None = None) -> None:
    """Put a manifest, and change the marker of the state so that it describes it.

    Args:
        storage: Where.
        state: The state, which is there.
        fields: What the manifest says.
        packed: Its bytes, if they say something else; they are compressed as far as they can be.
    """
    stored = compress_bounded(msgpack.packb(fields)) if packed is None else compress_chunk(packed)
    packed = msgpack.packb(fields) if packed is None else packed
    (key,) = [key for key in storage.objects if key.startswith(COMMITS) and key.endswith(f".{state}")]
    marker = json.loads(storage.objects[key])
    marker["manifest"] = {"length": len(stored), "size": len(packed), "digest": digest(stored).hex()}
    marker["size"] = sum(file[2] for file in fields["files"])
    marker["components"] = fields["components"]
    storage.objects[manifest_key(state)] = stored
    storage.objects[key] = json.dumps(marker).encode()


def replace_files(
    storage: DictStorage, state: str, files: dict[str, list[list[Any]]], objects: dict[str, bytes]
) -> None:
    """Let a state have other files in its only component.

    Args:
        storage: Where.
        state: The state.
        files: For each path its chunks, as in a manifest.
        objects: The objects in its folder, by name, in the order in which chunks refer to them.
    """
    for name, content in objects.items():
        storage.objects[f"{state}/{name}"] = content

    def change(fields: Fields) -> None:
        fields["objects"] = [[f"{state}/{name}", len(content)] for name, content in objects.items()]
        fields["directories"] = []
        fields["files"] = [[0, path, sum(chunk[3] for chunk in chunks), 4, chunks] for path, chunks in files.items()]

    change_manifest(storage, state, change)


def chunk_of(content: bytes, index: int = 0, offset: int = 0, *, compressed: bool = False) -> tuple[list[Any], bytes]:
    """A chunk, as in a manifest, and what lies at its place."""
    stored = compress_chunk(content) if compressed else content
    return [index, offset, len(stored), len(content), digest(content), int(compressed)], stored
