"""The errors of the web API: of its server at launch, and of its client."""

from __future__ import annotations

import errno
from typing import Any

from typing_extensions import override

from statevault.errors import StateVaultError

__all__ = ["AddressInUseError", "WebApiError", "WebApiUnreachableError"]


class AddressInUseError(StateVaultError, OSError):
    """The web API can't listen at its address; the message names the address and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EADDRINUSE


class WebApiError(StateVaultError):
    """A system refused a request, or could not be asked.

    Attributes:
        status: The HTTP status of the answer; 0 if there was none.
        code: What went wrong, for programs: ``queue_full``, ``unauthorized``, …
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self),), {"status": self.status, "code": self.code})


class WebApiUnreachableError(WebApiError, ConnectionError):
    """No system answers at the address."""
