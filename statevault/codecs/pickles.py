"""Pickle files, and the policy that says where pickles may be written and read.

A pickle runs code when it is loaded. A store therefore opens a :func:`pickle_policy` around every call of a
component; what the component writes and reads inside it, directly or through the tree codec, obeys it.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statevault.errors import MissingExtraError, PickleNotAllowedError

__all__ = [
    "PicklePolicy",
    "current_pickle_policy",
    "load_pickle",
    "looks_like_pickle",
    "pickle_policy",
    "pickles_allowed",
    "require_safe_torch_load",
    "save_pickle",
]

_REMEDY = "make the store with allow_pickle=True if every writer of its states is trusted"


@dataclass(frozen=True, slots=True)
class PicklePolicy:
    """What is allowed inside one :func:`pickle_policy` block, and what has been written there.

    Attributes:
        allowed: Whether pickles may be written and read.
        written: Paths of the files with pickles that were written inside the block, as the writer named them.
    """

    allowed: bool
    written: set[Path] = field(default_factory=set)


_policy: ContextVar[PicklePolicy | None] = ContextVar("statevault_pickle_policy", default=None)
# By folder, for threads that a component starts: they do not inherit the context.
_folders: dict[Path, PicklePolicy] = {}


@contextmanager
def pickle_policy(*, allowed: bool, folder: Path | None = None) -> Iterator[PicklePolicy]:
    """Set whether pickles may be written and read inside a ``with`` block, in this thread (or task).

    Blocks nest; the innermost counts.

    Args:
        allowed: Whether pickles are allowed.
        folder: A folder for whose files the policy holds in all threads.

    Yields:
        The policy, whose ``written`` fills up while the block runs.
    """
    policy = PicklePolicy(allowed)
    token = _policy.set(policy)
    if folder is not None:
        _folders[folder] = policy
    try:
        yield policy
    finally:
        if folder is not None:
            del _folders[folder]
        _policy.reset(token)


def current_pickle_policy(path: Path | None = None) -> PicklePolicy | None:
    """Return the policy of the innermost open :func:`pickle_policy` block; None outside of any.

    Args:
        path: A file: in a thread without a policy, that of the folder which it is in.
    """
    policy = _policy.get()
    if policy is None and path is not None and _folders:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
        return next((held for folder, held in list(_folders.items()) if absolute.is_relative_to(folder)), None)
    return policy


def pickles_allowed(allow_pickle: bool | None, path: Path | None = None) -> bool:
    """Say whether pickles are allowed: an open policy may forbid what the caller allows.

    Args:
        allow_pickle: What the caller says; None for nothing.
        path: The file, if there is one.
    """
    policy = current_pickle_policy(path)
    if policy is None:
        return bool(allow_pickle)
    return policy.allowed and allow_pickle is not False


def save_pickle(obj: object, path: str | os.PathLike[str]) -> None:
    """Pickle an object into a file.

    Args:
        obj: Any object that pickle takes.
        path: The file; an existing one is replaced.

    Raises:
        PickleNotAllowedError: A pickle policy is open that doesn't allow pickles.
    """
    path = Path(path)
    policy = current_pickle_policy(path)
    if policy is not None and not policy.allowed:
        raise PickleNotAllowedError(
            f"{path}: this store takes no pickles. Write plain data with write_tree(), or {_REMEDY}"
        )
    with path.open("wb") as file:
        pickle.dump(obj, file, protocol=pickle.HIGHEST_PROTOCOL)
    if policy is not None:
        policy.written.add(path)


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Load the object that :func:`save_pickle` wrote.

    **This runs whatever code the file names.**

    Args:
        path: The file.

    Raises:
        PickleNotAllowedError: A pickle policy is open that doesn't allow pickles.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    policy = current_pickle_policy(path)
    if policy is not None and not policy.allowed:
        raise PickleNotAllowedError(f"{path}: is a pickle, and this store loads none; {_REMEDY}")
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the policy allows it, or the caller asked for it by name


def looks_like_pickle(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a pickle (protocol 2 or later) or an archive of :func:`torch.save`.

    For reports only: it is a look at the file's ends, not a proof.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(4)
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            file.seek(-1, os.SEEK_END)
            return file.read(1) == pickle.STOP
    if head != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def require_safe_torch_load(torch: Any) -> None:
    """Check that ``torch.load(weights_only=True)`` runs no code of the file.

    Args:
        torch: The package.

    Raises:
        MissingExtraError: It does, as before version 2.6 (CVE-2025-32434).
    """
    if torch.__version__ < "2.6":  # compared as versions
        raise MissingExtraError(
            f"torch {torch.__version__} runs code out of files from which it should take tensors only "
            "(CVE-2025-32434): install a newer one with `pip install 'torch>=2.6'`"
        )
