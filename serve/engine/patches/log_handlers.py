"""Log handlers that outlive a library which configures logging anew."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler


@contextmanager
def kept(logger: str) -> Iterator[None]:
    """`logging.config.dictConfig`, which vLLM calls when it is imported, closes all handlers; one that buffers loses
    its target then. Without it Ray Serve's replica logs nothing any more, and a controller that was started again takes
    the replica for broken (Ray 2.60)."""
    buffers = [handler for handler in logging.getLogger(logger).handlers if isinstance(handler, MemoryHandler)]
    targets = [handler.target for handler in buffers]
    try:
        yield
    finally:
        for handler, target in zip(buffers, targets, strict=True):
            handler.setTarget(target)
