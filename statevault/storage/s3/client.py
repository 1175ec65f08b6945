"""The client that speaks to S3: botocore's own, told what s3fs would be told.

s3fs asks through an event loop, on whose one thread all bytes of all requests are hashed, sent and received. Here each
request has the thread of its caller: hashing, sending and receiving let go of the interpreter's lock, so that several
requests fill the wire, and the other threads of the program go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, cast

import botocore
import botocore.config
import botocore.handlers
import botocore.session
import s3fs
from botocore.credentials import Credentials
from botocore.httpchecksum import _SUPPORTED_CHECKSUM_ALGORITHMS  # no public name
from botocore.loaders import create_loader
from botocore.utils import parse_timestamp
from botocore.validate import ParamValidator
from fsspec.asyn import sync

from statevault.errors import StorageOptionError
from statevault.storage.event_loop import event_loop
from statevault.storage.options import check_names, check_whole_text
from statevault.storage.redaction import Secrets
from statevault.storage.s3.credentials import FoundCredentials
from statevault.storage.s3.deadlines import limit_requests
from statevault.storage.s3.options import ONLY_ASYNC

__all__ = ["S3Client", "instant"]

_CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
# What a storage asks for.
_OPERATIONS = (
    "PutObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListMultipartUploads",
    "GetObject",
    "HeadObject",
    "HeadBucket",
    "ListObjectsV2",
    "DeleteObject",
    "DeleteObjects",
)


class S3Client:
    """A client for all threads of one process.

    Args:
        settings: What ``s3fs.S3FileSystem`` takes.
        url: The storage's root, without credentials.
        secrets: Of the storage. Credentials that are found are added to them.

    Raises:
        StorageOptionError: An option, or a credential, can't be used.
        Exception: Whatever botocore says of its arguments.
    """

    def __init__(self, settings: Mapping[str, Any], *, url: str, secrets: Secrets) -> None:
        # It makes no connection: it only says what its options mean, with fsspec's configuration.
        options = s3fs.S3FileSystem(**{**settings, "asynchronous": True, "skip_instance_cache": True})
        self._client = _connect(options, url=url, secrets=secrets)
        self._extra = {**options.s3_additional_kwargs, **options.req_kw}
        if self._extra:
            _check_parameters(self._extra, self._client.meta.service_model, url=url)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Make a request, such as ``get_object``.

        Raises:
            Exception: Whatever botocore raises.
        """
        request = cast("Callable[..., dict[str, Any]]", getattr(self._client, method))
        return request(**{**self._extra_of(method), **parameters})

    def checksum_in(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The checksum of a part in the answer to its upload, if the user wants some: the completion has to list it."""
        name = f"Checksum{str(self._extra.get('ChecksumAlgorithm')).upper()}"
        return {name: answer[name]} if name in answer else {}

    def _extra_of(self, method: str) -> dict[str, Any]:
        """What the user wants to be said in each request that knows it."""
        if not self._extra:
            return {}
        meta = self._client.meta
        shape = meta.service_model.operation_model(meta.method_to_api_mapping[method]).input_shape
        return {name: value for name, value in self._extra.items() if name in shape.members and value is not None}


def _check_parameters(extra: Mapping[str, Any], model: Any, *, url: str) -> None:
    """Refuse what no request of a storage could say."""
    shapes: dict[str, Any] = {}
    for operation in _OPERATIONS:
        shapes |= model.operation_model(operation).input_shape.members
    check_names(extra, shapes, url=url, within="s3_additional_kwargs")
    for name, value in extra.items():
        told = f"s3_additional_kwargs.{name}"
        # Bytes are a key of the customer's own, which botocore encodes before it looks at it.
        is_given = value is not None and not isinstance(value, bytes)
        if is_given and ParamValidator().validate(value, shapes[name]).has_errors():
            raise StorageOptionError(f"{told} of {url} can't be used: expected a {shapes[name].type_name}", url=url)
        if name == "ChecksumAlgorithm" and value is not None and value.lower() not in _SUPPORTED_CHECKSUM_ALGORITHMS:
            known = ", ".join(sorted(_SUPPORTED_CHECKSUM_ALGORITHMS)).upper()
            raise StorageOptionError(
                f"{told} of {url} can't be used: known are {known}; botocore[crt] has others", url=url
            )
        for text in value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(text, str):
                check_whole_text(text, name=told, url=url)


def _connect(options: Any, *, url: str, secrets: Secrets) -> Any:
    """A client of botocore with the options of a filesystem, put together as that does for its own client."""
    config = {name: value for name, value in options.config_kwargs.items() if name not in ONLY_ASYNC}
    arguments = dict(zip(_CREDENTIALS, (options.key, options.secret, options.token), strict=True))
    arguments |= {"endpoint_url": options.endpoint_url, "use_ssl": options.use_ssl}
    arguments |= options.client_kwargs
    if options.anon:
        config["signature_version"] = botocore.UNSIGNED
        for name in _CREDENTIALS:
            arguments[name] = None
    session = _session(options)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    if not options.anon and not any(arguments[name] for name in _CREDENTIALS):
        if region := arguments.get("region_name") or config.get("region_name"):
            # Those who lend a role are asked there, too.
            session.set_config_variable("region", region)
        find, providers = _ways_to_credentials(session, options.session)
        found = FoundCredentials(find, providers, url=url, secrets=secrets)
        session.register_component("credential_provider", found)
    if os.environ.get("REQUESTS_CA_BUNDLE") == "" and arguments.get("verify") is None:
        arguments["verify"] = session.get_config_variable("ca_bundle") or True
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=instant)
    client = session.create_client(
        "s3",
        config=botocore.config.Config(**config),
        **{name: value for name, value in arguments.items() if value is not None},
    )
    limit_requests(client)
    _sign_no_bodies_over_tls(client.meta)
    # It would wait before each body for the server's consent, for a second where a server gives none.
    client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    # The names of buckets are checked already, and it would refuse those of Ceph's tenants.
    client.meta.events.unregister("before-parameter-build.s3", botocore.handlers.validate_bucket_name)
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


@cache
def _loader(data_path: str | None) -> Any:
    """What reads botocore's description of S3, once a process: that is most of the work of making a client."""
    return create_loader(data_path)


def _session(options: Any) -> Any:
    given = options.session
    variables = _without_empty_variables()
    if given is None:
        return botocore.session.Session(**{"session_vars": variables, **options.kwargs})
    session = botocore.session.Session(variables, profile=given.profile or None)
    for name in ("region", "ca_bundle"):
        session.set_config_variable(name, given.get_config_variable(name) or None)
    return session


def _without_empty_variables() -> dict[str, Any]:
    """The settings of botocore that an empty variable has, without it: ``AWS_PROFILE=`` is no profile of that name."""
    found = {}
    for name, (in_file, variables, default, convert) in botocore.session.Session.SESSION_VARIABLES.items():
        asked = [variables] if isinstance(variables, str) else variables or []
        filled = [variable for variable in asked if os.environ.get(variable) != ""]
        if filled != asked:
            found[name] = (in_file, filled or None, default, convert)
    return found


def _ways_to_credentials(session: Any, given: Any) -> tuple[Callable[[], Credentials | None], Sequence[Any]]:
    """How credentials are found, by a session of the user's own if one is given; and botocore's places to look at."""
    if given is None:
        resolver = session.get_component("credential_provider")
        return resolver.load_credentials, resolver.providers

    async def frozen() -> Any:
        credentials = await given.get_credentials()
        return None if credentials is None else await credentials.get_frozen_credentials()

    def find() -> Credentials | None:
        # Read again when they are refused, as then all of this is made anew.
        credentials = sync(event_loop(), frozen)
        return None if credentials is None else Credentials(*credentials[:3], method="session")

    return find, ()
