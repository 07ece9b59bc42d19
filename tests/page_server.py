"""Serves the status page for a fake run, with a fake model and fake feedback routes."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.errors import RatchetError
from serve.http.page import page_routes

EVIL = "<img src=x onerror=\"document.title='broken in'\"> and <b>bold</b>"


def row(number: int, verdict: str, accuracy: float | None, probes: int = 0, **more: Any) -> dict[str, Any]:
    half = 0.04
    return {
        "version": number,
        "verdict": verdict,
        "standing": "" if verdict in ("base", "undecided") else "guarded",
        "probes": probes,
        "agreement": None if verdict in ("base", "undecided") else 0.6 + number / 50,
        "champion_agreement": None if verdict in ("base", "undecided") else 0.6,
        "accuracy": accuracy,
        "low": None if accuracy is None else accuracy - half,
        "high": None if accuracy is None else accuracy + half,
        "reason": "",
        "monitors": {} if accuracy is None else {"flexible_ratio": accuracy + 0.05, "entropy_nats": 4.1 - accuracy},
        **more,
    }


def made_up() -> dict[str, Any]:
    better = "at most 0.03 worse after 28 probes (chance of error 0.03), and better: the new champion"
    return {
        "at": 1795278883.5,
        "slots": {
            "serve": {"version": 7, "state": "promoted", "standing": "guarded"},
            "explore": {"version": 8, "state": "proven", "standing": ""},
            "champion": {"version": 5, "state": "promoted", "standing": "guarded"},
            "candidate": {"version": 8, "state": "proven", "standing": ""},
        },
        "versions": [
            row(0, "base", 0.337),
            row(1, "promote", 0.543, 28, reason=better),
            row(2, "promote", 0.581, 212, reason="at most 0.03 worse after 212 probes"),
            row(3, "reject", 0.475, 96, reason="worse than the champion: 20 to 1 after 96 probes"),
            row(4, "hold", 0.588, 2000, reason="undecided after 2000 probes"),
            row(5, "promote", 0.634, 61, reason=better),
            row(6, "rolled back", 0.622, 340, reason="at most 0.03 worse after 340 probes"),
            row(7, "promote", 0.661, 188, reason="at most 0.03 worse after 188 probes"),
            row(8, "undecided", None),
        ],
        "held": None,
        "waiting": None,
        "paused": None,
        "disk_full": None,
        "tokens": {"users": 0, "learning": 0, "gate": 0, "report": 0},
        "learning": {
            "waiting": 143,
            "capacity": 96,
            "outstanding": 48,
            "lag": 1,
            "windows_drawn": 8,
            "vote_share": 0.823,
            "trainer": "training v9",
            "weighing": 8,
        },
        "replicas": [
            {
                "name": f"policy#PolicyReplica#{name}",
                "silent": False,
                "serving": 7,
                "proven": [0, 5, 7, 8],
                "failed": {},
                "users": 2,
                "background": 14,
                "swaps": 9,
            }
            for name in ("a8k2x1vq.4711", "p0q7c3zd.4735")
        ],
        "events": [
            event(1, 0, "measured", "v0 accuracy 33.7% (30.0-37.5, 600 questions, report only)"),
            event(2, 4, "drawn", "window 7: 288 prompts, 558 examples to train on"),
            event(3, 9, "published", "v7 trained: loss 0.041, 2.1 s"),
            event(4, 10, "proven", "v7 proven in every replica; collectors sample from it"),
            event(5, 16, "decided", "v7 promote (guarded): at most 0.03 worse after 188 probes (chance of error 0.03)"),
            event(6, 24, "measured", "v7 accuracy 66.1% (62.2-69.8, 600 questions, report only)"),
            event(7, 31, "voted", "people cast 3 votes; 2 prompts settled again"),
            event(8, 40, "proven", "v8 proven in every replica; collectors sample from it"),
        ],
        "away": {},
    }


def event(id: int, after_s: float, kind: str, text: str) -> dict[str, Any]:
    return {"id": id, "at": 1795278843.0 + after_s, "kind": kind, "text": text}


class PageServer:
    """Runs uvicorn in its own thread. `overview` is the state of the fake run."""

    def __init__(self, every_s: float = 0.1, stream_s: float = 2.0, key: str | None = None) -> None:
        self.overview: dict[str, Any] | RatchetError = made_up()
        self.polls = 0
        self.answer = "Tom has 26 tickets. 21+26=47. The answer is 47."
        self.asked: list[dict[str, Any]] = []
        self.votes: list[dict[str, Any]] = []
        self.watching = 0
        self.url = ""
        self._key = key
        self._up = threading.Event()
        routes = page_routes(self._say, every_s, stream_s)
        fakes = [
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/feedback", self._feedback, methods=["POST"]),
        ]
        self._app = Starlette(routes=[*routes, *fakes])
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "PageServer":
        self._thread.start()
        assert self._up.wait(20), "the server did not start within 20 s"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    async def _serve(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings: dict[str, Any] = {"lifespan": "off", "interface": "asgi3", "timeout_graceful_shutdown": 1}
        config = uvicorn.Config(self._guarded, log_level="error", **settings)
        self._server = uvicorn.Server(config)
        self._up.set()
        await self._server.serve([listening])

    async def _guarded(self, scope: Any, receive: Any, send: Any) -> None:
        """Checks the API key if one is set, and counts the open streams."""
        needs_key = scope["path"] == "/events" or scope["path"].startswith("/v1/")
        if self._key and needs_key and Request(scope).headers.get("authorization") != f"Bearer {self._key}":
            return await JSONResponse({"error": {"message": "no such key"}}, 401)(scope, receive, send)
        watches = scope["path"] == "/events"
        self.watching += watches
        try:
            await self._app(scope, receive, send)
        finally:
            self.watching -= watches

    async def _say(self) -> dict[str, Any]:
        self.polls += 1
        if isinstance(self.overview, RatchetError):
            raise self.overview
        return {**self.overview, "at": self.overview["at"] + self.polls}

    async def _models(self, _: Request) -> Response:
        modes = [{"id": "policy:vote", "needs": []}, {"id": "policy:reflect", "needs": ["feedback"]}]
        versions = [{"id": name} for name in ("policy@v0", "policy@v5")]
        return JSONResponse({"object": "list", "data": [{"id": "policy"}, *modes, *versions]})

    async def _chat(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked)
        works = ":" in asked["model"]

        async def chunks() -> AsyncIterator[str]:
            if works:
                hidden = {"choices": [{"index": 0, "delta": {"reasoning_content": "5 of 8 <b>samples</b>\n\n"}}]}
                yield f"data: {json.dumps({**hidden, 'id': 'chatcmpl-1'})}\n\n"
            for piece in self.answer.split(" "):
                delta = {"choices": [{"index": 0, "delta": {"content": f"{piece} "}}], "id": "chatcmpl-1"}
                yield f"data: {json.dumps(delta)}\n\n"
                await asyncio.sleep(0.01)
            if works:
                end = {"choices": [{"index": 0, "delta": {}}], "vote": {"share": 0.857, "asked": 7}}
                yield f"data: {json.dumps({**end, 'id': 'chatcmpl-1'})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream", headers={"x-policy-version": "7"})

    async def _feedback(self, request: Request) -> Response:
        vote = await request.json()
        if vote.get("correction") == "":
            return JSONResponse({"error": {"message": "the correction is empty; write one"}}, 400)
        self.votes.append(vote)
        result = "waiting" if "correction" in vote else "counted"
        return JSONResponse({"results": [{"id": f"vote-{len(self.votes)}", "result": result}]})
