"""The bytes of a file that a component wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from statevault.codecs import segment_boundaries
from statevault.errors import UnsupportedTypeError
from statevault.state_persistence.content.chunked_content import ChunkedContent
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["LocalContent"]


class LocalContent(ChunkedContent):
    """The chunks of a local file, which nobody changes meanwhile: if somebody does, each is hashed as it is sent.

    Args:
        path: Where it lies.
        size: Bytes.
        name: What to call it in messages.
        encoders: Where chunks are read, hashed and compressed.
    """

    def __init__(self, path: Path, size: int, *, name: str, encoders: WorkerPool) -> None:
        super().__init__(size, segment_boundaries(path) or (), encoders)
        self._path = path
        self._name = name

    @override
    @contextmanager
    def _open(self) -> Iterator[Callable[[int, int], Buffer]]:
        with self._path.open("rb") as opened:

            def read(start: int, stop: int) -> bytes:
                raw = os.pread(opened.fileno(), stop - start, start)
                if len(raw) != stop - start:
                    raise UnsupportedTypeError(
                        f"{self._name!r} became shorter after it was saved: a component must let go of its files "
                        "when its save_state returns"
                    )
                return raw

            yield read
