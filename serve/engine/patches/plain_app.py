"""Removes the middleware of vLLM's OpenAI app.

Patched: `FastAPI.user_middleware` and `FastAPI.middleware_stack` of the app that vLLM's `build_app`
(vllm/entrypoints/launchers/app.py) returns. Why: our ingress checks origins and keys (vLLM's CORS admits every web
page), no one reads the middleware's counters, and each event of a stream would pass through it. vLLM has no option for
this. Its SageMaker bootstrap builds the middleware stack early, so the built stack must be dropped too. Upstream:
`load_middlewares` in aws/model-hosting-container-standards; no issue is known. Holds for: vLLM 0.31.
"""

from typing import Any

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("plain_app", without="vLLM's middleware answers CORS requests itself and slows down streams")


def strip(app: Any) -> None:
    if PATCH.on():
        app.user_middleware.clear()
        app.middleware_stack = None
