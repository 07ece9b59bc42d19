"""Refuses a folder of temporary files in which no socket can be opened, because its path is too long."""

import os
import tempfile
from collections.abc import Mapping

from core.errors import ConfigError

SOCKET_BYTES = 107
"""The longest path of a Unix socket on Linux."""
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
ENGINE_SOCKET = "/01234567-0123-0123-0123-0123456789ab"
"""The longest names that Ray (2.60) and vLLM (0.31) add to that folder."""


def check_temporary_folder(socket: str, environ: Mapping[str, str] = os.environ) -> None:
    """Raises: ConfigError if `socket` does not fit below the folder of temporary files."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environ.get(name) and socket == RAY_SOCKET), "TMPDIR")
    folder = environ.get(name) or tempfile.gettempdir()
    room = SOCKET_BYTES - len(socket)
    if len(os.fsencode(folder)) > room:
        raise ConfigError(
            f"{name}={folder} has {len(os.fsencode(folder))} bytes, but a socket needs a folder of at most {room}; set "
            f"{name} to a shorter one, such as /tmp"
        )
