"""What a server of S3's protocol refuses, found out by its refusals and remembered.

Backblaze B2 takes no conditional put, GCS and Alibaba OSS no bulk delete of S3's form, and a bucket with object lock no
put without a digest. Names and versions of servers tell too little, so nobody asks for them.
"""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from statevault.errors import StorageError
from statevault.storage.s3.errors import demands_digest, is_refused_request
from statevault.storage.s3.stream import Part

__all__ = ["Dialect"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_NONE: Mapping[str, str] = MappingProxyType({})


class Dialect:
    """What a server has refused so far; for all threads of a storage.

    Args:
        url: The storage's root, without credentials.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # Each goes one way only, so that threads need no lock: whoever looks too early finds out for itself.
        self._takes_conditions = True
        self._demands_digests = False
        self.takes_bulk_deletes = True

    def send(
        self, request: Callable[..., _Result], *, data: Part | None = None, condition: Mapping[str, str] = _NONE
    ) -> _Result:
        """Make a request in the way that the server takes.

        Args:
            request: Makes it, with the parameters that it is given beside its own, as often as it is called.
            data: Its body, if that is part of an object.
            condition: Parameters such as ``IfNoneMatch``, left out where the server takes none.

        Raises:
            StorageError: The request failed for another reason.
        """
        conditional = bool(condition) and self._takes_conditions
        digested = data is not None and self._demands_digests
        while True:
            parameters: dict[str, Any] = dict(condition) if conditional else {}
            if data is not None and digested:
                parameters["ContentMD5"] = _digest(data)
            try:
                result = request(**parameters)
            except StorageError as error:
                if data is not None and not digested and demands_digest(error):
                    logger.debug("%s demands a digest of each body: sending it.", self._url)
                    self._demands_digests = digested = True
                elif conditional and is_refused_request(error):
                    conditional = False
                else:
                    raise
            else:
                if condition and not conditional and self._takes_conditions:
                    # Only now: a request that was refused for something else is refused again.
                    logger.debug("%s takes no conditional puts: putting without.", self._url)
                    self._takes_conditions = False
                return result


def _digest(data: Part) -> str:
    """The value of Content-MD5, the only digest that all servers with object lock know."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in data:
        digest.update(piece)
    return b64encode(digest.digest()).decode()
