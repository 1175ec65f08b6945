"""Credentials stay out of errors, of what led to them, of logs and of the console, wherever they come from."""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest

from statevault.cli import main
from statevault.errors import StorageError
from statevault.state_persistence import StateStore
from statevault.storage import RetryPolicy, Storage, open_storage
from statevault.storage.redaction import Secrets, chain, redacted

SENTINEL = "Xq7/wJalr+bPx"
PASSWORD = "Xq7wJalrbPx"  # what can stand in a URL


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of this machine's own, and each line of ours."""
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    caplog.set_level(logging.DEBUG, logger="statevault")


def assert_hidden(text: str) -> None:
    for secret in (SENTINEL, PASSWORD):
        for spelling in (secret, quote(secret), quote(secret, safe=""), b64encode(secret.encode()).decode()):
            assert spelling.lower() not in text.lower()


def everything_of(error: BaseException) -> str:
    """All that may be seen of an error."""
    whole = [*traceback.format_exception(error), *traceback.format_exception(pickle.loads(pickle.dumps(error)))]
    for each in chain(error, contexts=True):
        whole += [str(each), repr(each), repr(each.args), repr(getattr(each, "__notes__", ""))]
    return "\n".join(whole)


@contextlib.contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that answers each connection's first request with what `answer` makes of it; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(answer(connection.recv(1 << 16)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def refuse(request: bytes) -> bytes:
    """Say no, and all that was asked: in the way of S3, which is none of GCS."""
    said = escape(request.partition(b"\r\n\r\n")[0].decode("latin-1").replace("\r\n", " "))
    body = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>".encode()
    return b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def repeat(request: bytes) -> bytes:
    """Say what was asked, in place of an answer."""
    return request.partition(b"\r\n\r\n")[0].replace(b"\r\n", b" ") + b"\r\n\r\n"


def repeat_in_header(request: bytes) -> bytes:
    return b"HTTP/1.1 500 Broken\r\n" + repeat(request).strip() + b"\r\nContent-Length: x\r\n\r\n"


ANSWERS = {"refuse": refuse, "repeat": repeat, "repeat_in_header": repeat_in_header, "nothing": lambda _: b""}

PAIR = {"key": "somebody", "secret": "something"}
PLACES: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = [
    ("s3", {"key": SENTINEL, "secret": "something"}, {}),
    ("s3", {"key": "somebody", "secret": SENTINEL}, {}),
    ("s3", {"username": SENTINEL, "password": SENTINEL}, {}),
    ("s3", {**PAIR, "token": SENTINEL}, {}),
    ("s3", {"client_kwargs": {"aws_access_key_id": SENTINEL, "aws_secret_access_key": SENTINEL}}, {}),
    ("s3", {**PAIR, "client_kwargs": {"aws_session_token": SENTINEL}}, {}),
    ("s3", {**PAIR, "s3_additional_kwargs": {"SSECustomerKey": SENTINEL, "SSECustomerAlgorithm": "AES256"}}, {}),
    ("s3", {**PAIR, "config_kwargs": {"proxies": {"http": f"http://me:{PASSWORD}@127.0.0.1:1"}}}, {}),
    ("s3", PAIR, {"HTTP_PROXY": f"http://me:{PASSWORD}@127.0.0.1:1"}),
    ("s3", {}, {"AWS_ACCESS_KEY_ID": SENTINEL, "AWS_SECRET_ACCESS_KEY": SENTINEL, "AWS_SESSION_TOKEN": SENTINEL}),
    (
        "gs",
        {"token": {"type": "service_account", "private_key": SENTINEL, "client_email": "a@b", "token_uri": "c"}},
        {},
    ),
    ("gs", {"token": {"refresh_token": SENTINEL, "client_secret": SENTINEL, "client_id": SENTINEL}}, {}),
    ("gs", {"token": SENTINEL}, {}),
    ("gs", {"token": SENTINEL}, {"FETCH_RAW_TOKEN_EXPIRY": "false"}),
    ("gs", {"token": "anon", "session_kwargs": {"headers": {"Authorization": f"Bearer {SENTINEL}"}}}, {}),
    ("http", {"client_kwargs": {"headers": {"Authorization": SENTINEL}}}, {}),
]
CALLS: list[Callable[[Storage], object]] = [
    lambda storage: list(storage.list()),
    lambda storage: storage.put("key", b"x"),
    lambda storage: storage.get("key"),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_server_makes_of_them_is_not_seen(
    place: tuple[str, Mapping[str, Any], Mapping[str, str]],
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheme, options, variables = place
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    twice = RetryPolicy(max_attempts=2, first_delay_s=0.0)
    with answering(ANSWERS[answer]) as server:
        url = {"http": f"{server}/x"}.get(scheme, f"{scheme}://bucket/x")
        given = {**options, **({} if scheme == "http" else {"endpoint_url": server})}
        for call in CALLS:
            with pytest.raises(StorageError) as caught:
                call(open_storage(url, given, retry=twice))
            assert_hidden(everything_of(caught.value))
    assert_hidden("\n".join(record.getMessage() for record in caplog.records if record.name.startswith("statevault")))


BAD_ENDS = ["\n", " ", "\r\n", "\x00", "\u20ac", "\x7f", "\n\n"]


def spoiled(value: Any, end: str) -> Any:
    """Options in which each secret has a bad end."""
    if isinstance(value, str):
        return value + end if SENTINEL in value else value
    return {name: spoiled(inner, end) for name, inner in value.items()} if isinstance(value, Mapping) else value


@pytest.mark.parametrize("end", BAD_ENDS)
@pytest.mark.parametrize(("scheme", "options"), [(scheme, options) for scheme, options, variables in PLACES if options])
def test_what_is_wrong_with_them_is_said_without_them(
    scheme: str, options: Mapping[str, Any], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = {"http": "http://127.0.0.1:1/x"}.get(scheme, f"{scheme}://bucket/x")
    given = {**spoiled(options, end), **({} if scheme == "http" else {"endpoint_url": "http://127.0.0.1:1"})}
    with pytest.raises(StorageError) as caught:
        open_storage(place, given, retry=None).get("key")
    assert_hidden(everything_of(caught.value))
    assert_hidden(caplog.text)  # nothing was sent, so that others have nothing to say, either


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1},
        {"client_kwargs": SENTINEL},
        {"client_kwargs": {"region_name": SENTINEL}},
        {"client_kwargs": {"verify": SENTINEL}, "endpoint_url": "https://127.0.0.1:1"},
        {"config_kwargs": {"read_timeout": SENTINEL}},
        {"config_kwargs": {"user_agent": f"{SENTINEL}\n"}},
        {"config_kwargs": {"signature_version": SENTINEL}},
        {"config_kwargs": {"retries": SENTINEL}},
        {"config_kwargs": {"proxies": {"http": f"http://me:{PASSWORD}@host:port"}}},
        {"config_kwargs": {"proxies": {"http": f"ftp://me:{PASSWORD}@host"}}},
        {"config_kwargs": {"proxies": {"http": f"me:{PASSWORD}@ho st"}}},
        {"endpoint_url": f"http://me:{PASSWORD}@host:port"},
        {"endpoint_url": f"http://me:{PASSWORD}@"},
        {"endpoint_url": f"me:{PASSWORD}@host"},
        {"s3_additional_kwargs": {"SSECustomerKey": {"a": SENTINEL}}},
        {"s3_additional_kwargs": {"Metadata": {"a": f"{SENTINEL}\n"}}},
        {"key": {"a": SENTINEL}},
        {"session": SENTINEL},
        {SENTINEL: 1},
    ],
    ids=str,
)
def test_an_option_is_named_and_its_value_is_not(options: dict[str, Any]) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage("s3://bucket/x", {"endpoint_url": "http://127.0.0.1:1", **PAIR, "token": SENTINEL, **options})
    assert_hidden(everything_of(caught.value))


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["doctor"], ["gc"]])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_command_line_shows_none(
    arguments: list[str], end: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with answering(refuse) as server:
        options = [f"endpoint_url={server}", f"key={SENTINEL}", f"secret={SENTINEL}", f"token={SENTINEL}{end}"]
        given = [part for option in options for part in ("-o", option)]
        monkeypatch.setattr("sys.argv", ["statevault", arguments[0], "s3://bucket/x", *arguments[1:], *given])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code
    out, err = capfd.readouterr()
    assert out + err
    assert_hidden(out + err)


def test_nothing_that_is_shown_of_a_store_has_them() -> None:
    options = {"endpoint_url": f"http://me:{PASSWORD}@127.0.0.1:1", "key": SENTINEL, "secret": SENTINEL}
    with StateStore("s3://bucket/x", storage_options=options) as store:
        storage = open_storage("s3://bucket/x", options)
        for shown in (store, store.url, store.path("a"), storage, storage.inner, storage.path("key")):  # type: ignore[attr-defined]
            assert_hidden(f"{shown} {shown!r}")


def test_an_ftp_password_is_not_shown() -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(f"ftp://me:{PASSWORD}@127.0.0.1:1/x", {"password": f"{PASSWORD}\n"}).get("key")
    assert_hidden(everything_of(caught.value))


# ------------------------------------------------------------------------------------------- how they are found


@pytest.mark.parametrize(
    "text",
    [
        "Invalid header value b'Xq7/wJalr+bPx\\n'",
        "url: /tokeninfo?a=Xq7%2FwJalr%2BbPx",
        "at Xq7%2fwJalr%2bbPx",
        "<Xq7/wJalr+bPx>",
        "{'a': 'Xq7/wJalr+bPx'}",
        "eXq7/wJalr+bPxe",
    ],
)
def test_a_secret_is_known_however_it_is_written(text: str) -> None:
    assert "wJalr" not in Secrets({"key": f"{SENTINEL}\n"}).hidden(text)


def test_each_line_of_a_long_one_is_a_secret() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANBgkqhkiG9w0BAQ\nEFAASCBKYwggSiAgEAAo\n-----END PRIVATE KEY-----\n"
    hidden = Secrets({"token": {"private_key": key}}).hidden(f"can't read {key!r}, at EFAASCBKYwggSiAgEAAo")
    assert "MIIE" not in hidden
    assert "EFAA" not in hidden


def test_a_short_one_takes_no_part_of_a_word() -> None:
    hidden = Secrets({"key": "test", "secret": "abc"}).hidden
    assert hidden("latest of test-states: test, 'test' b'\\ntest\\n' abc") == (
        "latest of test-states: ***, '***' b'\\n***\\n' abc"
    )


def test_what_is_no_secret_stays() -> None:
    options = {"endpoint_url": "http://host:9000", "client_kwargs": {"region_name": "eu-central-1"}, "anon": True}
    text = "http://host:9000 in eu-central-1 is True"
    assert Secrets(options).hidden(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer ya29.a0AfH6SMBx", "Authorization: Bearer ***"),
        ("Proxy-Authorization: Basic bWU6c2VjcmV0", "Proxy-Authorization: Basic ***"),
        ("a basic idea", "a basic idea"),
    ],
)
def test_what_authorizes_is_known_by_its_form(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_an_error_that_can_not_be_cleaned_is_no_cause() -> None:
    class Stubborn(Exception):
        def __str__(self) -> str:
            return SENTINEL

    secrets = Secrets({"key": SENTINEL})
    assert secrets.hidden_in(Stubborn()) is None
    error = ValueError(f"at {SENTINEL}", SENTINEL.encode(), 5)
    error.add_note(SENTINEL)
    error.__cause__ = TypeError(SENTINEL)
    assert secrets.hidden_in(error) is error
    assert error.args == ("at ***", "b'***'", 5)
    assert_hidden(everything_of(error))
