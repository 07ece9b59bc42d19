"""Between HTTP and a serving mode: `policy:vote` asks one version many times and answers once.

The mode is built elsewhere, from a sampler and a scorer, and knows nothing of HTTP. What it asks goes through `PinnedPolicy`,
which pins the version, sets what the client wants of each sample, and counts. Nothing is sent before the answer is
there, so that a failure still has its status, and another replica may be asked.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from core.clock import Clock
from core.codec import stable_id
from core.errors import RatchetError, VersionError
from core.messages import Candidate, ChatMessage, PolicyRef, Prompt, Sampling
from core.protocols import Mode, ModeAnswer, Policy
from serve.http.completion import Completion
from serve.http.errors import Refusal, refusal_for

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
"""What clients send of a parameter that they do not use; null is as good."""
IGNORED = frozenset({"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Changes no answer."""


class NewId(Protocol):
    def __call__(self) -> str:
        """The id of one answer, which nobody can guess."""
        ...


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What a mode takes of a chat completion. What is left out is as `method.sampler` has it."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    temperature: float | None = Field(default=None, gt=0, le=5, allow_inf_nan=False)
    """0 would make all samples one."""
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
    def _without_empty_fields(cls, messages: Any) -> Any:
        """An answer that is sent back as part of a chat has fields that say nothing, as `refusal: null`."""
        if not isinstance(messages, list):
            return messages
        return [{k: v for k, v in m.items() if v not in (None, [])} if isinstance(m, dict) else m for m in messages]

    @field_validator("messages")
    @classmethod
    def _in_utf_8(cls, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        for message in messages:
            message.content.encode()  # raises a ValueError for half of a surrogate pair, which no tokenizer takes
        return messages

    def prompt(self) -> Prompt:
        parts = (part for message in self.messages for part in (message.role, message.content))
        return Prompt(id=stable_id("prompt", *parts), messages=self.messages, origin="live")

    def wishes(self) -> dict[str, Any]:
        """What the client said of the samples, as fields of Sampling."""
        said = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "seed": self.seed,
        }
        return {name: value for name, value in said.items() if value is not None}


class PinnedPolicy:
    """The policy of one request: its version, its client's wishes, and what it has cost so far."""

    def __init__(self, policy: Policy, ref: PolicyRef, wishes: Mapping[str, Any]) -> None:
        self._policy, self._ref, self._wishes = policy, ref, wishes
        self._made_by: set[PolicyRef] = set()
        self.tokens: Counter[str] = Counter()
        self.asked = 0
        """Continuations sampled."""
        self.prompt_tokens = 0
        """Read: each context once a call, as the engine reads it once for all samples; and texts that were scored."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        wanted = sampling.model_copy(update=self._wishes)
        candidates = await self._policy.generate(prompt, wanted, ref or self._ref)
        self.asked += len(candidates)
        self.prompt_tokens += len(candidates[0].context_ids) // 4
        self.tokens[sampling.purpose] += sum(len(c.completion_ids) // 4 for c in candidates)
        self._made_by |= {made for c in candidates for made in (c.start, c.end)}
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        found = await self._policy.logprobs(prompt, text, ref or self._ref)
        self.prompt_tokens += len(found)
        return found

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return await self._policy.render(prompt, text)

    @property
    def versions(self) -> str:
        """The version, or the first and the last where it was swapped in between."""
        first, *rest = sorted(self._made_by or {self._ref}, key=lambda ref: ref.version)
        return f"{first}..v{rest[-1].version}" if rest else str(first)


@dataclass(frozen=True)
class Modes:
    """Answers requests for a mode. The policy asks at users' priority."""

    modes: Mapping[str, Mode]
    policy: Policy
    new_id: NewId
    clock: Clock

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, fields: Mapping[str, Any], name: str, ref: PolicyRef
    ) -> int:
        """Answer one request in the mode `name` by the version that admitted it, or say why not; a client that leaves
        ends the sampling. Returns the tokens generated for it, hidden ones too.

        `receive`: what comes after the body. `fields`: the body, without what is not the client's to say."""
        asking = PinnedPolicy(self.policy, ref, {})
        try:
            mode, request = self._mode(name), read(scope["path"], fields, name)
            asking = PinnedPolicy(self.policy, ref, request.wishes())
            said = await unless_left(mode(request.prompt(), asking), receive)
            response = None if said is None else self._response(request, said, asking, f"{ref}:{name}")
        except Refusal as refusal:
            response = refusal.response()
        except VersionError as error:  # unloaded since it was admitted: not the client's fault
            response = Refusal(503, f"{error}; ask again", "unavailable_error").response()
        except RatchetError as error:
            response = refusal_for(error).response()
        if response is not None:
            await response(scope, receive, send)
        return asking.tokens.total()

    def _mode(self, name: str) -> Mode:
        if name not in self.modes:
            there = ", ".join(sorted(self.modes)) or "none; set method.sampler.n >= 2 and a temperature above 0"
            raise Refusal(400, f"there is no serving mode `{name}`; available: {there}", param="model")
        return self.modes[name]

    def _response(self, request: ChatRequest, said: ModeAnswer, asking: PinnedPolicy, model: str) -> Response:
        completion = Completion(
            id=self.new_id(),
            created_s=int(self.clock.now()),
            model=model,
            versions=asking.versions,
            said=said,
            asked=asking.asked,
            prompt_tokens=asking.prompt_tokens,
            completion_tokens=asking.tokens.total(),
        )
        headers = {"x-vote-share": str(completion.share)}
        if not request.stream:
            return JSONResponse(completion.body(), headers=headers)
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        return Response(completion.stream(with_usage), headers=headers, media_type="text/event-stream")


def parse_model(name: Any) -> tuple[Any, str | None]:
    """`policy:vote` -> `policy` and the mode `vote`; without a colon the whole name, and no mode."""
    if not isinstance(name, str) or ":" not in name:
        return name, None
    model, _, mode = name.rpartition(":")
    return model, mode


def read(path: str, fields: Mapping[str, Any], mode: str) -> ChatRequest:
    """Raises: Refusal 400 for another route, for a parameter that the mode cannot honour, and for a wrong value."""
    if path != ROUTE:
        raise Refusal(400, f"the mode `{mode}` answers chats: ask at {ROUTE}, not at {path}", param="model")
    taken = ChatRequest.model_fields
    for name, value in fields.items():
        if name not in taken and name not in IGNORED and value not in (None, NEUTRAL.get(name)):
            said = f"{name}={repr(value)[:80]} is not possible in the mode `{mode}`; leave it out"
            raise Refusal(400, f"{said} (it takes {', '.join(sorted(taken))})", param=name)
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> Refusal:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    said = f"{where}: {first['msg']} (got {repr(first['input'])[:80]})"
    return Refusal(400, said, param=str(first["loc"][0]))


async def unless_left(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """What `work` gives, or None when the client left before; the work is cancelled then."""
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
