"""From what a user writes, a path or a URL, to a storage."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from upath import UPath

from statevault.errors import InvalidNameError, MissingExtraError
from statevault.storage.descriptors import DESCRIPTORS
from statevault.storage.fsspec_storage import FsspecStorage
from statevault.storage.interface import Storage
from statevault.storage.local.storage import LocalStorage
from statevault.storage.options import check_are_named, check_names, parameters
from statevault.storage.redaction import redacted
from statevault.storage.retry import RetryingStorage, RetryPolicy

__all__ = ["join_url", "local_folder", "normalized_url", "open_storage", "parent_and_name"]

_EXTRAS = {"gs": "gcs"}
_SAME_PROTOCOL = {"s3a": "s3", "gcs": "gs"}
_AMBIGUOUS = re.compile(r"//|(?:^|/)\.\.?(?:/|$)|[\\\x00-\x1f\x7f\ud800-\udfff]")
_PROTOCOLS = frozenset(fsspec.available_protocols())
_DEFAULT_RETRY = RetryPolicy()


def open_storage(
    url: str | os.PathLike[str] | UPath,
    storage_options: Mapping[str, Any] | None = None,
    *,
    retry: RetryPolicy | None = _DEFAULT_RETRY,
) -> Storage:
    """Open the storage at a path or URL. Nothing in it is read or written yet, and no server is asked.

    Args:
        url: A path (``~`` is the home folder), ``file://…``, ``memory://…``, ``s3://bucket/prefix``,
            ``gs://bucket/prefix``, or a URL of another protocol that fsspec knows.
        storage_options: What the protocol's fsspec filesystem takes. Where they are silent, the usual
            environment variables hold: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``,
            ``AWS_PROFILE``, …; ``GOOGLE_APPLICATION_CREDENTIALS``, ``STORAGE_EMULATOR_HOST``.
        retry: How transient errors of remote storages are tried again; None: not at all.

    Returns:
        The storage; a :class:`RetryingStorage` around it where it is remote and `retry` is given.

    Raises:
        InvalidNameError: The URL's protocol is not known, it names no bucket, or it is only nearly a URL.
        MissingExtraError: The protocol needs a package that is not installed.
        StorageOptionError: An option can't be used.
        StoreNotFoundError: The local path is that of a file.
    """
    DESCRIPTORS.begin()
    text = normalized_url(url)
    protocol = _protocol(text)
    check_are_named(storage_options, url=redacted(text))
    own = dict(url.storage_options) if isinstance(url, UPath) else {}
    options = {**own, **(storage_options or {})}
    if protocol in {"", "file", "local"}:
        # None of them is needed. One that fsspec does not know is meant for another place.
        given = {name: value for name, value in options.items() if value is not None}
        check_names(given, parameters(LocalFileSystem), url=text)
        return LocalStorage(_local_path(text))
    storage: Storage
    try:
        if protocol == "s3":
            # Not at the top: s3fs brings botocore, which takes most of a second to import.
            from statevault.storage.s3.storage import S3Storage  # noqa: PLC0415

            storage = S3Storage(text, options)
        elif protocol == "gs":
            from statevault.storage.gcs.storage import GcsStorage  # noqa: PLC0415

            storage = GcsStorage(text, options)
        elif protocol == "memory":
            return FsspecStorage(text, options)
        elif protocol in fsspec.available_protocols():
            storage = FsspecStorage(text, options)
        else:
            raise InvalidNameError(
                f"The protocol {protocol!r} of {redacted(text)} is not known. Known are plain paths, file, memory, "
                f"s3, gs, and those of fsspec: {', '.join(sorted(fsspec.available_protocols()))}."
            )
    except ImportError as error:
        raise _missing(protocol, error) from error
    return storage if retry is None else RetryingStorage(storage, retry)


def normalized_url(url: str | os.PathLike[str] | UPath) -> str:
    """One spelling for each place: paths absolute, no ``file://`` before them, no slash at the end.

    Of remote URLs those are refused that a server may take for another spelling of the same place.

    Raises:
        InvalidNameError: `url` is empty or has a NUL, is only nearly a URL (``s3:/bucket``), names the home of an
            unknown user, or is remote and has an empty, ``.`` or ``..`` segment, a backslash or a control character.
    """
    # A remote UPath has no __fspath__.
    text = str(url) if isinstance(url, UPath) else os.fspath(url)
    if not text or "\0" in text:
        what = f"{redacted(text)!r}, which has a NUL" if text else "an empty string"
        raise InvalidNameError(f"A store needs a path or a URL, not {what}.")
    protocol = _protocol(text)
    if protocol == "":
        _refuse_near_url(text)
    if protocol in {"", "file", "local"}:
        try:
            path = Path(_local_path(text)).expanduser()
        except RuntimeError:
            home = text.partition("/")[0]
            raise InvalidNameError(
                f"{text}: {home} is the home folder of nobody here; a folder of that name is ./{text}"
            ) from None
        absolute = os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
        return f"/{absolute.lstrip('/')}"  # POSIX lets "//a" stand
    place = text.partition("://")[2].rstrip("/")
    if protocol == "memory":
        place = place.lstrip("/")  # where memory:///a is memory://a
    if protocol in _PROTOCOLS and _AMBIGUOUS.search(place):
        # A store would be found, and overwritten, through another URL, whose listings show nothing of it.
        raise InvalidNameError(
            f"{redacted(text)!r} can't be the URL of a store, as some servers take it for that of another place: write "
            "single forward slashes, and no '.' or '..' segment, backslash or control character"
        )
    return f"{_SAME_PROTOCOL.get(protocol, protocol)}://{place}"


def local_folder(path: str | os.PathLike[str], use: str) -> Path:
    """The absolute path of what has to be a folder of a local disk.

    Args:
        path: A path as users give it.
        use: What the folder is for, with an article: ``"a spool"``.

    Raises:
        InvalidNameError: It is the URL of something else, or only nearly one.
    """
    text = normalized_url(path)
    if "://" in text:
        raise InvalidNameError(f"{use} is a folder of a local disk, which {redacted(text)} is not")
    return Path(text)


def join_url(root: str | os.PathLike[str] | UPath, key: str) -> str:
    """The URL or path of a key below a root."""
    return f"{normalized_url(root).rstrip('/')}/{key}"


def parent_and_name(url: str | os.PathLike[str] | UPath) -> tuple[str, str]:
    """Split the URL or path of a state into the store's root and the state's name.

    ``"s3://bucket/agents/a.state/"`` gives ``("s3://bucket/agents", "a.state")``.

    Raises:
        InvalidNameError: It has no part above its name.
    """
    text = normalized_url(url)
    root, _, name = text.rpartition("/")
    if not name or root.endswith(("/", ":")):
        raise InvalidNameError(f"{redacted(text)} is not a path below a store.")
    return root or "/", name


def _protocol(text: str) -> str:
    head, separator, _ = text.partition("://")
    return head.lower() if separator and "/" not in head else ""


def _refuse_near_url(text: str) -> None:
    """Refuse ``s3:/bucket`` and ``s3:bucket``, which is also what becomes of a URL as a :class:`~pathlib.Path`."""
    head, separator, rest = text.partition(":")
    if separator and "/" not in head and head.lower() in _PROTOCOLS:
        slash = "/" if rest.startswith("/") else ""
        raise InvalidNameError(
            f"{head}:{slash}… is neither a URL nor a plain path: a URL is a str with two slashes, {head}://…, and a "
            f"local path is ./{head}:{slash}…"
        )


def _local_path(text: str) -> str:
    """The path in a ``file://`` URL; a plain path as it is."""
    if not _protocol(text):
        return text
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"}:
        raise InvalidNameError(
            f"{redacted(text)} names the host {parts.netloc.rpartition('@')[2]!r}; file URLs have three slashes: "
            "file:///path."
        )
    # As in fsspec, the rest is the path as it is: nothing in it is quoted, and "?" and "#" belong to it.
    return text.partition("://")[2].removeprefix(parts.netloc)


def _missing(protocol: str, error: ImportError) -> MissingExtraError:
    extra = _EXTRAS.get(protocol)
    remedy = f'pip install "statevault[{extra}]"' if extra else f"pip install the package for {protocol}"
    return MissingExtraError(f"{protocol}:// needs a package that is not installed ({error}). Remedy: {remedy}")
