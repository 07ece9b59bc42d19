"""Keeps Ray Serve's log handlers working through the start of an engine.

Patched: sets the target of Ray Serve's buffering log handlers again. Why: vLLM calls `logging.config.dictConfig` when
it starts an engine (vllm/logger.py `configure_logging`). That closes all handlers, and a closed `MemoryHandler` loses
its target. Ray Serve's replica then logs nothing, and a restarted controller considers it broken. Upstream:
https://github.com/ray-project/ray/pull/57169 is about the same problem in Ray Data. Holds for: vLLM 0.31 in Ray 2.60.
`VLLM_CONFIGURE_LOGGING=0` avoids the problem too, but turns vLLM's own log off.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("log_handlers", without="replicas log nothing after their engine has started")


@contextmanager
def kept(logger: str) -> Iterator[None]:
    """Use it around the start of an engine."""
    handlers = logging.getLogger(logger).handlers if PATCH.on() else []
    buffers = [handler for handler in handlers if isinstance(handler, MemoryHandler)]
    targets = [handler.target for handler in buffers]
    try:
        yield
    finally:
        for handler, target in zip(buffers, targets, strict=True):
            handler.setTarget(target)
