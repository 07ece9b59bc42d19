"""Serving modes over HTTP: `policy:vote` samples one version many times and answers once.

A mode (methods/modes) knows nothing of HTTP. Nothing is sent before its answer is complete, so a failure still gets its
status code, and the gateway may try another replica; only a client that asks to see the hidden work gets that at once.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from core.chats import plain_chat
from core.clock import Clock
from core.codec import stable_id
from core.config import ModesConfig
from core.errors import BudgetSpent, PromptError, RatchetError, VersionError
from core.messages import ChatMessage, PolicyRef, Prompt
from core.protocols import Mode, ModeAnswer, ModeSettings, Policy
from serve.http.completion import Completion
from serve.http.errors import Refusal, refusal_for
from serve.http.pinned_policy import Budget, PinnedPolicy

T = TypeVar("T")
Worked = tuple[ModeAnswer, str]
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

    def sampler(self) -> dict[str, Any]:
        """Those fields of `SamplerConfig` that the client set."""
        given = self.model_dump(include={"temperature", "top_p", "max_tokens"}, exclude_none=True)
        return given if self.max_completion_tokens is None else {**given, "max_tokens": self.max_completion_tokens}


@dataclass
class Telling:
    """Collects what a mode tells; implements `Progress`."""

    asides: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue[str | None])
    """Ends with None."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Something was told, or all work is over."""
    told: bool = False
    last: ModeAnswer | None = None

    def aside(self, text: str) -> None:
        self.asides.put_nowait(text)
        self.told = True
        self.begun.set()

    def end(self) -> None:
        self.asides.put_nowait(None)
        self.begun.set()

    def so_far(self, answer: ModeAnswer) -> None:
        self.last = answer

    def left(self) -> list[str]:
        told = [self.asides.get_nowait() for _ in range(self.asides.qsize())]
        return [text for text in told if text is not None]


@dataclass(frozen=True)
class Modes:
    """Answers requests for a mode."""

    modes: Mapping[str, Mode]
    policy: Policy
    """Asks the engine at users' priority."""
    new_id: Callable[[], str]
    """The id of one answer, which no client can guess."""
    clock: Clock
    config: ModesConfig = field(default_factory=ModesConfig)

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, fields: Mapping[str, Any], name: str, ref: PolicyRef
    ) -> int:
        """Send one request's answer, or its error, through `send`. When the client disconnects, sampling stops and
        nothing is sent. Returns the tokens generated for the request, hidden samples included.

        `ref`: the version that admitted the request. `receive`: only the messages after the body. `fields`: the parsed
        body, without the fields that steer the engine."""
        try:
            mode = self._mode(name)
            request, given = read(scope["path"], fields, name, mode)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return 0
        policy = PinnedPolicy(self.policy, ref, request.seed, self._budget(given))
        telling = Telling()
        work = asyncio.ensure_future(_worked(mode, request, policy, given, telling))
        try:
            response = await self._response(request, given, policy, f"{ref}:{name}", receive, telling, work)
            if response is not None:
                await response(scope, receive, send)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return policy.tokens.total()

    def _mode(self, name: str) -> Mode:
        if name not in self.modes:
            there = ", ".join(sorted(self.modes)) or "none"
            raise Refusal(400, f"there is no serving mode `{name}`; available: {there}{self._why_not}", param="model")
        return self.modes[name]

    @property
    def _why_not(self) -> str:
        sampling = any(mode.card.samples for mode in self.modes.values())
        return "" if sampling else " (those that vote need method.sampler.n >= 2 and a temperature above 0)"

    def _budget(self, given: ModeSettings) -> Budget:
        most = self.config.budget_tokens
        return Budget(min(most, given.budget_tokens or most), self.config.budget_samples)

    async def _response(
        self,
        request: ChatRequest,
        given: ModeSettings,
        policy: PinnedPolicy,
        model: str,
        receive: Receive,
        telling: Telling,
        work: "asyncio.Future[Worked]",
    ) -> Response | None:
        """None when the client left. A stream begins with the first hidden work that the client wants to see; without
        any, nothing is sent before the answer is complete."""
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        completion = Completion(self.new_id(), int(self.clock.now()), model, policy, with_usage)
        if request.stream and given.show:
            await unless_left(telling.begun.wait(), receive)
            if telling.told:
                return StreamingResponse(_streamed(completion, telling, work), media_type="text/event-stream")
        try:
            said = await unless_left(work, receive)
        except VersionError as error:  # the version was unloaded after it admitted the request: not the client's fault
            return Refusal(503, f"{error}; ask again", "unavailable_error").response()
        except (Refusal, RatchetError) as error:
            return refusal_for(error).response()
        if said is None:
            return None
        answer, spent = said
        share = {} if answer.share is None else {"x-vote-share": str(round(answer.share, 4))}
        if request.stream:
            events = completion.opening() + completion.closing(answer, spent)
            return Response(events, headers=share, media_type="text/event-stream")
        return JSONResponse(completion.body(answer, telling.left() if given.show else [], spent), headers=share)


async def _worked(
    mode: Mode, request: ChatRequest, policy: PinnedPolicy, given: ModeSettings, telling: Telling
) -> Worked:
    """The answer, and why it is only the best so far, if its budget or the engine's room for its turns ended. Raises:
    BudgetSpent or PromptError without any answer."""
    try:
        sampler = mode.shared.sampler.model_copy(update=request.sampler())
        return await mode.answer(replace(mode.shared, sampler=sampler), request.prompt(), policy, given, telling), ""
    except (BudgetSpent, PromptError) as error:
        if telling.last is None:
            raise
        return replace(telling.last, finish="length"), str(error)
    finally:
        telling.end()


async def _streamed(completion: Completion, telling: Telling, work: "asyncio.Future[Worked]") -> AsyncIterator[str]:
    try:
        yield completion.opening()
        while (text := await telling.asides.get()) is not None:
            yield completion.aside(text)
        yield completion.closing(*await work)
    except (Refusal, RatchetError) as error:  # the status is sent already
        refusal = refusal_for(error)
        body = {"error": {"message": refusal.message, "type": refusal.kind, "code": refusal.status}}
        yield f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n"


def parse_model(name: Any) -> tuple[Any, str | None]:
    """`policy:vote` -> (`policy`, `vote`); a name without a colon has no mode."""
    if not isinstance(name, str) or ":" not in name:
        return name, None
    model, _, mode = name.rpartition(":")
    return model, mode


def read(path: str, fields: Mapping[str, Any], name: str, mode: Mode) -> tuple[ChatRequest, ModeSettings]:
    """The body as a request for a mode, and what it sets under the mode's name. Raises: Refusal 400 for another route,
    a parameter that modes do not support, or a wrong value."""
    if path != ROUTE:
        raise Refusal(400, f"the mode `{name}` answers chats: ask at {ROUTE}, not at {path}", param="model")
    taken = ChatRequest.model_fields
    for field_name, value in fields.items():
        asks_for_nothing = value in (None, NEUTRAL.get(field_name))
        if field_name not in taken and field_name not in IGNORED and field_name != name and not asks_for_nothing:
            why = f"{field_name}={repr(value)[:80]} is not possible in the mode `{name}`; leave it out"
            raise Refusal(400, f"{why} (it takes {', '.join(sorted((*taken, name)))})", param=field_name)
    try:
        return ChatRequest.model_validate(fields), _given(fields.get(name), name, mode)
    except ValidationError as error:
        raise refusal_for(error) from None


def _given(value: Any, name: str, mode: Mode) -> ModeSettings:
    try:
        return mode.settings.model_validate({} if value is None else value)
    except ValidationError as error:
        refusal, taken = refusal_for(error), ", ".join(mode.settings.model_fields)
        raise Refusal(400, f"{name}.{refusal.message}; the mode `{name}` takes {taken}", param=name) from None


async def unless_left(work: Awaitable[T], receive: Receive) -> T | None:
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
