"""Requests in flight, by version."""

import asyncio
import contextlib
from collections.abc import Iterator


class Presence:
    """Who is inside, by the version used; None is somebody of whom that is not known."""

    def __init__(self) -> None:
        self._gone: dict[asyncio.Event, str | None] = {}

    @contextlib.contextmanager
    def entered(self, name: str | None) -> Iterator[None]:
        gone = asyncio.Event()
        self._gone[gone] = name
        try:
            yield
        finally:
            del self._gone[gone]
            gone.set()

    async def left(self, *names: str | None) -> None:
        """Wait until those inside now under these names are gone; who comes later does not count."""
        for gone in [gone for gone, name in self._gone.items() if name in names]:
            await gone.wait()
