"""The one durable writer: gathers what everybody hands it into one transaction, and answers when it is on disk."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import Unavailable
from core.store import Record, RunStore


@dataclass
class _Waiting:
    records: Sequence[Record]
    done: asyncio.Future[int]


class Store:
    def __init__(self, run_dir: str) -> None:
        self._run_dir = Path(run_dir)
        self._store: RunStore | None = None
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._writes = 0
        self._commits = 0

    async def start(self) -> None:
        self._store = await asyncio.to_thread(RunStore, self._run_dir)

    async def append(self, records: Sequence[tuple[str, str, str, bytes]]) -> int:
        """Write all or none; returns how many were given, once they are on disk; one written before changes nothing."""
        if self._store is None:
            raise Unavailable("the store is not started yet; try again")
        waiting = _Waiting([Record(*record) for record in records], asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.done

    async def run(self) -> None:
        """Commit whatever has gathered while the last commit went to the disk."""
        while True:
            group = [await self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            await asyncio.to_thread(self._commit, group)

    async def status(self) -> dict[str, Any]:
        return {"writes": self._writes, "commits": self._commits}

    async def stop(self) -> None:
        if self._store is not None:
            self._store.close()

    def _commit(self, group: list[_Waiting]) -> None:
        assert self._store is not None
        loop = group[0].done.get_loop()
        try:
            self._store.write(record for waiting in group for record in waiting.records)
        except Exception as error:  # handed to every caller, who decides
            for waiting in group:
                loop.call_soon_threadsafe(_fail, waiting.done, error)
            return
        self._commits += 1
        for waiting in group:
            self._writes += len(waiting.records)
            loop.call_soon_threadsafe(_finish, waiting.done, len(waiting.records))


def _finish(future: asyncio.Future[int], written: int) -> None:
    if not future.done():
        future.set_result(written)


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
