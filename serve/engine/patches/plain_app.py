"""vLLM's OpenAI app without its middleware.

Patched: `FastAPI.user_middleware` and `FastAPI.middleware_stack` of the app that vLLM's `build_app`
(vllm/entrypoints/launchers/app.py) returns. Why: who may ask is our gateway's to say (vLLM's CORS lets every web page
in), nobody reads what they count, and each event of a stream would pass through them. vLLM has no option for it, and
its SageMaker bootstrap builds the stack at once, so that it must be dropped to be built anew. Upstream:
`load_middlewares` in aws/model-hosting-container-standards; no issue is known. Holds for: vLLM 0.31.
"""

from typing import Any

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("plain_app", without="vLLM's middleware answers CORS requests itself and slows down streams")


def strip(app: Any) -> None:
    if PATCH.on():
        app.user_middleware.clear()
        app.middleware_stack = None
