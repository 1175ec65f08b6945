"""Names for new states, made from the time and never used twice."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime

from statevault.errors import InvalidNameError
from statevault.format.names import check_state_name

__all__ = ["DEFAULT_STATE_NAME_FORMAT", "StateNames"]

DEFAULT_STATE_NAME_FORMAT = "%Y-%m-%d_%H-%M-%S,%f.state"
_SUFFIX = ".state"


class StateNames:
    """Makes the names of the states that one process saves.

    A name that was given out is not given out again, also when its save failed: a put of the failed save may
    still land.

    Args:
        name_format: For :meth:`datetime.datetime.strftime`; local time.

    Raises:
        InvalidNameError: No valid name comes of the format.
    """

    def __init__(self, name_format: str = DEFAULT_STATE_NAME_FORMAT) -> None:
        self._format = name_format
        self._given: set[str] = set()
        self._lock = threading.Lock()
        check_state_name(datetime.now().astimezone().strftime(name_format))

    @property
    def are_fine(self) -> bool:
        """Whether the names tell microseconds: no two writers make the same one."""
        return "%f" in self._format

    def next(self, created_at: datetime, taken: set[str]) -> str:
        """Make a name that is not in `taken`: a coarse format or a clock that jumped back gets a suffix."""
        with suppress(OverflowError, OSError, ValueError):  # at the edge of the calendar
            created_at = created_at.astimezone()
        name = check_state_name(created_at.strftime(self._format))
        stem, dot, extension = name.rpartition(".") if name.endswith(_SUFFIX) else (name, "", "")
        with self._lock:
            candidate = name
            number = 1
            while candidate in taken or candidate in self._given:
                number += 1
                candidate = f"{stem}-{number}{dot}{extension}"
            self._given.add(candidate)
        return check_state_name(candidate)

    def reserve(self, name: str) -> str:
        """Note a name that the caller chose.

        Raises:
            InvalidNameError: It can't be a state's name.
        """
        if name == "latest":
            raise InvalidNameError("'latest' stands for the newest state and can't be the name of one")
        with self._lock:
            self._given.add(check_state_name(name))
        return name
