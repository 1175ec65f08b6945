"""What the options of s3fs, and the variables in their place, say to the client; and what no client can be made of."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import botocore
import botocore.config
import s3fs
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.auth import AUTH_TYPE_MAPS
from botocore.configprovider import DEFAULT_S3_CONFIG_VARS
from botocore.exceptions import InvalidRegionError
from botocore.session import Session
from botocore.utils import get_environ_proxies, validate_region_name
from fsspec.config import apply_config

from statevault.errors import StorageOptionError
from statevault.storage.options import (
    Rules,
    check_credential,
    check_endpoint,
    check_names,
    check_nested,
    check_values,
    check_whole_text,
    is_seconds,
    parameters,
)

__all__ = ["ONLY_ASYNC", "client_settings", "known_options"]

# What is sent over a new connection has this long as well, piece by piece: urllib3 lets the socket wait no longer until
# the first answer has come. So it is what a busy server may stand still for in the middle of an upload.
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0
ONLY_ASYNC = frozenset({"connector_args", "http_session_cls"})
"""Names in config_kwargs that only the client of aiobotocore knows."""

_CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "key": ("key", "username", "client_kwargs.aws_access_key_id"),
    "secret": ("secret", "password", "client_kwargs.aws_secret_access_key"),
    "token": ("token", "client_kwargs.aws_session_token"),
}
_NAMES: Mapping[str, set[str]] = {
    "client_kwargs": {*signature(Session.create_client).parameters} - {"self", "service_name", "config"},
    "config_kwargs": {*botocore.config.Config.OPTION_DEFAULTS, *ONLY_ASYNC},
    "config_kwargs.s3": {*DEFAULT_S3_CONFIG_VARS, "disable_s3_express_session_auth"},
    "config_kwargs.retries": {"max_attempts", "mode", "total_max_attempts"},
    "config_kwargs.proxies_config": {"proxy_ca_bundle", "proxy_client_cert", "proxy_use_forwarding_for_https"},
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_files(value: Any) -> bool:
    paths = value if isinstance(value, (list, tuple)) else (value,)
    return all(isinstance(path, str) and Path(path).is_file() for path in paths)


_SWITCH = (lambda value: isinstance(value, int) and value in {0, 1}, "true or false")
_SECONDS = (is_seconds, "a number of seconds above 0")
_COUNT = (_is_count, "a whole number of at least 1")
_FILES = (_are_files, "the path of a file that is there")
_RULES: Rules = {
    **dict.fromkeys(("anon", "use_ssl", "requester_pays", "client_kwargs.use_ssl"), _SWITCH),
    "max_concurrency": _COUNT,
    "session": (lambda value: isinstance(value, AioSession), "an AioSession of aiobotocore; or give profile=NAME"),
    "client_kwargs.verify": (lambda value: isinstance(value, (bool, str)), "true, false or the path of a file"),
    "config_kwargs.connect_timeout": _SECONDS,
    "config_kwargs.read_timeout": _SECONDS,
    "config_kwargs.max_pool_connections": _COUNT,
    "config_kwargs.client_cert": _FILES,
    "config_kwargs.proxies_config.proxy_ca_bundle": _FILES,
    "config_kwargs.proxies_config.proxy_client_cert": _FILES,
    "config_kwargs.signature_version": (
        lambda value: value is UNSIGNED or (isinstance(value, str) and value in AUTH_TYPE_MAPS),
        "e.g. s3v4",
    ),
    "config_kwargs.retries.max_attempts": (lambda value: value == 0 or _is_count(value), "a whole number"),
    "config_kwargs.retries.total_max_attempts": _COUNT,
    **dict.fromkeys(
        (
            "config_kwargs.tcp_keepalive",
            "config_kwargs.parameter_validation",
            "config_kwargs.inject_host_prefix",
            "config_kwargs.use_dualstack_endpoint",
            "config_kwargs.use_fips_endpoint",
            "config_kwargs.s3.payload_signing_enabled",
            "config_kwargs.s3.use_accelerate_endpoint",
            "config_kwargs.s3.use_dualstack_endpoint",
        ),
        _SWITCH,
    ),
}


def known_options() -> set[str]:
    """The names of options that s3fs has, and of those that it passes on to botocore's session."""
    return parameters(s3fs.S3FileSystem) - {"batch_size"} | {*signature(Session).parameters}


def client_settings(options: Mapping[str, Any], *, url: str) -> dict[str, Any]:
    """The options of the filesystem: the user's, and ours where they say nothing.

    Args:
        options: The user's.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: One can't be used.
    """
    check_names(options, known_options(), url=url)
    options = apply_config(s3fs.S3FileSystem, dict(options))
    check_names(options, known_options(), url=url)
    check_nested(options, ("s3_additional_kwargs", "config_kwargs.proxies", *_NAMES), url=url)
    client = dict(options.get("client_kwargs") or {})
    given = {name: value for name, value in (options.get("config_kwargs") or {}).items() if value is not None}
    for within, known in _NAMES.items():
        holder = given if within.startswith("config_kwargs.") else options
        check_names(holder.get(within.rpartition(".")[2]) or {}, known, url=url, within=within)
    check_values(options, _RULES, url=url)
    _check_texts(options, client, given, url=url)
    endpoint = _endpoint(options, client, url=url)
    _check_region(client, given, url=url)
    if not endpoint.startswith("http:"):
        _check_authorities(client.get("verify"), url=url)
    _check_proxies(given.get("proxies"), endpoint, url=url)
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
    if endpoint and "amazonaws.com" not in endpoint:
        given["s3"] = {"addressing_style": "path", **(given.get("s3") or {})}
    return {"use_listings_cache": False, **options, "config_kwargs": {**config, **given}}


def _check_texts(options: Mapping[str, Any], client: Mapping[str, Any], config: Mapping[str, Any], *, url: str) -> None:
    """Check what goes into headers as it is."""
    given = set()
    for part, names in _CREDENTIALS.items():
        for name in names:
            text = (client if "." in name else options).get(name.removeprefix("client_kwargs."))
            # No token is what most have.
            if text is not None and (text or part != "token"):
                check_credential(text, name=name, url=url)
                given.add(part)
    if given and not given >= {"key", "secret"} and not options.get("anon"):
        raise StorageOptionError(
            f"{', '.join(sorted(given))} of {url}: key and secret go together, and token with both; give them all, or "
            "none where the environment or a file has them",
            url=url,
        )
    for name in ("user_agent", "user_agent_extra", "user_agent_appid"):
        if config.get(name) is not None:
            check_whole_text(config[name], name=f"config_kwargs.{name}", url=url)


def _endpoint(options: Mapping[str, Any], client: Mapping[str, Any], *, url: str) -> str:
    """The endpoint that is given, or "" where a file may say it, or none is given."""
    said = {
        "endpoint_url": options.get("endpoint_url"),
        "client_kwargs.endpoint_url": client.get("endpoint_url"),
        **{name: os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")},
    }
    name, endpoint = next(((name, value) for name, value in said.items() if value), ("", ""))
    check_endpoint(endpoint, name=name, url=url)
    return str(endpoint)


def _check_region(client: Mapping[str, Any], config: Mapping[str, Any], *, url: str) -> None:
    said = {
        "client_kwargs.region_name": client.get("region_name"),
        "config_kwargs.region_name": config.get("region_name"),
        "AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION") or None,
    }
    name, region = next(((name, value) for name, value in said.items() if value is not None), ("", None))
    if region is not None:
        check_whole_text(region, name=name, url=url, blanks=False)
        try:
            validate_region_name(region)
        except InvalidRegionError:
            raise StorageOptionError(f"{name} of {url} can't be a region: write e.g. eu-central-1", url=url) from None


def _check_authorities(verify: bool | str | None, *, url: str) -> None:
    """Check the file with the certificate authorities that are trusted."""
    variables = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    said = {"client_kwargs.verify": verify, **{name: os.environ.get(name) or None for name in variables}}
    name, path = next(((name, value) for name, value in said.items() if value is not None), ("", True))
    if isinstance(path, str):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no file of certificates"
            raise StorageOptionError(
                f"{name} of {url} names no file of trusted certificates that can be read ({reason}): "
                "give the path of one in PEM format, or nothing for the usual ones",
                url=url,
            ) from None


def _check_proxies(given: Mapping[str, Any] | None, endpoint: str, *, url: str) -> None:
    target = endpoint or "https://s3.amazonaws.com"
    if given is None:
        scheme = target.partition(":")[0]
        said = {f"{scheme.upper()}_PROXY": get_environ_proxies(target).get(scheme)}
    else:
        said = {f"config_kwargs.proxies.{scheme}": proxy for scheme, proxy in given.items()}
    for name, proxy in said.items():
        if proxy:
            check_whole_text(proxy, name=name, url=url, blanks=False)
            check_endpoint(proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}", name=name, url=url)
