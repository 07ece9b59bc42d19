"""Waiting until another task has made something true."""

import asyncio
from collections.abc import Callable


async def comes_true(changed: asyncio.Condition, holds: Callable[[], bool], wait_s: float) -> bool:
    """Whether it held within `wait_s`; looked at now and whenever `changed` is notified."""
    async with changed:
        try:
            async with asyncio.timeout(wait_s):
                return await changed.wait_for(holds)
        except TimeoutError:
            return False
