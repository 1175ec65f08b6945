"""Who may use the web API.

A web page that the operator's browser shows is the attacker to keep off a server on loopback:

* By DNS rebinding its own name leads to this machine, so that the browser takes the API for a part of the page.
  The ``Host`` header has the page's name then: only names of this machine pass.
* Across origins a page can still send requests whose answers it can't read (CSRF). The browser says where they come
  from in ``Origin``: only the API's own origin passes.

Anybody else is kept off by the bearer token (RFC 6750), which every address but loopback needs.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from statevault.console.answers import failure

__all__ = ["Guard"]


class Guard:
    """Refuses requests before the application sees them."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], any_ip_address: bool, token: str | None) -> None:
        """Guard an application.

        Args:
            app: The application.
            hosts: The names that a ``Host`` header may have, without ports.
            any_ip_address: Whether any IP address passes as one. Rebinding needs a name.
            token: What must follow ``Authorization: Bearer``; None if nobody needs one.
        """
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._any_ip_address = any_ip_address
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> ASGIApp | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return failure(403, "foreign_host", "the Host header names another machine; see web_api_allowed_hosts")
        # https: behind a proxy that ends TLS. Nothing else can serve pages at this very host and port.
        ours = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
        if any(origin not in ours for origin in origins):
            return failure(403, "foreign_origin", "the request comes from a page of another origin")
        if self._token is not None and not self._has_token(headers.getlist("authorization")):
            return failure(
                401, "unauthorized", "send the header Authorization: Bearer <token>", {"WWW-Authenticate": "Bearer"}
            )
        return None

    def _is_ours(self, host_header: str) -> bool:
        try:
            host = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        if host in self._hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return self._any_ip_address

    def _has_token(self, authorizations: list[str]) -> bool:
        if self._token is None or len(authorizations) != 1:
            return False
        scheme, _, given = authorizations[0].partition(" ")
        # In constant time: how far a guess is right must not show.
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
