"""Wraps vLLM's OpenAI app: allows only listed routes, and tracks requests so that an unload can wait for them."""

import json
from argparse import Namespace
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from serve.engine.in_flight import InFlight
from serve.engine.patches import plain_app, stream_events

ALLOWED = frozenset(
    ["/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/health", "/version"]
)
"""The reachable routes of vLLM's app. By default it also mounts /scale_elastic_ep, /invocations, /load ..."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class OpenAIApp:
    """ASGI app: passes ALLOWED routes to vLLM's app and tracks each request under its version."""

    def __init__(self, app: AsgiApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http" or scope["path"] not in ALLOWED:
            return await _refuse(scope, send)
        with self._in_flight.track(scope.get("policy_version")):
            await self._app(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Replaces the lifespan of vLLM's app, which deletes the app's state at server shutdown. The engine may live on."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    message = f"no route {scope['method']} {scope['path']}; available: {', '.join(sorted(ALLOWED))}"
    error = {"message": message, "type": "not_found_error", "param": None, "code": 404}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


async def build_openai_app(llm: Any, arguments: Any, template: str, tool_parser: str | None) -> Any:
    """vLLM's own OpenAI app over a running engine, without its middleware. `arguments`: vLLM's engine arguments."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    settings = Namespace(**(vars(FrontendArgs()) | vars(arguments)))
    settings.chat_template = template
    settings.enable_prompt_tokens_details = True  # `cached_tokens`; cache_salt keeps it to the caller's own prompts
    settings.tool_call_parser = tool_parser
    settings.enable_auto_tool_choice = tool_parser is not None
    tasks = await llm.get_supported_tasks()
    stream_events.install()
    app = build_app(settings, supported_tasks=tasks, model_config=llm.model_config)
    await init_app_state(llm, app.state, settings, tasks)
    plain_app.strip(app)
    app.state.server = SimpleNamespace()  # vLLM's error handler would stop the real server when the engine dies
    return app
