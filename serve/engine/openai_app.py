"""In front of vLLM's OpenAI app: an allow-list, and who is inside, so that an unload can wait for them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from serve.engine.in_flight import Presence

ALLOWED = frozenset(
    ["/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/health", "/version"]
)
"""The routes of vLLM's app that may be reached; by default it also mounts /scale_elastic_ep, /invocations, /load ..."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Front:
    """ASGI: lets ALLOWED routes through to vLLM's app, and notes who is inside, so that an unload can wait."""

    def __init__(self, app: AsgiApp, inside: "Presence") -> None:
        self._app = app
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http" or scope["path"] not in ALLOWED:
            return await _refuse(scope, send)
        with self._inside.entered(scope.get("policy_version")):
            await self._app(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """vLLM's own would delete the app's state at the end; the engine's life is not the server's."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    message = f"no route {scope['method']} {scope['path']}; there are {', '.join(sorted(ALLOWED))}"
    error = {"message": message, "type": "not_found_error", "param": None, "code": 404}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
