"""Bearer keys, each with a name and a role.

A key is a long random string, so its plain SHA-256 is stored: no dictionary contains it, and a slow hash would only
slow down every request.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from serve.http.errors import Refusal

Role = Literal["user", "admin"]
PREFIX = "rk-"


@dataclass(frozen=True)
class Key:
    name: str
    role: Role
    digest: bytes = field(repr=False)
    """SHA-256 of the secret."""

    @classmethod
    def of(cls, name: str, role: Role, secret: str) -> "Key":
        return cls(name, role, hashlib.sha256(secret.encode()).digest())

    @classmethod
    def new(cls, name: str, role: Role) -> tuple["Key", str]:
        """A new key and its secret, which is stored nowhere."""
        secret = PREFIX + secrets.token_urlsafe(32)
        return cls.of(name, role, secret), secret

    def caller(self) -> "Caller":
        return Caller(self.name, self.role, hmac.new(self.digest, b"cache_salt", hashlib.sha256).hexdigest())


@dataclass(frozen=True)
class Caller:
    key: str
    """The name of the key; "" where there are no keys."""
    role: Role
    salt: str = field(default="", repr=False)
    """vLLM's `cache_salt` for this key's requests, so that other keys can neither hit nor time its cached prefixes. ""
    where there are no keys: the field is left out."""


LOCAL = Caller("", "admin")


@dataclass(frozen=True)
class Keys:
    """All keys of a server. Without any, every caller is a local admin."""

    held: tuple[Key, ...] = ()

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller with these headers. Raises: Refusal 401."""
        if not self.held:
            return LOCAL
        secret = _bearer(headers)
        if secret is None:
            raise _unknown("this server requires a key; send it once, as `Authorization: Bearer KEY`")
        digest = hashlib.sha256(secret).digest()
        found = [key for key in self.held if hmac.compare_digest(key.digest, digest)]  # compares all, in constant time
        if not found:
            raise _unknown("this server does not know the key; ask its operator for a valid one")
        return found[0].caller()

    def with_own(self) -> tuple["Keys", str]:
        """These keys and an admin key for the run's own requests, and its secret ("" where there are no keys)."""
        if not self.held:
            return self, ""
        key, secret = Key.new("(run)", "admin")
        return Keys((*self.held, key)), secret


def require_admin(caller: Caller) -> None:
    """Raises: Refusal 403."""
    if caller.role != "admin":
        why = f"this route is for keys of role admin; the key `{caller.key}` has role {caller.role}"
        raise Refusal(403, why, "permission_error")


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    given = [value for name, value in headers if name.lower() == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, secret = given[0].strip().partition(b" ")
    return secret.strip() or None if scheme.lower() == b"bearer" else None


def _unknown(why: str) -> Refusal:
    return Refusal(401, why, "authentication_error", headers={"WWW-Authenticate": "Bearer"})
