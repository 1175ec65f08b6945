"""Which names are allowed for states, components and files (``docs/format.md``, section 1).

Names come from users, from clocks and from manifests that somebody else may have written. All of them are
checked here, so that no other module needs to ask whether a name can leave its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from statevault.errors import FormatError, InvalidNameError

__all__ = [
    "check_component_name",
    "check_distinct_paths",
    "check_logical_path",
    "check_pin_name",
    "check_state_name",
    "is_state_name",
]

_STATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,:+=@~-]{0,199}")
_PIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,:+=@~-]{0,99}")
_FORBIDDEN_IN_SEGMENT = re.compile(r"[\x00-\x1f\x7f\\]")
_MAX_SEGMENT_BYTES = 255
_MAX_SEGMENTS = 64
# Where a state is staged for a load, something stands before the path, and Linux takes 4095 bytes together.
_MAX_PATH_BYTES = 2048


def check_state_name(name: str) -> str:
    """Return the name of a state if it can be one.

    Raises:
        InvalidNameError: It can't; the message says what is allowed.
    """
    if not is_state_name(name):
        raise InvalidNameError(
            f"{name!r} can't be the name of a state: use 1 to 200 characters out of A-Z a-z 0-9 . _ , : + = @ ~ -, "
            "the first one a letter or digit (a name is one path segment: no '/')"
        )
    return name


def is_state_name(name: str) -> bool:
    """Whether a state can have that name."""
    return _STATE_NAME.fullmatch(name) is not None


def check_pin_name(name: str) -> str:
    """Return the name of a pin if it can be one.

    Raises:
        InvalidNameError: It can't; the message says what is allowed.
    """
    if _PIN_NAME.fullmatch(name) is None:
        raise InvalidNameError(
            f"{name!r} can't be the name of a pin: use 1 to 100 characters out of A-Z a-z 0-9 . _ , : + = @ ~ -, "
            "the first one a letter or digit"
        )
    return name


def check_logical_path(path: str) -> str:
    """Return the path of a file inside a state if it is relative, portable, and stays inside.

    Raises:
        InvalidNameError: It isn't.
    """
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(f"the file name {path!r} is not valid Unicode: rename the file") from None
    if length > _MAX_PATH_BYTES:
        raise InvalidNameError(f"the path {path[:80]!r}… has {length} bytes; at most {_MAX_PATH_BYTES} are allowed")
    segments = path.split("/")
    if len(segments) > _MAX_SEGMENTS:
        raise InvalidNameError(
            f"the path {path[:80]!r}… lies in {len(segments) - 1} folders; at most {_MAX_SEGMENTS - 1} are allowed"
        )
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidNameError(f"the path {path!r} is not a plain relative path: it has the segment {segment!r}")
        if _FORBIDDEN_IN_SEGMENT.search(segment):
            raise InvalidNameError(f"the path {path!r} has a backslash or a control character: rename the file")
        if len(segment.encode()) > _MAX_SEGMENT_BYTES:
            raise InvalidNameError(f"a name in the path {path[:80]!r}… has more than {_MAX_SEGMENT_BYTES} bytes")
    return path


def check_component_name(name: str) -> str:
    """Return the name of a component if it can be one: a logical path of one segment.

    Raises:
        InvalidNameError: It can't.
    """
    if "/" in name:
        raise InvalidNameError(f"the component name {name!r} has a '/': a component's name is one path segment")
    return check_logical_path(name)


def check_distinct_paths(files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Check that the paths of files are distinct, and that none of them is a folder as well.

    Args:
        files: Logical paths.
        folders: Those of folders, of which any may occur twice.

    Raises:
        FormatError: They can't lie beside each other.
    """
    # With the separator before all other characters, what lies in a folder follows it at once: neighbours tell all.
    entries = sorted(
        [(path.replace("/", "\0"), True) for path in files] + [(path.replace("/", "\0"), False) for path in folders]
    )
    for (path, is_file), (following, is_file_too) in pairwise(entries):
        if path == following and (is_file or is_file_too):
            raise FormatError(f"the path {_shown(path)} occurs twice")
        if is_file and following.startswith(f"{path}\0"):
            raise FormatError(f"{_shown(path)} is a file and the folder of {_shown(following)}")


def _shown(entry: str) -> str:
    return repr(entry.replace("\0", "/"))
