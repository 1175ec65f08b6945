"""Reads the leaf table: arrays, tensors, large bytes and pickles from blocks."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Protocol

from statevault.codecs.tree import arrays, tensors
from statevault.codecs.tree.document import unpack_document
from statevault.errors import FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["ByteSource", "LeafReader"]


class ByteSource(Protocol):
    """The bytes of a tree file, wherever they are."""

    @property
    def size(self) -> int:
        """Length of the file in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes; the range lies within the file."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill a flat byte view with the bytes from ``offset`` on."""

    def mapped(self, offset: int, length: int) -> memoryview | None:
        """Return a writable private view of the bytes, if this source has one to give away."""


class LeafReader:
    """Builds the leaves of a file: arrays, tensors, large bytes, pickles."""

    def __init__(
        self, source: ByteSource, segments: list[tuple[int, int]], *, pickles: bool, map_location: Any
    ) -> None:
        self._source = source
        self._segments = segments
        self._pickles = pickles
        self._map_location = map_location
        self._blocks: list[bytes | tuple[int, int]] = []
        self._used: set[int] = set()
        self._memory: dict[int, torch.Tensor] = {}

    def read(self, data: memoryview) -> list[Any]:
        """Build the leaves of a leaf table."""
        entries, leaves = unpack_document(data)
        segments = iter(self._segments)
        for entry in entries:
            block = next(segments, None) if entry is None else entry
            if block is None or (entry is not None and type(entry) is not bytes):
                raise FormatError("the block table of the tree file does not match its segments")
            self._blocks.append(block)
        if next(segments, None) is not None:
            raise FormatError("the tree file has segments without a block")
        return [self._build(*leaf) for leaf in leaves]

    def _build(self, kind: object, number: object, *details: Any) -> Any:
        if type(number) is not int or not 0 <= number < len(self._blocks):
            raise FormatError(f"a leaf refers to block {number!r:.20} of {len(self._blocks)}")
        if kind == "t":
            return self._tensor(number, details)
        self._use(number)
        if kind == "a":
            return self._array(number, *details)
        if details:
            raise FormatError("a leaf has more elements than its kind knows")
        if kind == "b":
            return self._bytes(number)
        if kind == "y":
            array = bytearray(self._length(number))
            self._fill(number, memoryview(array))
            return array
        if kind == "p" and self._pickles:
            return self._unpickle(number)
        raise FormatError(f"the tree file has a leaf of unknown kind {kind!r:.20}")

    def _use(self, number: int) -> None:
        # A block shared by many leaves would turn a small file into large memory. Tensors may share one:
        # they share its memory as well.
        if number in self._used:
            raise FormatError(f"two leaves refer to block {number}")
        self._used.add(number)

    def _length(self, number: int) -> int:
        block = self._blocks[number]
        return len(block) if isinstance(block, bytes) else block[1]

    def _bytes(self, number: int) -> bytes:
        block = self._blocks[number]
        return block if isinstance(block, bytes) else self._source.read(*block)

    def _fill(self, number: int, target: memoryview) -> None:
        block = self._blocks[number]
        if isinstance(block, bytes):
            target[:] = block
        else:
            self._source.read_into(block[0], target)

    def _mapped(self, number: int) -> memoryview | None:
        block = self._blocks[number]
        return None if isinstance(block, bytes) else self._source.mapped(*block)

    def _array(self, number: int, dtype: object, shape: Any, order: object) -> Any:
        mapped = self._mapped(number)
        if mapped is not None:
            return arrays.mapped_array(mapped, dtype, shape, order)
        array = arrays.empty_array(self._length(number), dtype, shape, order)
        if array.nbytes:
            self._fill(number, arrays.flat_bytes(array))
        return array

    def _tensor(self, number: int, details: tuple[Any, ...]) -> torch.Tensor:
        tensors.require_torch()
        import torch  # noqa: PLC0415

        if torch.is_inference_mode_enabled():
            # An inference tensor could not be trained with later.
            with torch.inference_mode(False):
                return self._tensor(number, details)
        dtype, shape, strides, offset, flags, device = details
        memory = self._memory.get(number)
        if memory is None:
            self._use(number)
            mapped = self._mapped(number)
            if mapped is not None:
                memory = torch.frombuffer(mapped, dtype=torch.uint8)
            else:
                memory = tensors.new_memory(self._length(number))
                self._fill(number, memory.numpy().data)
            memory = self._memory[number] = tensors.move(memory, device, self._map_location)
        return tensors.build_tensor(memory, dtype, shape, strides, (offset, flags))

    def _unpickle(self, number: int) -> Any:
        data = self._bytes(number)
        try:
            return pickle.loads(data)  # noqa: S301 - the caller allowed it, see decode_from
        except Exception as error:
            raise FormatError(f"a pickle in the tree file can't be loaded: {type(error).__name__}: {error}") from error
