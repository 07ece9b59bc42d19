"""Serving modes over HTTP: `policy:vote` samples one version many times and answers once.

A mode is a sampler and a scorer (methods/modes.py) and knows nothing of HTTP. Nothing is sent before its answer is
complete, so a failure still gets its status code, and the gateway may try another replica.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from core.chats import plain_chat
from core.clock import Clock
from core.codec import stable_id
from core.errors import RatchetError, VersionError
from core.messages import ChatMessage, PolicyRef, Prompt
from core.protocols import Mode, ModeAnswer, Policy
from serve.http.completion import Completion
from serve.http.errors import Refusal, refusal_for
from serve.http.pinned_policy import PinnedPolicy

T = TypeVar("T")
ROUTE = "/v1/chat/completions"
NEUTRAL: Mapping[str, Any] = {
    "n": 1,
    "stop": [],
    "tools": [],
    "logprobs": False,
    "response_format": {"type": "text"},
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
"""Values by which clients say that they do not use a parameter; null says the same."""
IGNORED = frozenset({"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields that change no answer."""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The fields of a chat completion that a mode accepts. `method.sampler` gives the defaults."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    temperature: float | None = Field(default=None, gt=0, le=5, allow_inf_nan=False)
    """Not 0: all samples would be the same."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """Of each sample."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """OpenAI's newer name of `max_tokens`."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _plain(cls, messages: Any) -> Any:
        return plain_chat(messages) if isinstance(messages, list) else messages

    @field_validator("messages")
    @classmethod
    def _in_utf_8(cls, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        for message in messages:
            message.content.encode()  # ValueError for half of a surrogate pair, which tokenizers refuse
        return messages

    def prompt(self) -> Prompt:
        parts = (part for message in self.messages for part in (message.role, message.content))
        return Prompt(id=stable_id("prompt", *parts), messages=self.messages, origin="live")

    def sampling(self) -> dict[str, Any]:
        """Those fields of `Sampling` that the client set."""
        given = self.model_dump(include={"temperature", "top_p", "max_tokens", "seed"}, exclude_none=True)
        return given if self.max_completion_tokens is None else {**given, "max_tokens": self.max_completion_tokens}


@dataclass(frozen=True)
class Modes:
    """Answers requests for a mode."""

    modes: Mapping[str, Mode]
    policy: Policy
    """Asks the engine at users' priority."""
    new_id: Callable[[], str]
    """The id of one answer, which no client can guess."""
    clock: Clock

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, fields: Mapping[str, Any], name: str, ref: PolicyRef
    ) -> int:
        """Send one request's answer, or its error, through `send`. When the client disconnects, sampling stops and
        nothing is sent. Returns the tokens generated for the request, hidden samples included.

        `ref`: the version that admitted the request. `receive`: only the messages after the body. `fields`: the parsed
        body, without the fields that steer the engine."""
        policy = PinnedPolicy(self.policy, ref, {})
        try:
            mode, request = self._mode(name), read(scope["path"], fields, name)
            policy = PinnedPolicy(self.policy, ref, request.sampling())
            answer = await unless_left(mode(request.prompt(), policy), receive)
            response = None if answer is None else self._response(request, answer, policy, f"{ref}:{name}")
        except VersionError as error:  # the version was unloaded after it admitted the request: not the client's fault
            response = Refusal(503, f"{error}; ask again", "unavailable_error").response()
        except (Refusal, RatchetError) as error:
            response = refusal_for(error).response()
        if response is not None:
            await response(scope, receive, send)
        return policy.tokens.total()

    def _mode(self, name: str) -> Mode:
        if name not in self.modes:
            there = ", ".join(sorted(self.modes)) or "none; set method.sampler.n >= 2 and a temperature above 0"
            raise Refusal(400, f"there is no serving mode `{name}`; available: {there}", param="model")
        return self.modes[name]

    def _response(self, request: ChatRequest, answer: ModeAnswer, policy: PinnedPolicy, model: str) -> Response:
        completion = Completion(self.new_id(), int(self.clock.now()), model, answer, policy)
        headers = {"x-vote-share": str(completion.share)}
        if not request.stream:
            return JSONResponse(completion.body(), headers=headers)
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        return Response(completion.stream(with_usage), headers=headers, media_type="text/event-stream")


def parse_model(name: Any) -> tuple[Any, str | None]:
    """`policy:vote` -> (`policy`, `vote`); a name without a colon has no mode."""
    if not isinstance(name, str) or ":" not in name:
        return name, None
    model, _, mode = name.rpartition(":")
    return model, mode


def read(path: str, fields: Mapping[str, Any], mode: str) -> ChatRequest:
    """The body as a request for a mode. Raises: Refusal 400 for another route, a parameter that modes do not support,
    or a wrong value."""
    if path != ROUTE:
        raise Refusal(400, f"the mode `{mode}` answers chats: ask at {ROUTE}, not at {path}", param="model")
    taken = ChatRequest.model_fields
    for name, value in fields.items():
        if name not in taken and name not in IGNORED and value not in (None, NEUTRAL.get(name)):
            why = f"{name}={repr(value)[:80]} is not possible in the mode `{mode}`; leave it out"
            raise Refusal(400, f"{why} (it takes {', '.join(sorted(taken))})", param=name)
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise refusal_for(error) from None


async def unless_left(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """The result of `work`, or None when the client disconnects first, which cancels `work`."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else leaving.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
