"""Tracks requests in flight by version, so that an unload can wait for them."""

import asyncio
import contextlib
from collections.abc import Iterator


class InFlight:
    """Requests in flight, by the name of their version; None for a request whose version is unknown."""

    def __init__(self) -> None:
        self._requests: dict[asyncio.Event, str | None] = {}

    @contextlib.contextmanager
    def track(self, name: str | None) -> Iterator[None]:
        ended = asyncio.Event()
        self._requests[ended] = name
        try:
            yield
        finally:
            del self._requests[ended]
            ended.set()

    async def wait_for(self, *names: str | None) -> None:
        """Wait until the requests now in flight under these names have ended. Later requests are not waited for."""
        for ended in [ended for ended, name in self._requests.items() if name in names]:
            await ended.wait()
