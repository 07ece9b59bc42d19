"""Log handlers that outlive the start of an engine.

Patched: the target of Ray Serve's buffering log handlers is set again. Why: `logging.config.dictConfig`, which vLLM
calls when it sets an engine up (vllm/logger.py `configure_logging`), closes all handlers, and a `MemoryHandler` loses
its target then. Ray Serve's replica logs nothing any more, and a controller that was started again takes it for broken.
Upstream: https://github.com/ray-project/ray/pull/57169 is about the same trap in Ray Data. Holds for: vLLM 0.31 in Ray
2.60. `VLLM_CONFIGURE_LOGGING=0` would do without it, and without vLLM's own log.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("log_handlers", without="replicas log nothing once their engine is up")


@contextmanager
def kept(logger: str) -> Iterator[None]:
    """While an engine is set up."""
    handlers = logging.getLogger(logger).handlers if PATCH.on() else []
    buffers = [handler for handler in handlers if isinstance(handler, MemoryHandler)]
    targets = [handler.target for handler in buffers]
    try:
        yield
    finally:
        for handler, target in zip(buffers, targets, strict=True):
            handler.setTarget(target)
