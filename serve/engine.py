"""vLLM as Ratchet sees it: versions come and go, every answer says which one made it, nothing is dropped.

The only file that names vllm, with its worker-side half (serve/engine_worker.py), its process (serve/engine_process.py)
and what it is told (serve/engine_arguments.py). Importing it is cheap: vLLM and torch
load in `start`. Every method belongs to one event loop.

    LoRA (`model.weights.kind: lora`)     versions are adapters side by side in one engine; each request keeps its own
    full, serving (`multiplex=False`)     one version at a time, swapped in place under its users by `stage` or `swap`
    full, shadow (`multiplex=True`)       one version at a time, any staged one on demand, in turns (serve/residency.py)

Private parts of vLLM 0.31 that this leans on are pinned by tests/real/test_engine.py.
"""

import asyncio
import contextlib
import os
import time
import uuid
from argparse import Namespace
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.artifacts import MANIFEST, verify
from core.clock import SystemClock
from core.codec import pack_floats, pack_ids
from core.config import EngineConfig, Lora, ModelConfig
from core.errors import ArtifactError, ConfigError, Overdue, PromptError, ProofError, Unavailable, VersionError
from core.messages import BASE, Candidate, ChatMessage, PolicyRef, Published, Sampling
from core.render import PLAIN_TEMPLATE, render_id
from serve import engine_process
from serve.engine_arguments import environment, vllm_arguments
from serve.front import AsgiApp, Front, Presence
from serve.residency import Residency

STOP_S = 10.0
ANSWER_S = 20.0
"""An engine that does not say that it lives for so long hangs; under Serve's own limit of 30 s for a health check."""
DRAIN_S = 120.0
QUANTUM_S = 5.0
"""How long users of a shadow engine's resident version may still enter while another version is waited for."""


@dataclass
class Staged:
    """A version that the engine holds, or can load."""

    published: Published
    lora: Any = None
    """vLLM's LoRARequest; None for whole models."""


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
        """`max_versions`: adapters held beside the base. `stat_loggers`: count vLLM's own metrics through Ray."""
        self._model = model
        self._config = engine
        self._lora = isinstance(model.weights, Lora)
        self._max_versions = max_versions
        self._seed = seed
        self._multiplex = multiplex and not self._lora
        self._stat_loggers = stat_loggers
        self._staged: dict[PolicyRef, Staged] = {}
        self._leaving: dict[PolicyRef, Staged] = {}
        self._adapters = 0
        self._resident = self._previous = BASE
        self._swapping = asyncio.Lock()
        self._broken: str | None = None
        self._ends: dict[str, Callable[[], None]] = {}
        """Whom to tell, by request, as each of its continuations ends."""
        self.pauses_s: deque[float] = deque(maxlen=1000)
        """How long the engine stood still for each version that came in, newest last."""
        self._inside = Presence()
        self._residency = Residency(self._switch, BASE, quantum_s=QUANTUM_S, clock=SystemClock())
        self._llm: Any = None
        self._front: AsgiApp | None = None
        self._routes: list[str] = []
        self.render_id = ""

    # --- life ---

    async def start(self) -> None:
        """Bring vLLM up and its OpenAI app with it. Raises: ConfigError for a model that cannot be served so."""
        for name, value in environment(self._model, self._config, gpu=not engine_process.cpu_build()).items():
            os.environ.setdefault(name, value)
        engine_process.begin()
        await asyncio.to_thread(self._load_tokenizer)
        self._limit = self._config.max_tokens
        arguments = vllm_arguments(self._model, self._config, self._max_versions, self._seed)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        engine_process.adopt()
        self._SamplingParams, self._final_only = SamplingParams, RequestOutputKind.FINAL_ONLY
        self._vllm_arguments = AsyncEngineArgs(**arguments)
        config = await asyncio.to_thread(self._vllm_arguments.create_engine_config)
        loggers: list[Any] | None = None
        if self._stat_loggers:
            from serve.engine_stats import stat_logger

            loggers = [stat_logger(self._ended)]
        self._llm = AsyncLLM.from_vllm_config(config, stat_loggers=loggers, disable_log_stats=True)
        try:
            if not self._lora:
                from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

                await self._llm.init_weight_transfer_engine(WeightTransferInitRequest({}))
            self._front = await self._build_app()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Refuse what waits and end the engine's process; idempotent, done in about STOP_S."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        await self._residency.close()
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # else it reports the end that we want as a crash
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S + 5):
                await asyncio.to_thread(llm.shutdown, STOP_S)

    @property
    def dead(self) -> bool:
        """Its process is gone, though nobody stopped it."""
        return self._llm is not None and self._llm.errored

    async def healthy(self) -> None:
        """Raises: Unavailable when the engine died, hangs, or holds weights of which nobody knows the version."""
        if self._llm is None:
            raise Unavailable("the engine is not running; start it, or ask another replica")
        if self._broken is not None:
            raise Unavailable(self._broken)
        try:
            await self._llm.check_health()
            if self._swapping.locked():  # serve.swap_timeout_s bounds that
                return
            async with asyncio.timeout(ANSWER_S):
                await self._llm.collective_rpc("ratchet_alive")  # answered between two steps, paused or not
        except TimeoutError:
            raise Unavailable(f"the engine did not answer for {ANSWER_S:.0f} s; its replica must be replaced") from None
        except Exception as error:
            raise Unavailable(f"the engine died ({error}); its replica must be replaced") from None

    # --- answering ---

    @property
    def limit(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._limit

    def render(self, messages: Sequence[ChatMessage], text: str = "") -> tuple[list[int], list[int]]:
        """Token ids of the context by the chat template, and of `text` as its completion, with the stop token."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        context = self._tokenizer.apply_chat_template(
            chat, chat_template=self._template, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        completion = self._tokenizer.encode(text, add_special_tokens=False)
        return list(context), [*completion, self._tokenizer.eos_token_id]

    async def generate(
        self,
        context: Sequence[ChatMessage] | Sequence[int],
        sampling: Sampling,
        ref: PolicyRef,
        *,
        priority: int = 0,
        ended: Callable[[], None] | None = None,
    ) -> list[Candidate]:
        """`sampling.n` continuations of messages or of context ids. A smaller priority goes first. `ended` is called as
        each of them ends, where `stat_loggers` are on.

        Raises: VersionError, PromptError for a context that leaves no room, Unavailable when the engine is gone."""
        ids = self._context_ids(context)
        async with self._using(ref) as (made_by, lora):
            start = made_by()
            output = await self._run(ids, self._params(sampling, len(ids)), lora, priority, ended)
            end = made_by()
        packed = pack_ids(ids)
        return [self._candidate(choice, packed, start, end, sampling) for choice in output.outputs]

    async def score(
        self, sequences: Sequence[Sequence[int]], ref: PolicyRef, *, priority: int = 0
    ) -> list[list[float]]:
        """Log-probability of every token but the first, at temperature 1 (nats); at most `max_tokens` tokens each."""
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
                raise PromptError(f"a sequence of {len(ids)} tokens to score, the engine holds {self._limit}")
        async with self._using(ref) as (_, lora), asyncio.TaskGroup() as tasks:
            scoring = [
                tasks.create_task(self._run(list(ids), params, lora, priority)) if len(ids) > 1 else None
                for ids in sequences
            ]
        return [_sampled_logprobs(task.result().prompt_logprobs) if task else [] for task in scoring]

    async def openai_app(self) -> AsgiApp:
        """vLLM's own OpenAI app, only its ALLOWED routes. A model name is `policy@v7`. A wrapper that knows the version
        says so in `scope["policy_version"]`, so that an unload waits for that version's requests only."""
        assert self._front is not None, "start() was not awaited"
        return self._front

    def routes(self) -> list[str]:
        """Every route that vLLM's app has mounted, reachable or not."""
        return self._routes

    # --- versions ---

    def loaded(self) -> list[PolicyRef]:
        """What `generate` answers with, oldest first."""
        if self._lora or self._multiplex:
            return [BASE, *sorted(self._staged, key=lambda ref: ref.version)]
        return [self._resident]

    async def stage(self, published: Published) -> None:
        """Make a version available; again for the same one does nothing. A serving engine of whole models swaps to it.

        Raises: VersionError when there is no room or the number is taken, ArtifactError for a damaged folder."""
        ref = published.ref
        held = self._staged.get(ref) or self._leaving.get(ref)
        if held is not None and held.published.fingerprint != published.fingerprint:
            raise VersionError(f"{ref} is held with fingerprint {held.published.fingerprint}; use a new number")
        if not self._lora and not self._multiplex:
            await self.swap(published)
        elif ref in self._leaving:
            raise VersionError(f"{ref} is coming or going; numbers are never used twice")
        elif ref not in self._staged and ref != BASE:
            await asyncio.to_thread(_check_folder, Path(published.path))
            if self._lora:
                await self._add_adapter(published)
            else:
                self._staged[ref] = Staged(published)

    async def unload(self, ref: PolicyRef) -> None:
        """Take no new requests for a version, wait for those it has, and free its place. A serving engine of whole
        models goes back to the version before.

        Raises: VersionError, Overdue when its requests do not end; it may be called again then."""
        if ref == BASE:
            raise VersionError("the base is never unloaded: anchors and reference log-probabilities come from it")
        if not self._lora and not self._multiplex:
            return await self._swap_away(ref)
        held = self._leaving.get(ref) or self._staged.pop(ref, None)
        if held is None:
            raise self._not_loaded(ref)
        self._leaving[ref] = held
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._inside.left(str(ref), None)
        except TimeoutError:
            raise Overdue(f"requests of {ref} did not end within {DRAIN_S:.0f} s; call unload again") from None
        if self._lora:
            # only now: vLLM looks the name up twice while it parses a request that was admitted before
            self._app_models.lora_requests.pop(str(ref), None)
            await self._llm.remove_lora(held.lora.lora_int_id)
        self._leaving.pop(ref, None)

    async def verify_weights(self, published: Published) -> list[str]:
        """What in the engine's memory differs, bit for bit, from the files of this version; empty when nothing does."""
        if published.ref != BASE and self._lora:
            adapter = self._held(published.ref).lora.lora_int_id
            return await self._ask_workers("ratchet_adapter_mismatches", adapter, str(Path(published.path).absolute()))
        async with self._using(published.ref):
            return await self._ask_workers("ratchet_model_mismatches", str(_local_folder(published.path)))

    async def weight_digests(self, ref: PolicyRef) -> dict[str, str]:
        """Digest of every tensor of a version as it lies in the engine's memory: packed, cast and padded."""
        if ref != BASE and self._lora:
            lines = await self._ask_workers("ratchet_adapter_digests", self._held(ref).lora.lora_int_id)
        else:
            async with self._using(ref):
                lines = await self._ask_workers("ratchet_model_digests")
        return dict(line.split(" ", 1) for line in lines)

    async def swap(self, target: Published | PolicyRef, *, check: bool = True) -> float:
        """Replace the whole model in place under its users and return the pause in seconds. Running requests go on
        with the new weights. `check` compares the engine's memory with the files before anybody is answered.

        Raises: ProofError or ArtifactError; the version before goes on answering then."""
        if self._lora:
            raise ConfigError("versions of this engine are adapters; stage and unload them, nothing is swapped")
        if isinstance(target, Published):
            await asyncio.to_thread(_check_folder, Path(target.path))
            self._staged[target.ref] = Staged(target)
        ref = target.ref if isinstance(target, Published) else target
        return await asyncio.shield(asyncio.ensure_future(self._swap(ref, check)))

    # --- the inside: requests ---

    def _context_ids(self, context: Sequence[ChatMessage] | Sequence[int]) -> list[int]:
        messages = [part for part in context if isinstance(part, ChatMessage)]
        ids = self.render(messages)[0] if messages else [part for part in context if isinstance(part, int)]
        if not 0 < len(ids) < self._limit:
            raise PromptError(
                f"the context has {len(ids)} tokens; an engine of {self._limit} takes 1 to {self._limit - 1}: "
                f"shorten it, or raise serve.engine.max_tokens"
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
            detokenize=False,  # once at the end is cheaper than at every token
            output_kind=self._final_only,
        )

    async def _run(
        self, ids: list[int], params: Any, lora: Any, priority: int, ended: Callable[[], None] | None = None
    ) -> Any:
        """One request to its end. A cancelled caller aborts it in the engine."""
        llm = self._llm
        if llm is None:
            raise Unavailable("the engine is not running; ask another replica")
        prompt = {"type": "token", "prompt_token_ids": ids}
        request_id = uuid.uuid4().hex
        options = {"request_id": request_id, "lora_request": lora, "priority": priority}
        if ended is not None:
            self._ends[request_id] = ended
        try:
            outputs = [output async for output in llm.generate(prompt, params, **options)]  # one, the final
        except ValueError as error:
            raise PromptError(str(error)) from None
        except Exception as error:
            raise Unavailable(f"the engine failed ({type(error).__name__}: {error}); ask another replica") from None
        finally:
            self._ends.pop(request_id, None)
        if not outputs or any(choice.finish_reason not in ("stop", "length") for choice in outputs[-1].outputs):
            raise Unavailable("the engine gave this request up; ask again")
        return outputs[-1]

    def _ended(self, request_id: str) -> None:
        if request_id in self._ends:
            self._ends[request_id]()

    def _candidate(
        self, choice: Any, context: bytes, start: PolicyRef, end: PolicyRef, sampling: Sampling
    ) -> Candidate:
        ids = list(choice.token_ids)
        return Candidate(
            id=uuid.uuid4().hex,
            start=start,
            end=end,
            context_ids=context,
            completion_ids=pack_ids(ids),
            text=self._tokenizer.decode(ids, skip_special_tokens=True),
            logprobs=pack_floats(_sampled_logprobs(choice.logprobs)) if sampling.logprobs else b"",
            finish=choice.finish_reason,
            render_id=self.render_id,
        )

    @contextlib.asynccontextmanager
    async def _using(self, ref: PolicyRef) -> AsyncIterator[tuple[Callable[[], PolicyRef], Any]]:
        """Keep a version in place meanwhile: gives who answers right now, and vLLM's LoRARequest."""
        if self._lora:
            lora = None if ref == BASE else self._held(ref).lora
            with self._inside.entered(str(ref)):
                yield lambda: ref, lora
        elif self._multiplex:
            if ref != BASE:
                self._held(ref)
            with self._inside.entered(str(ref)):
                async with self._residency.using(ref):
                    yield lambda: ref, None
        else:
            # A caller may still name the version that was swapped away a moment ago: a swap costs no request.
            if ref not in (self._resident, self._previous):
                raise self._not_loaded(ref)
            yield lambda: self._resident, None

    def _held(self, ref: PolicyRef) -> Staged:
        if ref not in self._staged:
            raise self._not_loaded(ref)
        return self._staged[ref]

    def _not_loaded(self, ref: PolicyRef) -> VersionError:
        return VersionError(f"{ref} is not loaded (loaded: {', '.join(map(str, self.loaded()))}); stage it first")

    # --- the inside: adapters ---

    async def _add_adapter(self, published: Published) -> None:
        from vllm.lora.request import LoRARequest

        held = len(self._staged) + len(self._leaving)
        if held >= self._max_versions:  # vLLM would silently evict the one that was used least recently
            names = ", ".join(map(str, [*self._staged, *self._leaving]))
            raise VersionError(
                f"no place for {published.ref}: {names} take all {self._max_versions}; unload one or raise max_versions"
            )
        self._adapters += 1
        lora = LoRARequest(str(published.ref), self._adapters, str(Path(published.path).absolute()))
        staged = self._leaving[published.ref] = Staged(published, lora)  # takes a place, not for use yet
        started = time.monotonic()
        try:
            await self._llm.add_lora(lora)
            self.pauses_s.append(time.monotonic() - started)
        except Exception as error:
            raise ArtifactError(f"{published.path} is no adapter of this model: {error}") from None
        finally:
            self._leaving.pop(published.ref, None)
        self._staged[published.ref] = staged
        self._app_models.lora_requests[lora.lora_name] = lora

    async def _ask_workers(self, method: str, *arguments: Any) -> list[str]:
        lines: list[str] = []
        for answer in await self._llm.collective_rpc(method, args=arguments):
            lines += [f"{name} {digest}" for name, digest in answer.items()] if isinstance(answer, dict) else answer
        return lines

    # --- the inside: whole models ---

    async def _switch(self, ref: PolicyRef) -> None:
        await self._swap(ref, check=False)

    async def _swap(self, ref: PolicyRef, check: bool) -> float:
        async with self._swapping:
            before = self._resident
            if ref == before:
                return 0.0
            folder = self._folder(ref)
            started = time.monotonic()
            await self._llm.pause_generation(mode="keep", clear_cache=True)
            try:
                await self._load(ref, folder, check)
            except Exception as error:
                await self._restore(before, error)
                self._staged.pop(ref, None)
                if isinstance(error, ProofError):
                    raise
                raise ArtifactError(f"{folder} cannot be loaded: {error}; {before} goes on answering") from None
            else:
                self._answer_as(ref)
            finally:
                await self._llm.resume_generation()
            self.pauses_s.append(time.monotonic() - started)
            return self.pauses_s[-1]

    async def _load(self, ref: PolicyRef, folder: str, check: bool) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.start_weight_update()
        await self._llm.update_weights(
            WeightTransferUpdateRequest({"path": folder, "like": str(_local_folder(self._model.path))})
        )
        await self._llm.finish_weight_update(weight_version=str(ref))
        if check and (mismatches := await self._ask_workers("ratchet_model_mismatches", folder)):
            raise ProofError(f"{ref}: {len(mismatches)} tensors differ in the engine, first: {mismatches[0]}")

    async def _restore(self, before: PolicyRef, error: Exception) -> None:
        """Layers may be half loaded: the version before is loaded again from its files."""
        try:
            await self._load(before, self._folder(before), check=True)
        except Exception as again:
            self._broken = (
                f"a swap failed ({error}) and {before} could not be loaded again ({again}); replace the replica"
            )

    def _answer_as(self, ref: PolicyRef) -> None:
        self._previous, self._resident = self._resident, ref
        if not self._multiplex:
            for old in [old for old in self._staged if old not in (self._resident, self._previous)]:
                del self._staged[old]
        names = dict.fromkeys([str(self._resident), str(self._previous)])
        self._app_models.base_model_paths[:] = [self._app_path(name) for name in names]

    async def _swap_away(self, ref: PolicyRef) -> None:
        if ref == self._resident:
            await self.swap(self._previous)
        elif self._staged.pop(ref, None) is None:
            raise self._not_loaded(ref)

    def _folder(self, ref: PolicyRef) -> str:
        path = self._model.path if ref == BASE else self._held(ref).published.path
        return str(_local_folder(path))

    # --- the inside: starting ---

    def _load_tokenizer(self) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(self._model.path)
        self._template = self._tokenizer.chat_template or PLAIN_TEMPLATE
        if not isinstance(self._template, str):
            raise ConfigError(f"{self._model.path} has several chat templates; keep one in its tokenizer_config.json")
        self.render_id = render_id(self._tokenizer.backend_tokenizer.to_str(), self._template)

    async def _build_app(self) -> AsgiApp:
        from starlette.datastructures import State
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import FrontendArgs

        settings = Namespace(**(vars(FrontendArgs()) | vars(self._vllm_arguments)))
        settings.chat_template = self._template
        tasks = await self._llm.get_supported_tasks()
        state = State()
        await init_app_state(self._llm, state, settings, tasks)
        app = build_app(settings, supported_tasks=tasks, model_config=self._llm.model_config)
        app.state._state.update(state._state)
        app.state.server = SimpleNamespace()  # its error handler would end this server when the engine died
        self._app_models = state.openai_serving_models
        self._routes = sorted({getattr(route, "path", "") for route in app.routes})
        return Front(app, self._inside)

    def _app_path(self, name: str) -> Any:
        from vllm.entrypoints.openai.models.protocol import BaseModelPath

        return BaseModelPath(name=name, model_path=self._model.path)


def _sampled_logprobs(flat: Any) -> list[float]:
    """vLLM's flat log-probabilities begin each position with the token that was sampled or given."""
    pairs = zip(flat.start_indices, flat.end_indices, strict=True)
    return [flat.logprobs[start] for start, end in pairs if end > start]


def _check_folder(path: Path) -> None:
    """Raises: ArtifactError unless the folder is whole; one without a manifest was not made by Ratchet."""
    if not path.is_dir():
        raise ArtifactError(f"{path} is no folder; a version is a folder of safetensors")
    if (path / MANIFEST).exists():
        verify(path)


def _local_folder(path: str) -> Path:
    """A model's folder on this machine; one named by hub is taken from the cache that starting the engine filled."""
    if Path(path).is_dir():
        return Path(path).absolute()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, local_files_only=True))
