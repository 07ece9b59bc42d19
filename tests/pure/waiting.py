"""Waiting in tests: for a condition, or for the event loop to have nothing left to do at once."""

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def spin() -> None:
    for _ in range(8):
        await asyncio.sleep(0)
