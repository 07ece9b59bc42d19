"""Tells other servers what happens to versions, as the Standard Webhooks specification says (standardwebhooks.com).

The process that was started reads the run's history and posts one event after the other to each address:

    {"type": "decided", "timestamp": "2026-01-01T00:00:00+00:00", "data": {"run": ..., "text": ..., ...detail}}

with the headers webhook-id (the same whenever an event is sent again), webhook-timestamp and, if the environment has
RATCHET_WEBHOOK_SECRET, webhook-signature. Delivery is at least once and in order, also over restarts: the file
`webhooks.json` of the run holds the number of the last event that each address took or gave up. It never delays a user.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.text import Text

from actors.inspect.sentences import sentence
from actors.runtime.ports import StorePort
from core.codec import stable_id
from core.config import WebhooksConfig
from core.errors import ConfigError, RatchetError
from core.messages import Event
from core.store.records import event as event_record
from core.store.writer import RunReader

SECRET = "RATCHET_WEBHOOK_SECRET"
CURSORS = "webhooks.json"
LOOK_S, TIMEOUT_S, LAST_S = 1.0, 10.0, 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
log = logging.getLogger("ratchet.webhooks")


class Webhooks:
    def __init__(self, config: WebhooksConfig, run_dir: Path, store: StorePort, secret: bytes | None) -> None:
        self._config = config
        self._run_dir = run_dir
        self._store = store
        self._secret = secret
        self._cursors: dict[str, int] = {}
        self._ending = asyncio.Event()

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Sends inside this context; at its end, for LAST_S more, what is left."""
        task = asyncio.create_task(self._run()) if self._config.urls else None
        try:
            yield
        finally:
            self._ending.set()
            if task is not None:
                await asyncio.wait({task}, timeout=LAST_S)
                task.cancel()
                (ended,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(ended, Exception):
                    log.error("webhooks ended before the run: %r", ended)

    async def _run(self) -> None:
        reader = RunReader(self._run_dir)
        with suppress(OSError, ValueError):
            self._cursors = json.loads((self._run_dir / CURSORS).read_text())
        try:
            for url in self._config.urls:
                self._cursors.setdefault(url, reader.newest_event())  # a new address is not told the past
            self._remember()
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client, asyncio.TaskGroup() as tasks:
                for url in self._config.urls:
                    tasks.create_task(self._send_to(url, reader, client))
        finally:
            reader.close()

    async def _send_to(self, url: str, reader: RunReader, client: httpx.AsyncClient) -> None:
        while True:
            last = self._ending.is_set()
            try:
                found = reader.numbered_events(*self._config.kinds, after=self._cursors[url])
            except RatchetError as error:
                log.warning("no events: %s", error)
                found = []
            for number, event in found:
                await self._deliver(url, number, event, client)
                self._cursors[url] = number
                self._remember()
            if last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_S)

    async def _deliver(self, url: str, number: int, event: Event, client: httpx.AsyncClient) -> None:
        """Try until the address says 2xx, or `attempts` times; then the event is left out for it, and that is noted."""
        id = f"msg_{stable_id('webhook', self._run_dir.name, str(number))}"
        body = json.dumps(told(event, self._run_dir.name)).encode()
        wait_s, why = FIRST_WAIT_S, ""
        for attempt in range(self._config.attempts):
            if attempt:
                await asyncio.sleep(wait_s)
                wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            try:
                reply = await client.post(url, content=body, headers=headers(id, int(time.time()), body, self._secret))
            except httpx.HTTPError as error:
                why = f"{error!r}"
            else:
                if reply.is_success:
                    return
                why = f"status {reply.status_code}"
        log.warning("gave up telling %s of event %d (%s): %s", url, number, event.kind, why)
        with suppress(RatchetError):
            detail = {"url": url, "event": number, "of": event.kind, "why": why}
            await self._store.append([event_record(time.time(), "driver", "webhook_failed", **detail)])

    def _remember(self) -> None:
        aside = self._run_dir / f".{CURSORS}"
        with suppress(OSError):  # then an event may be sent twice, as it may be anyway
            aside.write_text(json.dumps(self._cursors))
            os.replace(aside, self._run_dir / CURSORS)


def told(event: Event, run: str) -> dict[str, object]:
    """The body for one event."""
    text = Text.from_markup(sentence(event) or event.kind).plain
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds")
    return {"type": event.kind, "timestamp": at, "data": {**event.detail, "run": run, "text": text}}


def headers(id: str, at: int, body: bytes, secret: bytes | None) -> dict[str, str]:
    """With a signature if there is a secret: HMAC-SHA256 of `id.at.body`."""
    made = {"content-type": "application/json", "webhook-id": id, "webhook-timestamp": str(at)}
    if secret is not None:
        digest = hmac.new(secret, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
        made["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return made


def secret_of(text: str | None) -> bytes | None:
    """The key of `whsec_...`. Raises: ConfigError for anything else."""
    if not text:
        return None
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ConfigError(
            f"{SECRET} is no secret of the Standard Webhooks specification: expected whsec_ and 24 to 64 bytes in "
            "base64; make one: echo whsec_$(openssl rand -base64 32)"
        )
    return key
