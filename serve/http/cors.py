"""Requests from web pages: which origins may send them, and which may read the answers.

A browser lets any page send requests, also to ports of its own machine. On a server without keys only this check keeps
a page from `/admin/promote`.
"""

import ipaddress
from collections.abc import Collection, Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.http.errors import Refusal


def is_loopback(host: str) -> bool:
    """Whether a server bound to this host is reachable from its own machine only."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def check(headers: Iterable[tuple[bytes, bytes]], allow_origins: Collection[str], keyless: bool) -> None:
    """Refuses pages of other origins that are not listed. Without keys it also refuses a name in `Host`: an attacker's
    name may resolve to this machine (DNS rebinding), and then its pages have the server's own origin.

    Raises: Refusal 403."""
    given = [(name.lower(), value.decode("latin-1")) for name, value in headers]
    hosts = [value for name, value in given if name == b"host"]
    for host in hosts if keyless else ():
        if not _is_local_or_address(_without_port(host)):
            why = f"without keys this server answers to an address or localhost, not to the name {host!r}"
            raise Refusal(403, f"{why}; make keys, or let the proxy in front set Host", "permission_error")
    for origin in (value for name, value in given if name == b"origin"):
        if origin not in allow_origins and origin.partition("://")[2] not in hosts:
            why = f"pages of {origin!r} may not call this server; its operator may list them"
            raise Refusal(403, f"{why} in serve.access.allow_origins", "permission_error")


def with_cors(app: ASGIApp, allow_origins: Collection[str]) -> ASGIApp:
    """Lets pages of these origins read the app's answers and errors. Without origins it returns the app itself."""
    if not allow_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=allow_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-policy-version", "x-ratchet-learn"],
        expose_headers=["x-policy-version", "x-policy-replica", "retry-after"],
    )


def _is_local_or_address(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or _is_address(host)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    """`[::1]:8000` -> `::1`, `127.0.0.1:8000` -> `127.0.0.1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
