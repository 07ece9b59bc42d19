"""Reads and writes keys: a file with one `NAME ROLE sha256:HEX` a line, or RATCHET_KEYS in the environment.

The environment may also hold the secrets themselves, as `NAME ROLE SECRET`; its entries end with a newline or a comma.
No error quotes a line, because it may hold a secret.
"""

import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from core.config import AccessConfig
from core.errors import ConfigError
from serve.http.keys import Key, Keys, Role

ENVIRONMENT = "RATCHET_KEYS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HASH = re.compile(r"sha256:([0-9a-f]{64})")
SHORTEST = 32
"""Characters that a secret from the environment has at least: SHA-256 does not protect a secret that can be guessed."""
ROLES: dict[str, Role] = {role: role for role in get_args(Role)}


def read(access: AccessConfig, environ: Mapping[str, str]) -> Keys:
    """All keys of the file and the environment. Raises: ConfigError, also for a source without a key: it must not open
    the server to everybody."""
    found: list[Key] = []
    if access.keys is not None:
        found += _some(parse(_text(Path(access.keys)), access.keys), access.keys)
    if ENVIRONMENT in environ:
        entries = environ[ENVIRONMENT].replace(",", "\n")
        found += _some(parse(entries, ENVIRONMENT, secret_too=True), ENVIRONMENT)
    _refuse_twice(found)
    return Keys(tuple(found))


def parse(text: str, where: str, secret_too: bool = False) -> list[Key]:
    """The keys of these lines. `secret_too`: a line may hold the secret in place of its hash. Raises: ConfigError that
    names `where`, the line, and what was expected."""
    lines = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1)]
    return [
        _key(words, f"{where}, line {number}", secret_too) for number, words in lines if words and words[0][0] != "#"
    ]


def add(file: Path, name: str, role: Role) -> str:
    """Make a key and append its hash to the file; a new file is readable by its owner only. Returns the secret.

    Raises: ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a key name; expected up to 64 of A-Z a-z 0-9 . _ -, such as app-1")
    key, secret = Key.new(name, role)
    try:
        with open(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            opened.seek(0)
            before = _decoded(opened.read(), str(file))
            _refuse_twice([*parse(before, str(file)), key])
            line = f"{name} {role} sha256:{key.digest.hex()}\n"
            opened.write((line if not before or before.endswith("\n") else f"\n{line}").encode())
            opened.flush()
            os.fsync(opened.fileno())
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be written ({error}); choose another with --file") from None
    return secret


def notes(keys: Keys, access: AccessConfig) -> list[str]:
    """Warnings: settings that are allowed but seldom intended."""
    warnings: list[str] = []
    if keys.held and not any(key.role == "admin" for key in keys.held):
        warnings.append("no key has role admin: no request can pause, promote or roll back")
    if access.keys is not None and Path(access.keys).stat().st_mode & 0o044:
        warnings.append(f"{access.keys} can be read by others; it holds hashes only, but chmod 600 costs nothing")
    return warnings


def _key(words: list[str], place: str, secret_too: bool) -> Key:
    form = "NAME ROLE SECRET" if secret_too else "NAME ROLE sha256:HEX"
    if len(words) != 3:
        raise ConfigError(f"{place} has {len(words)} words; expected {form}, as `ratchet keys NAME` writes it")
    name, role, kept = words
    if not NAME.fullmatch(name):
        raise ConfigError(f"{place} does not begin with a name; expected up to 64 of A-Z a-z 0-9 . _ - and then a role")
    if role not in ROLES:
        raise ConfigError(f"{place}: the second word is not a role; expected {' or '.join(ROLES)}")
    hashed = HASH.fullmatch(kept)
    if hashed:
        return Key(name, ROLES[role], bytes.fromhex(hashed[1]))
    if not secret_too or kept.startswith("sha256:"):
        raise ConfigError(f"{place}: the third word is not a hash; expected sha256: and 64 digits 0-9 a-f")
    if len(kept) < SHORTEST or not kept.isascii():
        raise ConfigError(
            f"{place}: the third word is not a secret; expected {SHORTEST} or more random ASCII characters"
        )
    return Key.of(name, ROLES[role], kept)


def _some(keys: list[Key], where: str) -> list[Key]:
    if not keys:
        raise ConfigError(f"{where} holds no key; make one with `ratchet keys NAME`, or remove the setting")
    return keys


def _refuse_twice(keys: list[Key]) -> None:
    for place, key in enumerate(keys):
        for other in keys[:place]:
            if other.name == key.name:
                raise ConfigError(f"two keys are named {key.name}; give each its own name, or remove one")
            if other.digest == key.digest:
                raise ConfigError(f"the keys {other.name} and {key.name} are the same secret; remove one")


def _text(path: Path) -> str:
    """Raises: ConfigError, also for a file that other users may write: they could add a key of their own."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        raise ConfigError(f"no keys file {path}; make it with `ratchet keys NAME --file {path}`") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"serve.access.keys={path} cannot be read: {error}") from None
    if mode & 0o022:
        raise ConfigError(f"{path} has mode {mode & 0o777:o}: other users could add keys; run chmod 600 {path}")
    return _decoded(text, str(path))


def _decoded(text: bytes, where: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not UTF-8 text; expected lines NAME ROLE sha256:HEX") from None
