"""HTTP calls from commands to a running system."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from actors.storage.run_dir import live_url
from core.errors import RatchetError
from core.shipped import PROGRAM


def error_message(reply: httpx.Response) -> str:
    """The message of an error in OpenAI's format; otherwise the status and the start of the body."""
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}: {reply.text[:200]}"


def live(path: Path) -> str:
    url = live_url(path)
    if url is None:
        raise RatchetError(f"{path} is not running; start it with {PROGRAM} up --dir {path}")
    return url


def bearer() -> dict[str, str]:
    """The header for a run with keys, from RATCHET_KEY. Raises: RatchetError."""
    key = os.environ.get("RATCHET_KEY", "").strip()
    if not key.isascii() or len(key.split()) > 1:
        raise RatchetError("RATCHET_KEY is not a key; set it to one that `ratchet keys NAME` printed")
    return {"Authorization": f"Bearer {key}"} if key else {}


def get(url: str) -> Any:
    try:
        return httpx.get(url, headers=bearer(), timeout=30, trust_env=False).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise RatchetError(f"{url} does not answer ({error}); the run may be starting or stopping, try again") from None


def post(url: str, body: Mapping[str, object], timeout_s: float = 60) -> httpx.Response:
    try:
        reply = httpx.post(url, json=body, headers=bearer(), timeout=timeout_s, trust_env=False)
    except httpx.HTTPError as error:
        raise RatchetError(f"{url} does not answer ({error}); the run may be starting or stopping, try again") from None
    if not reply.is_success:
        raise RatchetError(error_message(reply))
    return reply
