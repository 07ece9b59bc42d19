"""Wraps vLLM's AsyncLLM: loads and unloads versions while it serves, and names the version of every answer.

Only serve/engine/ imports vllm. This file has the engine's start and stop, its answers and its OpenAI app. Importing it
is cheap, because `start` imports vLLM and torch. Call all methods from one event loop.

    LoRA (`model.weights.kind: lora`)     several versions at once, as adapters (adapters.py)
    full, serving (`multiplex=False`)     one version at a time, swapped in place while requests run (full_weights.py)
    full, shadow (`multiplex=True`)       one version at a time, switched on demand (time_sharing.py)

serve/engine/patches/ has all uses of vLLM's private parts.
"""

import asyncio
import contextlib
import os
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from core.chat_template import PLAIN_TEMPLATE, context_ids, render_id, rendered
from core.codec import pack_floats, pack_ids
from core.config import EngineConfig, Lora, ModelConfig
from core.errors import ConfigError, PromptError, Unavailable, VersionError
from core.messages import BASE, Candidate, ChatMessage, PolicyRef, Prompt, Published, Sampling
from serve.engine.adapters import Adapters
from serve.engine.arguments import environment, vllm_arguments
from serve.engine.full_weights import FullWeights
from serve.engine.in_flight import InFlight
from serve.engine.openai_app import AsgiApp, OpenAIApp, build_openai_app
from serve.engine.patches import cpu_build, fork_server, private

STOP_S = 10.0
ANSWER_S = 20.0
"""An engine that does not answer a health check for this long hangs. Serve's own limit for a health check is 30 s."""


class Engine:
    def __init__(
        self,
        model: ModelConfig,
        engine: EngineConfig,
        *,
        max_versions: int,
        seed: int,
        multiplex: bool = False,
        stat_loggers: bool = False,
    ) -> None:
        """`max_versions`: adapters held beside the base. `stat_loggers`: export vLLM's own metrics through Ray."""
        self._model = model
        self._config = engine
        self._lora = isinstance(model.weights, Lora)
        self._max_versions = max_versions
        self._seed = seed
        self._multiplex = multiplex and not self._lora
        self._stat_loggers = stat_loggers
        self._ends: dict[str, Callable[[], None]] = {}
        """By request id: the callback for the end of each of its continuations."""
        self._in_flight = InFlight()
        self._llm: Any = None
        self._openai_app: AsgiApp | None = None
        self._routes: list[str] = []
        self.render_id = ""

    # --- start and stop ---

    async def start(self) -> None:
        """Start vLLM and its OpenAI app. Raises: ConfigError for a model that cannot be served with these settings."""
        for name, value in environment(self._model, self._config, gpu=not cpu_build()).items():
            os.environ.setdefault(name, value)
        fork_server.begin()
        await asyncio.to_thread(self._load_tokenizer)
        self._limit = self._config.max_tokens
        arguments = vllm_arguments(self._model, self._config, self._max_versions, self._seed)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        fork_server.adopt()
        self._SamplingParams, self._final_only = SamplingParams, RequestOutputKind.FINAL_ONLY
        self._vllm_arguments = AsyncEngineArgs(**arguments)
        config = await asyncio.to_thread(self._vllm_arguments.create_engine_config)
        loggers = _stat_loggers(lambda id: self._ends.get(id, _ignore)()) if self._stat_loggers else None
        self._llm = AsyncLLM.from_vllm_config(config, stat_loggers=loggers, disable_log_stats=True)
        try:
            if not self._lora:
                from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

                await self._llm.init_weight_transfer_engine(WeightTransferInitRequest({}))
            self._openai_app, self._versions = await self._build_app()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Refuse waiting requests and end the engine process. Idempotent; takes about STOP_S."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if self._openai_app is not None:
            await self._versions.close()
        private.stop_listening(llm)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S + 5):
                await asyncio.to_thread(llm.shutdown, STOP_S)

    @property
    def dead(self) -> bool:
        """The engine process ended without a call of `stop`."""
        return self._llm is not None and self._llm.errored

    async def healthy(self) -> None:
        """Raises: Unavailable when the engine died, hangs, or holds weights of an unknown version."""
        if self._llm is None:
            raise Unavailable("the engine is not running; start it, or ask another replica")
        swapping = self._versions.swapping()
        try:
            await self._llm.check_health()
            if swapping:  # serve.swap_timeout_s bounds a swap
                return
            async with asyncio.timeout(ANSWER_S):
                await self._llm.collective_rpc("ratchet_alive")  # answered between two steps, also while paused
        except TimeoutError:
            raise Unavailable(f"the engine did not answer for {ANSWER_S:.0f} s; its replica must be replaced") from None
        except Exception as error:
            raise Unavailable(f"the engine died ({error}); its replica must be replaced") from None

    # --- answers ---

    @property
    def limit(self) -> int:
        """The most tokens that a prompt and its answer may have together."""
        return self._limit

    def render(self, context: Prompt | Sequence[ChatMessage], text: str = "") -> tuple[list[int], list[int]]:
        """Token ids of the context in the chat template, and of `text` as its completion, with the stop token.

        Raises: PromptError for messages that the template refuses."""
        here = (self._tokenizer, self._template)
        ids = context_ids(*here, context) if isinstance(context, Prompt) else rendered(*here, context)
        completion = self._tokenizer.encode(text, add_special_tokens=False)
        return ids, [*completion, self._tokenizer.eos_token_id]

    async def generate(
        self,
        context: Prompt | Sequence[ChatMessage] | Sequence[int],
        sampling: Sampling,
        ref: PolicyRef,
        *,
        priority: int = 0,
        ended: Callable[[], None] | None = None,
    ) -> list[Candidate]:
        """`sampling.n` continuations of a prompt, of messages or of context ids. Smaller priorities go first. With
        `stat_loggers` on, `ended` is called at the end of each continuation.

        Raises: VersionError, PromptError for a context that leaves no room or that the chat template refuses,
        Unavailable when the engine is gone."""
        ids = self._context_ids(context)
        async with self._versions.using(ref) as (made_by, lora):
            start = made_by()
            output = await self._run(ids, self._params(sampling, len(ids)), lora, priority, ended)
            end = made_by()
        packed = pack_ids(ids)
        name = uuid.uuid4().hex
        return [
            self._candidate(f"{name}-{choice.index}", choice, packed, start, end, sampling) for choice in output.outputs
        ]

    async def score(
        self, sequences: Sequence[Sequence[int]], ref: PolicyRef, *, priority: int = 0
    ) -> list[list[float]]:
        """Log-probability (nats) of every token but the first, at temperature 1. At most `max_tokens` per sequence."""
        params = self._SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            skip_reading_prefix_cache=True,  # cached tokens have no log-probabilities
            output_kind=self._final_only,
        )
        for ids in sequences:
            if len(ids) > self._limit:
                raise PromptError(
                    f"a sequence to score has {len(ids)} tokens, the engine holds {self._limit}; "
                    f"shorten it, or raise serve.engine.max_tokens"
                )
        async with self._versions.using(ref) as (_, lora), asyncio.TaskGroup() as tasks:
            scoring = [
                tasks.create_task(self._run(list(ids), params, lora, priority)) if len(ids) > 1 else None
                for ids in sequences
            ]
        return [_sampled_logprobs(task.result().prompt_logprobs) if task else [] for task in scoring]

    async def openai_app(self) -> AsgiApp:
        """vLLM's own OpenAI app with only its ALLOWED routes. Model names are such as `policy@v7`. A caller that knows
        the version sets `scope["policy_version"]`; an unload then waits only for requests of its own version."""
        assert self._openai_app is not None, "start() was not awaited"
        return self._openai_app

    def routes(self) -> list[str]:
        """All routes that vLLM's app mounts, also those that are not reachable."""
        return self._routes

    # --- versions ---

    @property
    def pauses_s(self) -> deque[float]:
        """How long the engine paused to load each version, in seconds; newest last."""
        return self._versions.pauses_s

    def loaded(self) -> list[PolicyRef]:
        """The versions that `generate` can use, oldest first."""
        return self._versions.loaded()

    async def stage(self, published: Published) -> None:
        """Load a version; does nothing for a loaded one. A serving engine with full weights swaps to it.

        Raises: VersionError when no slot is free or the number is taken, ArtifactError for a damaged folder."""
        await self._versions.stage(published)

    async def unload(self, ref: PolicyRef) -> None:
        """Refuse new requests for a version, wait for its requests in flight, and free its slot. A serving engine with
        full weights swaps back to the previous version.

        Raises: VersionError; Overdue when the requests do not end, and then `unload` may be called again."""
        if ref == BASE:
            raise VersionError("the base is never unloaded: anchors and reference log-probabilities need it")
        await self._versions.unload(ref)

    async def swap(self, target: Published | PolicyRef, *, check: bool = True) -> float:
        """Replace the full weights in place while requests run; returns the pause in seconds. Running requests continue
        with the new weights. `check`: compare the engine's memory with the files before it answers again.

        Raises: ProofError or ArtifactError; the previous version then continues to answer."""
        if isinstance(self._versions, Adapters):
            raise ConfigError("this engine holds versions as adapters, which are not swapped; use stage and unload")
        return await self._versions.swap(target, check=check)

    async def verify_weights(self, published: Published) -> list[str]:
        """One line for each tensor in the engine's memory that differs from this version's files in any bit."""
        return await self._versions.mismatches(published)

    async def weight_digests(self, ref: PolicyRef) -> dict[str, str]:
        """Digest of every tensor of a version in the engine's memory layout: packed, cast and padded."""
        return dict(line.split(" ", 1) for line in await self._versions.digests(ref))

    # --- internals: requests ---

    def _context_ids(self, context: Prompt | Sequence[ChatMessage] | Sequence[int]) -> list[int]:
        if isinstance(context, Prompt) or isinstance(next(iter(context), None), ChatMessage):
            ids = self.render(cast("Prompt | Sequence[ChatMessage]", context))[0]
        else:
            ids = list(cast(Sequence[int], context))
        if not 0 < len(ids) < self._limit:
            accepted = f"this engine accepts 1 to {self._limit - 1}"
            raise PromptError(
                f"the context has {len(ids)} tokens; {accepted}: shorten it, or raise serve.engine.max_tokens"
            )
        return ids

    def _params(self, sampling: Sampling, context: int) -> Any:
        return self._SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, self._limit - context),
            seed=sampling.seed,
            logprobs=0 if sampling.logprobs else None,
            flat_logprobs=sampling.logprobs,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=bool(sampling.stop),
            detokenize=bool(sampling.stop),  # decoding once at the end is cheaper than at every token
            output_kind=self._final_only,
        )

    async def _run(
        self, ids: list[int], params: Any, lora: Any, priority: int, ended: Callable[[], None] | None = None
    ) -> Any:
        """Run one request to its end. Cancelling the caller aborts it in the engine."""
        llm = self._llm
        if llm is None:
            raise Unavailable("the engine is not running; ask another replica")
        prompt = {"type": "token", "prompt_token_ids": ids}
        request_id = uuid.uuid4().hex
        options = {"request_id": request_id, "lora_request": lora, "priority": priority}
        if ended is not None:
            self._ends[request_id] = ended
        try:
            outputs = [output async for output in llm.generate(prompt, params, **options)]  # only the final one
        except ValueError as error:
            raise PromptError(str(error)) from None
        except Exception as error:
            raise Unavailable(f"the engine failed ({type(error).__name__}: {error}); ask another replica") from None
        finally:
            self._ends.pop(request_id, None)
        if not outputs or any(choice.finish_reason not in ("stop", "length") for choice in outputs[-1].outputs):
            raise Unavailable("the engine aborted this request; send it again")
        return outputs[-1]

    def _candidate(
        self, id: str, choice: Any, context: bytes, start: PolicyRef, end: PolicyRef, sampling: Sampling
    ) -> Candidate:
        ids = list(choice.token_ids)
        return Candidate(
            id=id,
            start=start,
            end=end,
            context_ids=context,
            completion_ids=pack_ids(ids),
            text=self._tokenizer.decode(ids, skip_special_tokens=True),
            logprobs=pack_floats(_sampled_logprobs(choice.logprobs)) if sampling.logprobs else b"",
            finish="stop_string" if isinstance(choice.stop_reason, str) else choice.finish_reason,
            render_id=self.render_id,
        )

    # --- internals: start ---

    def _load_tokenizer(self) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(self._model.path)
        self._template = self._tokenizer.chat_template or PLAIN_TEMPLATE
        if not isinstance(self._template, str):
            raise ConfigError(f"{self._model.path} has several chat templates; keep only one in tokenizer_config.json")
        _check_template(self._tokenizer, self._template, self._model.path)
        self.render_id = render_id(self._tokenizer.backend_tokenizer.to_str(), self._template)

    async def _build_app(self) -> tuple[AsgiApp, Adapters | FullWeights]:
        """vLLM's app behind the allow-list, and the object that holds the versions."""
        app = await build_openai_app(self._llm, self._vllm_arguments, self._template, self._config.tool_parser)
        self._routes = sorted({getattr(route, "path", "") for route in app.routes})
        openai_app = OpenAIApp(app, self._in_flight)
        shared = (self._llm, app.state.openai_serving_models, self._in_flight)
        if self._lora:
            return openai_app, Adapters(*shared, self._max_versions)
        return openai_app, FullWeights(*shared, self._model.path, self._multiplex)


def _check_template(tokenizer: Any, template: str, path: str) -> None:
    """Raises: ConfigError for a template that refuses even one message of a user, as it would every prompt."""
    try:
        rendered(tokenizer, template, [ChatMessage(role="user", content="Hello")])
    except PromptError as error:
        raise ConfigError(f"{path}: {error}; correct chat_template in tokenizer_config.json") from None


def _ignore() -> None: ...


def _stat_loggers(ended: Callable[[str], None]) -> list[Any]:
    from serve.engine.patches.stat_logger import stat_logger  # which imports vllm

    return [stat_logger(ended)]


def _sampled_logprobs(flat: Any) -> list[float]:
    """In vLLM's flat log-probabilities each position begins with the sampled or given token."""
    pairs = zip(flat.start_indices, flat.end_indices, strict=True)
    return [flat.logprobs[start] for start, end in pairs if end > start]
