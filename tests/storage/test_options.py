"""Options that can't be used: an error that names them, at once, from whatever comes first to a storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from typing_extensions import override

from benchmarks.idlers import Nowhere
from statevault import LaunchConfig, launch
from statevault.errors import StorageError, StorageOptionError, StorageUnreachableError
from statevault.interaction import Agent, Interaction
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from statevault.storage.redaction import chain
from tests.servers import ScriptedAnswer, ScriptedRequest, scripted_server

NOWHERE = "http://127.0.0.1:1"
S3: Mapping[str, Any] = {"endpoint_url": NOWHERE, "key": "somebody", "secret": "something"}
GCS: Mapping[str, Any] = {"endpoint_url": NOWHERE}


def config(**options: Any) -> dict[str, Any]:
    return {"config_kwargs": options}


def client(**options: Any) -> dict[str, Any]:
    return {"client_kwargs": options}


# What is given, and what the message has to name.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "http://x"}, "no storage option 'endpoint'; did you mean 'endpoint_url'"),
    (client(regionname="x"), "'client_kwargs.regionname'; did you mean 'client_kwargs.region_name'"),
    (client(service_name="ec2"), "'client_kwargs.service_name'"),
    (client(api_version="1999"), "1999"),
    (client(region_name="eu 1"), "client_kwargs.region_name .* has a blank in it"),
    (client(region_name="eu-1\n"), "client_kwargs.region_name .* has a newline at its end"),
    (client(region_name=5), "client_kwargs.region_name .* must be text, not int"),
    (client(use_ssl="no"), "client_kwargs.use_ssl .* true or false"),
    (client(verify=5), "client_kwargs.verify"),
    ({"endpoint_url": "https://127.0.0.1:1", **client(verify="/nosuch")}, "client_kwargs.verify .*No such file"),
    ({"endpoint_url": f"{NOWHERE}\n"}, "endpoint_url .* has a newline at its end"),
    ({"endpoint_url": f"{NOWHERE} "}, "endpoint_url .* has a blank at its end"),
    ({"endpoint_url": "http://ho st"}, "endpoint_url .* has a blank in it"),
    ({"endpoint_url": "http://host:port"}, "endpoint_url .* can't be an endpoint"),
    ({"endpoint_url": "http://host:99999"}, "endpoint_url .* can't be an endpoint"),
    ({"endpoint_url": "http://[::1"}, "endpoint_url .* can't be an endpoint"),
    ({"endpoint_url": "http://"}, "endpoint_url .* can't be an endpoint"),
    ({"endpoint_url": "http://host?a=b"}, "endpoint_url .* can't be an endpoint"),
    (client(endpoint_url="host:9000") | {"endpoint_url": None}, "client_kwargs.endpoint_url .* write http://host:9000"),
    (config(foo=1), "'config_kwargs.foo'"),
    (config(s3={"adressing_style": "path"}), "did you mean 'config_kwargs.s3.addressing_style'"),
    (config(s3={"addressing_style": "paths"}), "addressing style"),
    (config(s3="path"), r"config_kwargs.s3 .* dict"),
    (config(retries=3), r"config_kwargs.retries .* dict"),
    (config(retries={"maxattempts": 1}), "did you mean 'config_kwargs.retries.max_attempts'"),
    (config(retries={"max_attempts": "x"}), "config_kwargs.retries.max_attempts"),
    (config(retries={"mode": "never"}), "mode"),
    (config(proxies="http://proxy"), r"config_kwargs.proxies .* dict"),
    (config(proxies={"http": "no proxy"}), "config_kwargs.proxies.http .* has a blank in it"),
    (config(proxies={"http": "http://host:port"}), "config_kwargs.proxies.http"),
    (config(proxies={"http": 5}), "config_kwargs.proxies.http"),
    (config(proxies={"http": "socks5://host"}), "config_kwargs.proxies.http"),
    (config(proxies_config={"ca": "x"}), "'config_kwargs.proxies_config.ca'"),
    (config(proxies_config={"proxy_ca_bundle": "/nosuch"}), "config_kwargs.proxies_config.proxy_ca_bundle"),
    (config(client_cert="/nosuch"), "config_kwargs.client_cert"),
    (config(connect_timeout="abc"), "config_kwargs.connect_timeout .* seconds"),
    (config(connect_timeout=0), "config_kwargs.connect_timeout .* seconds"),
    (config(read_timeout=-1), "config_kwargs.read_timeout .* seconds"),
    (config(read_timeout=math.nan), "config_kwargs.read_timeout .* seconds"),
    (config(read_timeout=math.inf), "config_kwargs.read_timeout .* seconds"),
    (config(read_timeout=True), "config_kwargs.read_timeout .* seconds"),
    (config(max_pool_connections=0), "config_kwargs.max_pool_connections .* at least 1"),
    (config(max_pool_connections="9"), "config_kwargs.max_pool_connections .* at least 1"),
    (config(tcp_keepalive="x"), "config_kwargs.tcp_keepalive .* true or false"),
    (config(signature_version="s3v9"), "config_kwargs.signature_version"),
    (config(signature_version=[]), "config_kwargs.signature_version"),
    (config(user_agent="a\nb"), "config_kwargs.user_agent .* newline"),
    (config(request_checksum_calculation="x"), "request_checksum_calculation"),
    (config(defaults_mode="x"), "defaults mode"),
    (
        {"s3_additional_kwargs": {"ServerSideEncryptoin": "x"}},
        "did you mean 's3_additional_kwargs.ServerSideEncryption'",
    ),
    ({"s3_additional_kwargs": {"ServerSideEncryption": 5}}, "s3_additional_kwargs.ServerSideEncryption .* string"),
    ({"s3_additional_kwargs": {"ChecksumAlgorithm": "CRC"}}, "ChecksumAlgorithm .* known are CRC32"),
    ({"s3_additional_kwargs": {"ChecksumAlgorithm": ""}}, "ChecksumAlgorithm .* known are CRC32"),
    ({"s3_additional_kwargs": {"Metadata": {"a": "b\n"}}}, "s3_additional_kwargs.Metadata .* newline"),
    ({"session": "abc"}, "session .* profile=NAME"),
    ({"session": botocore.session.Session()}, "session .* AioSession"),
    ({"profile": "nosuch"}, "nosuch.*AWS_PROFILE"),
    ({"anon": "yes"}, "anon .* true or false"),
    ({"username": "other"}, "key or username"),
    ({"key": 5}, "key .* must be text"),
    ({"key": ""}, "key .* is empty"),
    ({"secret": b"bytes"}, "secret .* must be text"),
    ({"secret": None}, "key .*: key and secret go together"),
    ({"key": None, "secret": None, "token": "x"}, "token .*: key and secret go together"),
    ({"token": "x\n"}, "token .* has a newline at its end"),
    ({"token": "x\ty"}, "token .* has a tab in it"),
    ({"token": "x\x00y"}, "token .* has a control character in it"),
    ({"key": " x"}, "key .* has a blank at its beginning"),
    ({"key": "\u20ac"}, "key .* not ASCII"),
    (client(aws_session_token="x\r"), "client_kwargs.aws_session_token .* has a newline at its end"),
]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own."""
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize(("options", "names"), WRONG, ids=[names for _, names in WRONG])
def test_a_wrong_option_of_s3_is_told_when_the_store_is_opened(options: dict[str, Any], names: str) -> None:
    with pytest.raises(StorageOptionError, match=names) as caught:
        StateStore("s3://bucket/x", storage_options={**S3, **options})
    message = str(caught.value)
    assert "s3://bucket/x" in message
    assert "\n" not in message
    assert len(message) < 400
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("variables", "options", "names"),
    [
        ({"AWS_ENDPOINT_URL": "http://host "}, {"endpoint_url": None}, "AWS_ENDPOINT_URL .* blank at its end"),
        ({"AWS_ENDPOINT_URL_S3": " "}, {"endpoint_url": None}, "AWS_ENDPOINT_URL_S3"),
        ({"AWS_CA_BUNDLE": "/nosuch"}, {"endpoint_url": "https://127.0.0.1:1"}, "AWS_CA_BUNDLE .*No such file"),
        ({"AWS_CA_BUNDLE": __file__}, {"endpoint_url": "https://127.0.0.1:1"}, "AWS_CA_BUNDLE .* PEM"),
        ({"REQUESTS_CA_BUNDLE": "/nosuch"}, {"endpoint_url": "https://127.0.0.1:1"}, "REQUESTS_CA_BUNDLE"),
        ({"AWS_PROFILE": "nosuch"}, {}, "nosuch.*AWS_PROFILE"),
        ({"AWS_DEFAULT_REGION": "eu 1"}, {}, "AWS_DEFAULT_REGION .* has a blank in it"),
        ({"AWS_DEFAULT_REGION": "eu;1"}, {}, "AWS_DEFAULT_REGION .* e.g. eu-central-1"),
        ({"AWS_DEFAULTS_MODE": "x"}, {}, "defaults mode.*variables of AWS"),
        ({"HTTP_PROXY": "http://host:port"}, {}, "HTTP_PROXY"),
        ({"AWS_ACCESS_KEY_ID": "x"}, {"key": None, "secret": None}, "AWS_SECRET_ACCESS_KEY"),
        (
            {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_SESSION_TOKEN": "z\n"},
            {"key": None, "secret": None},
            "AWS_SESSION_TOKEN .* has a newline at its end",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y\n"},
            {"key": None, "secret": None},
            "AWS_SECRET_ACCESS_KEY .* has a newline at its end",
        ),
    ],
    ids=str,
)
def test_so_is_a_wrong_variable(
    variables: dict[str, str], options: dict[str, Any], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageOptionError, match=names):
        StateStore("s3://bucket/x", storage_options={**S3, **options})


@pytest.mark.parametrize(
    ("file", "lines", "names"),
    [
        ("AWS_CONFIG_FILE", "[default\nregion=x", "config file.*AWS_CONFIG_FILE"),
        ("AWS_SHARED_CREDENTIALS_FILE", "[default\nregion=x", "config file"),
        ("AWS_CONFIG_FILE", "[default]\nregion = eu 1", "region_name"),
        ("AWS_CONFIG_FILE", "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = nosuch", "nosuch"),
        ("AWS_CONFIG_FILE", "[default]\nendpoint_url = http://a b", "endpoint"),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            "[default]\naws_access_key_id = x\u20ac\naws_secret_access_key = y",
            r"aws_access_key_id \(shared-credentials-file\) .* not ASCII",
        ),
    ],
)
def test_so_is_a_wrong_file(file: str, lines: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text(lines, encoding="utf-8")
    monkeypatch.setenv(file, str(tmp_path / "file"))
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(StorageOptionError, match=names):
        StateStore("s3://bucket/x")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"tokn": "x"}, "'tokn'; did you mean 'token'"),
        ({"session_kwargs": {"trustenv": True}}, "did you mean 'session_kwargs.trust_env'"),
        ({"session_kwargs": 5}, "session_kwargs .* dict"),
        ({"session_kwargs": {"connector": 5}}, "gs://bucket/x"),
        ({"session_kwargs": {"headers": {"a": "b\n"}}}, "session_kwargs.headers.a .* has a newline at its end"),
        ({"timeout": "30s"}, "timeout .* seconds"),
        ({"timeout": 0}, "timeout .* seconds"),
        ({"timeout": math.nan}, "timeout .* seconds"),
        ({"access": "full"}, "access"),
        ({"token": 5}, "token"),
        ({"token": {"a": 1}}, "token"),
        ({"token": "ya29.x\n"}, "token .* has a newline at its end"),
        ({"token": "/nosuch/key.json"}, "token .* names /nosuch/key.json, which is not there"),
        ({"endpoint_url": "http://host:port"}, "endpoint_url .* can't be an endpoint"),
        ({"endpoint_url": f"{NOWHERE}\n"}, "endpoint_url .* has a newline at its end"),
    ],
    ids=str,
)
def test_a_wrong_option_of_gcs_is_told_when_the_store_is_opened(options: dict[str, Any], names: str) -> None:
    with pytest.raises(StorageOptionError, match=names) as caught:
        StateStore("gs://bucket/x", storage_options={**GCS, **options})
    assert "gs://bucket/x" in str(caught.value)


@pytest.mark.parametrize("content", [None, "no json", '{"type": "service_account"}'])
def test_a_key_file_that_is_none_is_no_reason_to_go_on_without(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gcsfs does by itself."""
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StorageOptionError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        StateStore("gs://bucket/x", storage_options=GCS)


@pytest.mark.parametrize(
    "options",
    [
        {"session_kwargs": {"trust_env": True, "headers": {"a": "b"}}, "consistency": "md5", "project": "p"},
        {"token": "anon", "requester_pays": True, "timeout": 5, "block_size": 1 << 20, "cache_timeout": 0},
        {"use_listings_cache": False, "skip_instance_cache": True, "version_aware": False, "batch_size": 4},
    ],
    ids=str,
)
def test_what_gcsfs_knows_is_taken(options: dict[str, Any]) -> None:
    open_storage("gs://bucket/x", {**GCS, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"anon": False, "use_ssl": True, "requester_pays": False, "default_block_size": 1 << 20, "profile": None},
        {"skip_instance_cache": False, "asynchronous": True, "use_listings_cache": True, "max_concurrency": 4},
        {"token": "", "s3_additional_kwargs": {"Metadata": {"a": "b"}, "ACL": "private"}, "cache_regions": True},
        {
            "s3_additional_kwargs": {"SSECustomerKey": bytes(32), "SSECustomerAlgorithm": "AES256"},
            "requester_pays": True,
        },
        config(read_timeout=60, connect_timeout=0.5, s3={"use_accelerate_endpoint": False}, connector_args={}),
        config(
            read_timeout=None, retries={"max_attempts": 0}, proxies={"http": "proxy:3128"}, signature_version="s3v4"
        ),
        client(verify=False, region_name="eu-central-1", use_ssl=True, aws_session_token=None),
    ],
    ids=str,
)
def test_what_s3fs_knows_is_taken(options: dict[str, Any]) -> None:
    open_storage("s3://bucket/x", {**S3, **options})


@pytest.mark.parametrize("url", ["memory://place", "{}", "file://{}"])
def test_an_option_that_has_no_effect_is_none(url: str, tmp_path: Path) -> None:
    place = url.format(tmp_path)
    with pytest.raises(StorageOptionError, match="no storage option 'endpoint_url'"):
        StateStore(place, storage_options={"endpoint_url": "http://host"})
    StateStore(place, storage_options={"skip_instance_cache": True})


@pytest.mark.parametrize("options", ["key=value", [("key", "value")], {5: 5}, {("a", "b"): 5}])
@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x", "memory://x", "/nosuch", "ftp://127.0.0.1:1/x"])
def test_options_are_a_dict_of_names(url: str, options: Any) -> None:
    with pytest.raises(StorageOptionError):
        StateStore(url, storage_options=options).states()


def test_a_filesystem_of_fsspec_says_itself_what_it_does_not_know() -> None:
    with pytest.raises(StorageOptionError, match="no storage option 'foo'"):
        StateStore("http://127.0.0.1:1/x", storage_options={"foo": 1}).states()


def test_making_a_client_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those who lend credentials to a machine, either: they are asked by the first request."""
    asked: list[ScriptedRequest] = []

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        asked.append(request)
        return ScriptedAnswer(404)

    with scripted_server(answer) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server)
        storage = open_storage("s3://bucket/x", {"endpoint_url": server}, retry=None)
        assert not asked
        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
            storage.get("key")
        assert asked


# ------------------------------------------------------------------------------------------- launch


class Walker(Agent[int, int]):
    """Notes whether it was ever run."""

    def __init__(self) -> None:
        super().__init__()
        self.began = False

    @override
    def setup(self) -> None:
        super().setup()
        self.began = True

    @override
    def step(self, observation: int) -> int:
        return observation


def run(agent: Walker, **settings: Any) -> None:
    launch(Interaction(agent, Nowhere()), config=LaunchConfig(web_api_address=None, max_uptime=0.1, **settings))


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/x", {**S3, "endpoint": "http://x"}),
        ("s3://bucket/x", {**S3, "token": "x\n"}),
        ("s3://bucket/x", {**S3, "config_kwargs": {"read_timeout": "abc"}}),
        ("s3://bucket/x", {**S3, "config_kwargs": {"s3": {"addressing_style": "paths"}}}),
        ("s3://bucket/x", {**S3, "profile": "nosuch"}),
        ("gs://bucket/x", {**GCS, "tokn": "x"}),
        ("gs://bucket/x", {**GCS, "token": {"a": 1}}),
        ("memory://place", {"foo": 1}),
    ],
)
def test_no_agent_starts_with_an_option_that_can_not_be_used(
    url: str, options: dict[str, Any], spooled: bool, tmp_path: Path
) -> None:
    agent = Walker()
    with pytest.raises(StorageOptionError):
        run(agent, states_dir=url, storage_options=options, spool=tmp_path / "spool" if spooled else None)
    assert not agent.began
    assert not (tmp_path / "spool").exists()


def test_a_storage_that_can_not_be_reached_is_no_reason_not_to_start(tmp_path: Path) -> None:
    agent = Walker()
    with pytest.raises(StorageUnreachableError):
        run(agent, states_dir="s3://bucket/x", storage_options=S3)
    assert agent.began
    agent = Walker()
    run(agent, states_dir="s3://bucket/x", storage_options=S3, spool=tmp_path / "spool")
    assert agent.began


# ------------------------------------------------------------------------------------------- chains of causes


def circle(*errors: Exception) -> Exception:
    for error, cause in zip(errors, (*errors[1:], errors[0]), strict=True):
        error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize("make", [lambda: circle(ValueError()), lambda: circle(ValueError(), TypeError(), OSError())])
def test_causes_in_a_circle_are_seen_once(make: Callable[[], Exception]) -> None:
    error = make()
    assert len(list(chain(error))) == len({id(each) for each in chain(error)})
    assert next(chain(error)) is error


def test_no_error_is_its_own_cause() -> None:
    with pytest.raises(StorageOptionError) as caught:
        StateStore("s3://bucket/x", storage_options={**S3, **config(s3={"addressing_style": "x"})})
    causes = list(chain(caught.value, contexts=True))
    assert all(each.__cause__ is not each for each in causes)
