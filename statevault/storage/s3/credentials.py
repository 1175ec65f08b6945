"""Credentials that botocore finds in the environment, in files or in the network: looked at before they are used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import botocore.exceptions as boto
from botocore.credentials import CredentialResolver, Credentials, ReadOnlyCredentials
from typing_extensions import override

from statevault.storage.options import check_credential
from statevault.storage.redaction import Secrets
from statevault.storage.s3.errors import NO_CREDENTIALS

__all__ = ["FoundCredentials"]

# These ask a program or a server.
_ASKING = frozenset({"custom-process", "container-role", "iam-role"})


class FoundCredentials(Credentials):  # type: ignore[misc] # botocore has no types
    """Credentials that are found when a request is first signed with them.

    Those in the environment and in files are looked at when this is made.

    Args:
        find: Finds them; None if there are none.
        providers: Of botocore, in the order in which `find` asks them.
        url: The storage's root, without credentials.
        secrets: Of the storage. What is found is added to them.

    Raises:
        StorageOptionError: Those in the environment or in a file can't be used.
    """

    def __init__(
        self, find: Callable[[], Credentials | None], providers: Iterable[Any] = (), *, url: str, secrets: Secrets
    ) -> None:
        super().__init__("", "", method="found")
        self._find = find
        self._url = url
        self._secrets = secrets
        self._lock = threading.Lock()
        self._found: Credentials | None = None
        self._good: ReadOnlyCredentials | None = None
        at_hand = [provider for provider in providers if provider.METHOD not in _ASKING]
        # A role may need the network as well. The first request asks again.
        with suppress(*NO_CREDENTIALS, boto.ConnectionError, boto.HTTPClientError):
            found = CredentialResolver(at_hand).load_credentials()
            if type(found) is Credentials:  # other kinds are renewed before they are used
                self._checked(found)

    def load_credentials(self) -> Credentials:
        """What a session asks its chain of providers for."""
        return self

    @override
    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        with self._lock:
            if self._found is None:
                self._found = self._find()
            if self._found is None:
                raise boto.NoCredentialsError
        return self._checked(self._found)

    def _checked(self, found: Credentials) -> ReadOnlyCredentials:
        frozen = found.get_frozen_credentials()
        if frozen == self._good:
            return frozen
        self._secrets.add(frozen.access_key, frozen.secret_key, frozen.token)
        token = "AWS_SECURITY_TOKEN" if os.environ.get("AWS_SECURITY_TOKEN") else "AWS_SESSION_TOKEN"
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", token)
        for name, value in zip(names, (frozen.access_key, frozen.secret_key, frozen.token), strict=True):
            if value:
                told = name if found.method == "env" else f"{name.lower()} ({found.method})"
                check_credential(value, name=told, url=self._url)
        self._good = frozen
        return frozen
