"""Torch tensors as leaves. Torch is imported only when a file holds tensors; encoding never needs to import it.

Tensors whose memory overlaps share one block, so that they share memory again after loading. A block spans just
the memory that its tensors reach: a small view of a huge storage doesn't drag the storage along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from statevault.codecs.tree.blocks import BlockTable
from statevault.errors import FormatError, MissingExtraError, StateVaultError

if TYPE_CHECKING:
    import torch

__all__ = [
    "MapLocation",
    "TensorTable",
    "build_tensor",
    "decode_torch_dtype",
    "move",
    "new_memory",
    "require_torch",
    "tensor_reason",
]

MapLocation: TypeAlias = "str | torch.device | Mapping[str, str] | None"
"""Where tensors go on loading: one device, or one for each recorded device (cpu for those not named)."""

_REQUIRES_GRAD = 1
_PARAMETER = 2
# Offsets of views are multiples of their item size; aligning the start of a block to the widest item
# (complex128) keeps them so when views of several dtypes share a block.
_WIDEST_ITEM = 16
_MAX_DIMENSIONS = 64  # as torch's operations have it
_LIMIT = 2**63


def tensor_reason(tensor: torch.Tensor) -> str | None:
    """Say why a tensor can't be stored; None when it can."""
    import torch  # noqa: PLC0415

    if tensor.is_quantized:
        return "quantized tensors are not supported; store tensor.int_repr() with its scale and zero point"
    if tensor.is_nested:
        return "nested tensors are not supported; store the list tensor.unbind()"
    if tensor.layout is not torch.strided:
        return f"tensors of layout {tensor.layout} are not supported; store their parts, or tensor.to_dense()"
    if tensor.device.type == "meta":
        return "a tensor on the meta device has no values; make it on another one, as module.to_empty(device=...) does"
    if tensor.dim() > _MAX_DIMENSIONS:
        return f"tensors of more than {_MAX_DIMENSIONS} dimensions are not supported; reshape it"
    try:
        storage = tensor.untyped_storage()
        storage.data_ptr()
    except RuntimeError:
        return "it has no memory of its own, as inside of torch.func transformations; store it outside of them"
    if tensor.numel() and tensor.storage_offset() * tensor.itemsize + _reach(tensor) > storage.nbytes():
        return "its memory was freed, as FSDP does with parameters in between; gather its values first"
    return None


class _Group:
    """Tensors with overlapping memory: the bytes ``[start, end)`` of the memory of one device ("": the host's)."""

    def __init__(self, device: str, start: int, end: int) -> None:
        self.device = device
        self.start = start
        self.end = end
        self.members: list[tuple[int, torch.Tensor]] = []


class TensorTable:
    """Collects the tensors of one tree, and turns them into leaves once all are known."""

    def __init__(self) -> None:
        self._tensors: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def add(self, leaf: int, tensor: torch.Tensor) -> None:
        """Note that a leaf number stands for a tensor."""
        # Lazy conjugation and negation are bits beside the memory; the memory alone would be wrong.
        plain = tensor.detach()
        if plain.is_conj() or plain.is_neg():
            plain = plain.resolve_conj().resolve_neg()
        self._tensors.append((leaf, tensor, plain))

    def encode(self, blocks: BlockTable) -> dict[int, list[Any]]:
        """Add the tensors' memory to the blocks, in the order in which tensors were added.

        Returns:
            The leaf of each leaf number.
        """
        if not self._tensors:
            return {}
        originals = {leaf: original for leaf, original, _ in self._tensors}
        leaves: dict[int, list[Any]] = {}
        for group in self._groups():
            for leaf, plain, block, start in _place(group, blocks):
                leaves[leaf] = _describe(originals[leaf], plain, block, start)
        return leaves

    def _groups(self) -> list[_Group]:
        extents: list[tuple[str, int, int, int]] = []
        for position, (_, _, plain) in enumerate(self._tensors):
            start, end = _extent(plain)
            device = "" if plain.is_cpu else str(plain.device)
            extents.append((device, start, end, position))
        groups: dict[int, _Group] = {}  # by the position of the first member, which decides the order
        group = None
        for device, start, end, position in sorted(extents):
            leaf, _, plain = self._tensors[position]
            if group is None or group.device != device or start >= group.end or start == end:
                group = _Group(device, start, end)
                groups[position] = group
            group.members.append((leaf, plain))
            group.end = max(group.end, end)
        order = {leaf: position for position, (leaf, _, _) in enumerate(self._tensors)}
        return sorted(groups.values(), key=lambda group: min(order[leaf] for leaf, _ in group.members))


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the address range that a tensor reaches."""
    start = tensor.data_ptr()
    return start, start + _reach(tensor)


def _reach(tensor: torch.Tensor) -> int:
    """How many bytes a tensor reaches, from its first item on."""
    if tensor.is_contiguous():
        return tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.itemsize


def _place(group: _Group, blocks: BlockTable) -> list[tuple[int, torch.Tensor, int, int]]:
    """Give each tensor of a group a block, and the address at which that block starts."""
    (leaf, tensor), *others = group.members
    # A lone tensor that leaves most of what it spans unused (one column of a matrix) is written compactly.
    if others or (group.end - group.start) <= 2 * tensor.numel() * tensor.itemsize:
        lowest = min((member for _, member in group.members), key=lambda member: member.data_ptr())
        storage = lowest.untyped_storage()
        base = storage.data_ptr()
        start = base + (group.start - base) // _WIDEST_ITEM * _WIDEST_ITEM
        inside = group.end <= base + storage.nbytes()
        if inside and all((t.data_ptr() - start) % t.itemsize == 0 for _, t in group.members):
            view = _storage_bytes(storage, start - base, group.end - start)
            block = blocks.add(view, private=bool(group.device))
            return [(leaf, t, block, start) for leaf, t in group.members]
    # Also the way out for views of foreign memory that no single storage spans, or that are unaligned.
    placed = []
    for leaf, tensor in group.members:
        compact = _compact(tensor)
        view = _storage_bytes(compact.untyped_storage(), 0, compact.numel() * compact.itemsize)
        placed.append((leaf, compact, blocks.add(view, private=True), compact.data_ptr()))
    return placed


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy."""
    import torch  # noqa: PLC0415

    # As integers of that size: torch has dtypes that it does not copy (int4, qint8).
    carrier = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.itemsize, tensor.dtype)
    return tensor.view(carrier).clone(memory_format=torch.contiguous_format).view(tensor.dtype)


def _storage_bytes(storage: torch.UntypedStorage, offset: int, length: int) -> memoryview:
    """Return a byte view of a part of a storage, which it keeps alive; a copy when it is on another device."""
    import torch  # noqa: PLC0415

    if length == 0:
        return memoryview(b"")
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, offset, (length,), (1,))
    return flat.cpu().numpy().data


def _describe(original: torch.Tensor, plain: torch.Tensor, block: int, start: int) -> list[Any]:
    import torch  # noqa: PLC0415

    flags = (_REQUIRES_GRAD if original.requires_grad else 0) | (
        _PARAMETER if type(original) is torch.nn.Parameter else 0
    )
    strides = None if plain.is_contiguous() else list(plain.stride())
    offset = (plain.data_ptr() - start) // plain.itemsize if plain.numel() else 0
    device = None if original.is_cpu else str(original.device)
    return ["t", block, str(plain.dtype)[6:], list(plain.shape), strides, offset, flags, device]


def decode_torch_dtype(name: object) -> torch.dtype:
    """Look a dtype of torch up by its name, such as ``"bfloat16"``.

    Raises:
        FormatError: This torch has no such dtype.
    """
    require_torch()
    import torch  # noqa: PLC0415

    dtype = vars(torch).get(name) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise FormatError(f"torch {torch.__version__} has no dtype {name!r:.80}")
    return dtype


def move(memory: torch.Tensor, recorded: object, map_location: Any) -> torch.Tensor:
    """Move the memory of a block to the device on which its tensors are to be loaded.

    Raises:
        StateVaultError: That device is not there, or can't take it.
    """
    import torch  # noqa: PLC0415

    if map_location is None:
        return memory
    device = map_location.get(recorded or "cpu", "cpu") if isinstance(map_location, Mapping) else map_location
    try:
        return memory.to(torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise StateVaultError(f"tensors can't be moved to {device} (map_location): {error}") from error


def new_memory(length: int) -> torch.Tensor:
    """Allocate the memory of a block on the host.

    Raises:
        MemoryError: There is not so much.
        StateVaultError: Torch makes no plain tensors right now.
    """
    try:
        return _new_bytes(length, "cpu")
    except RuntimeError as error:
        raise MemoryError(f"no memory for tensors of {length} bytes") from error


def _new_bytes(length: int, device: torch.device | str) -> torch.Tensor:
    """Make a tensor of bytes, whatever the default device and dtype are."""
    import torch  # noqa: PLC0415

    made = torch.empty(length, dtype=torch.uint8, device=device)
    if type(made) is not torch.Tensor:
        raise StateVaultError(
            f"torch makes {type(made).__name__}s instead of tensors right now: load outside of the mode that does so"
        )
    return made


def require_torch() -> None:
    """Make sure that torch can be imported.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingExtraError("the tree file holds torch tensors: pip install 'statevault[torch]'") from error


def build_tensor(memory: torch.Tensor, dtype: object, shape: Any, strides: Any, place: Any) -> torch.Tensor:
    """Build a tensor on the memory of its block.

    Args:
        memory: The block: a flat uint8 tensor.
        dtype: The dtype's name.
        shape: Sizes.
        strides: Strides in items; None for contiguous ones.
        place: Offset in items, flags.

    Raises:
        FormatError: The tensor would reach outside of its block.
    """
    import torch  # noqa: PLC0415

    decoded = decode_torch_dtype(dtype)
    offset, flags = place
    if len(shape) > _MAX_DIMENSIONS:
        raise FormatError(f"a tensor has {len(shape)} dimensions, torch works with up to {_MAX_DIMENSIONS}")
    if strides is None:
        strides, step = [], 1
        for size in reversed(shape):
            strides.insert(0, step)
            step *= max(size, 1)
    numbers = [*shape, *strides, offset, flags]
    if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < _LIMIT for n in numbers):
        raise FormatError("a tensor has a malformed shape")
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    reach = (offset + (0 if 0 in shape else last + 1)) * decoded.itemsize
    if reach > memory.numel():
        raise FormatError(f"a tensor of shape {shape} reaches {reach} bytes into a block of {memory.numel()}")
    # Not made with the dtype: torch.empty warns of complex32, and makes quantized tensors of qint8.
    tensor = _new_bytes(0, memory.device).view(decoded).detach()
    tensor.set_(memory.untyped_storage(), offset, tuple(shape), tuple(strides))
    requires_grad = bool(flags & _REQUIRES_GRAD)
    if flags & _PARAMETER:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor
