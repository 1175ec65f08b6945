"""Policies as files, and back: whole modules as torch pickles them, state dicts without pickle."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statevault.codecs import read_tree, write_tree
from statevault.codecs.pickles import require_safe_torch_load
from statevault.errors import FormatError, MissingExtraError, PickleNotAllowedError, StateVaultError
from statevault.persistence.mode import PolicyMode

__all__ = ["load_policy", "read_state_dict", "size_of", "write_policy"]

_ARCHIVE = b"PK\x03\x04"
_PICKLE = b"\x80"
_PARAMETERS, _METADATA = "parameters", "metadata"


def write_policy(policy: Any, mode: PolicyMode, file: Path, *, allow_pickle: bool) -> None:
    """Write a policy to a file.

    Args:
        policy: A :class:`torch.nn.Module`.
        mode: What of it.
        file: Where.
        allow_pickle: Whether a state dict may hold what only pickle can write.

    Raises:
        UnsupportedTypeError: The state dict has something in it that can't be stored without pickle.
        MissingExtraError: torch is not installed.
        Exception: Whatever torch raises when the module can't be pickled.
    """
    if mode is PolicyMode.POLICY:
        _torch().save(policy, file)
        return
    state = policy.state_dict()
    # Modules read their version from the metadata, to convert what older ones saved.
    metadata = {name: dict(entry) for name, entry in getattr(state, "_metadata", {}).items()}
    write_tree({_PARAMETERS: dict(state), _METADATA: metadata}, file, allow_pickle=allow_pickle)


def read_state_dict(file: Path, mode: PolicyMode, device: Any, *, allow_pickle: bool, where: str) -> Mapping[str, Any]:
    """Read the state dict of a policy that was written in a mode.

    Args:
        file: The file; also one that :func:`torch.save` wrote in either mode.
        mode: The mode.
        device: Where its tensors go; whatever torch takes as ``map_location``.
        allow_pickle: Whether pickles are loaded.
        where: What it is, for messages.

    Raises:
        PickleNotAllowedError: That takes a pickle, and pickles are not allowed.
        FormatError: It is damaged, or no policy.
        StateVaultError: The device is not there.
        MissingExtraError: torch is not installed, or would run code in the file all the same.
    """
    if mode is PolicyMode.POLICY:
        if not allow_pickle:
            raise PickleNotAllowedError(
                f"{where} is a pickle of a whole policy: loading it runs code of whoever can write there. If you trust "
                "them: PolicyPersistence(…, allow_pickle=True). If not, save with mode=Mode.POLICY_STATE_DICT"
            )
        policy = _torch_load(file, device, where, weights_only=False)
        if not hasattr(policy, "state_dict"):
            raise FormatError(f"{where} holds a {type(policy).__name__}, not a policy")
        state = policy.state_dict()
    elif _begins_with(file, _ARCHIVE) or _begins_with(file, _PICKLE):
        state = _torch_load(file, device, where, weights_only=not allow_pickle)
    else:
        try:
            state = _from_tree(read_tree(file, map_location=device, allow_pickle=allow_pickle), where)
        except StateVaultError as error:
            # Where it is from, and not the temporary file, which nobody finds any more.
            raise type(error)(f"{where}: {str(error).removeprefix(f'{file}: ')}") from error.__cause__
    if not isinstance(state, Mapping):
        raise FormatError(f"{where} holds a {type(state).__name__}, not the state dict of a policy")
    return state


def load_policy(policy: Any, state: Mapping[str, Any], *, where: str) -> None:
    """Load a state dict into a policy that is built as it was.

    Raises:
        FormatError: It does not fit. If a name or a shape differs, the policy is as it was then.
        StateVaultError: The policy is on the meta device.
    """
    own = policy.state_dict()
    if valueless := [name for name, value in own.items() if getattr(value, "is_meta", False)]:
        # Torch would warn that nothing is copied there, and go on.
        raise StateVaultError(
            f"{where} can't be loaded: {valueless[0]} of the {type(policy).__name__} is on the meta device, which "
            "keeps no values. Build the policy on another device"
        )
    try:
        if not _fits(own, state):
            # Torch loads what fits before it says what does not; it may fit: modules convert what older ones saved.
            copy.deepcopy(policy).load_state_dict(copy.copy(state))
        policy.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{where} does not fit the {type(policy).__name__}: {error}. Build the policy as it was when it was saved"
        ) from error


def size_of(policy: Any) -> int:
    """About how many bytes a policy takes when it is written, with the state of an optimizer."""
    return 3 * sum(int(parameter.nbytes) for parameter in policy.parameters())


def _fits(own: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    return own.keys() == state.keys() and all(
        getattr(value, "shape", None) == getattr(state[name], "shape", None) for name, value in own.items()
    )


def _from_tree(record: Any, where: str) -> Mapping[str, Any]:
    try:
        state = OrderedDict(record[_PARAMETERS])
        state._metadata = OrderedDict(record[_METADATA])  # type: ignore[attr-defined]  # noqa: SLF001
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where} does not hold the state dict of a policy") from error
    return state


def _torch_load(file: Path, device: Any, where: str, *, weights_only: bool) -> Any:
    torch = _torch()
    if weights_only:
        require_safe_torch_load(torch)
    if device is not None and not callable(device) and not isinstance(device, Mapping):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise StateVaultError(f"{where} can't be restored to the device {device}: {error}") from error
    try:
        return torch.load(file, map_location=device, weights_only=weights_only)
    except (OSError, MemoryError, ImportError, AttributeError):
        raise
    except Exception as error:
        if weights_only and isinstance(error, pickle.UnpicklingError):
            raise PickleNotAllowedError(
                f"{where} holds more than tensors and plain values: loading it runs code of whoever can write there. "
                "If you trust them: PolicyPersistence(…, allow_pickle=True)"
            ) from error
        # An empty file is an EOFError, a cut one a RuntimeError, others are struct.error, KeyError, UnicodeDecodeError…
        raise FormatError(
            f"{where} is damaged, or no file of torch.save ({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _begins_with(file: Path, magic: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(magic)) == magic


def _torch() -> Any:
    # Not at the top: whoever imports statevault.persistence may not need torch yet, and it takes seconds.
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("policies need torch: install it with `pip install 'statevault[torch]'`") from error
    return torch
