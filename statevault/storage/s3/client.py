"""The client that speaks to S3: botocore's own, told what s3fs would be told.

s3fs asks through an event loop, on whose one thread all bytes of all requests are hashed, sent and received. Here each
request has the thread of its caller: hashing, sending and receiving let go of the interpreter's lock, so that several
requests fill the wire, and the other threads of the program go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from inspect import signature
from typing import Any, cast

import botocore
import botocore.config
import botocore.handlers
import botocore.session
import s3fs
from botocore.utils import parse_timestamp
from fsspec.asyn import sync

from statevault.storage.event_loop import event_loop
from statevault.storage.options import check_endpoint, check_nested

__all__ = ["S3Client", "client_settings", "instant", "known_options"]

# What is sent over a new connection has this long as well, piece by piece: urllib3 lets the socket wait no longer until
# the first answer has come. So it is what a busy server may stand still for in the middle of an upload.
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
_CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
# What only the client of aiobotocore knows.
_ONLY_ASYNC = frozenset({"connector_args", "http_session_cls"})


class S3Client:
    """A client for all threads of one process.

    Args:
        settings: What ``s3fs.S3FileSystem`` takes.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # It makes no connection: it only says what its options mean, with fsspec's configuration.
        options = s3fs.S3FileSystem(**settings, asynchronous=True, skip_instance_cache=True)
        self._client = _connect(options)
        self._extra = {**options.s3_additional_kwargs, **options.req_kw}

    @property
    def silence_s(self) -> float:
        """How long the server may send nothing."""
        return float(self._client.meta.config.read_timeout)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Make a request, such as ``get_object``.

        Raises:
            Exception: Whatever botocore raises.
        """
        request = cast("Callable[..., dict[str, Any]]", getattr(self._client, method))
        return request(**{**self._extra_of(method), **parameters})

    def _extra_of(self, method: str) -> dict[str, Any]:
        """What the user wants to be said in each request that knows it."""
        if not self._extra:
            return {}
        meta = self._client.meta
        shape = meta.service_model.operation_model(meta.method_to_api_mapping[method]).input_shape
        return {name: value for name, value in self._extra.items() if name in shape.members and value is not None}


def known_options() -> set[str]:
    """The names of options that s3fs has, and that botocore's client has in its place."""
    return {*signature(s3fs.S3FileSystem.__init__).parameters, "region_name", "profile"}


def client_settings(options: Mapping[str, Any], *, url: str) -> dict[str, Any]:
    """The options of the filesystem: the user's, and ours where they say nothing.

    Args:
        options: The user's.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: One can't be used.
    """
    check_nested(options, ("client_kwargs", "config_kwargs", "s3_additional_kwargs"), url=url)
    config: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "read_timeout": _READ_TIMEOUT_S,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": 32,
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        # botocore would put together a longer one for each request, and spend a tenth of its time on it.
        "user_agent": f"statevault botocore/{botocore.__version__}",
    }
    said = {
        "endpoint_url": options.get("endpoint_url"),
        "client_kwargs.endpoint_url": (options.get("client_kwargs") or {}).get("endpoint_url"),
        **{name: os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")},
    }
    name, endpoint = next(((name, value) for name, value in said.items() if value), ("", None))
    check_endpoint(endpoint, name=name, url=url)
    given = dict(options.get("config_kwargs") or {})
    if endpoint and "amazonaws.com" not in endpoint:
        given["s3"] = {"addressing_style": "path", **(given.get("s3") or {})}
    config.update(given)
    return {"use_listings_cache": False, **options, "config_kwargs": config}


def _connect(options: Any) -> Any:
    """A client of botocore with the options of a filesystem, put together as that does for its own client."""
    config = {name: value for name, value in options.config_kwargs.items() if name not in _ONLY_ASYNC}
    arguments = dict(zip(_CREDENTIALS, (options.key, options.secret, options.token), strict=True))
    arguments |= {"endpoint_url": options.endpoint_url, "use_ssl": options.use_ssl}
    arguments |= options.client_kwargs
    if options.anon:
        config["signature_version"] = botocore.UNSIGNED
        for name in _CREDENTIALS:
            arguments[name] = None
    session = _session(options)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=instant)
    client = session.create_client(
        "s3",
        config=botocore.config.Config(**config),
        **{name: value for name, value in arguments.items() if value is not None},
    )
    _sign_no_bodies_over_tls(client.meta)
    # It would wait before each body for the server's consent, for a second where a server gives none.
    client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    client.meta.events.register_first("needs-retry.s3.HeadBucket", _take_redirect_as_answer)
    return client


def _sign_no_bodies_over_tls(meta: Any) -> None:
    """Let TLS see to it that what arrives is what was sent.

    botocore would hash each body once more to sign it, as it does not where S3's checksums are sent. Where the server
    is, and what the user wants, is known only once the client is there: it asks files and the environment as well.
    """
    s3 = meta.config.s3 or {}
    if meta.endpoint_url.startswith("https:") and s3.get("payload_signing_enabled") is None:
        meta.config.s3 = {**s3, "payload_signing_enabled": False}


def instant(said: Any) -> datetime:
    """Read a time as S3 writes it in listings and headers.

    What botocore has for times of any form takes longer than all else that it does with a line of a listing.
    """
    for read in (datetime.fromisoformat, parsedate_to_datetime) if isinstance(said, str) else ():
        with suppress(TypeError, ValueError):
            time = read(said)
            if time.tzinfo is not None:
                return time
    found: datetime = parse_timestamp(said)
    return found


def _take_redirect_as_answer(request_dict: dict[str, Any], **_: Any) -> None:
    """Keep botocore from asking where a bucket lies in order to find out where the bucket lies.

    A server that redirects everything and names no region would be asked until the stack is full.
    """
    request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _session(options: Any) -> Any:
    given = options.session
    if given is None:
        return botocore.session.Session(**options.kwargs)
    session = botocore.session.Session(profile=given.profile)
    for name in ("region", "ca_bundle"):
        session.set_config_variable(name, given.get_config_variable(name))

    async def frozen() -> Any:
        credentials = await given.get_credentials()
        return None if credentials is None else await credentials.get_frozen_credentials()

    # Read again when they are refused, as then all of this is made anew.
    if (credentials := sync(event_loop(), frozen)) is not None:
        session.set_credentials(credentials.access_key, credentials.secret_key, credentials.token)
    return session
