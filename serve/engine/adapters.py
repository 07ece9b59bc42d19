"""Holds several versions as LoRA adapters in one engine. Each request keeps the adapter it started with."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, VersionError
from core.messages import BASE, PolicyRef, Published
from serve.engine.in_flight import InFlight
from serve.engine.patches import private
from serve.engine.version_files import ask_workers, check_folder, check_same, drained, local_folder, not_loaded


@dataclass
class Adapter:
    published: Published
    lora: Any
    """vLLM's LoRARequest."""


class Adapters:
    def __init__(self, llm: Any, app_models: Any, in_flight: InFlight, room: int) -> None:
        """`app_models`: the model registry of vLLM's OpenAI app. `room`: the number of adapter slots in the engine."""
        self._llm = llm
        self._app_models = app_models
        self._in_flight = in_flight
        self._room = room
        self._held: dict[PolicyRef, Adapter] = {}
        self._coming_or_going: dict[PolicyRef, Adapter] = {}
        self._numbered = 0
        self.pauses_s: deque[float] = deque(maxlen=1000)

    def loaded(self) -> list[PolicyRef]:
        return [BASE, *sorted(self._held, key=lambda ref: ref.version)]

    async def stage(self, published: Published) -> None:
        ref = published.ref
        if known := self._held.get(ref) or self._coming_or_going.get(ref):
            check_same(known.published, published)
        if ref in self._coming_or_going:
            raise VersionError(f"{ref} is being loaded or unloaded; wait for that, or use a new number")
        if ref not in self._held and ref != BASE:
            await asyncio.to_thread(check_folder, Path(published.path))
            await self._add(published)

    async def unload(self, ref: PolicyRef) -> None:
        held = self._coming_or_going.get(ref) or self._held.pop(ref, None)
        if held is None:
            raise not_loaded(ref, self.loaded())
        self._coming_or_going[ref] = held
        await drained(self._in_flight, ref)
        # after the drain, because vLLM looks the name up twice while it parses a request
        private.forget_adapter(self._app_models, str(ref))
        await self._llm.remove_lora(held.lora.lora_int_id)
        self._coming_or_going.pop(ref, None)

    @asynccontextmanager
    async def using(self, ref: PolicyRef) -> AsyncIterator[tuple[Callable[[], PolicyRef], Any]]:
        lora = None if ref == BASE else self.adapter(ref)
        with self._in_flight.track(str(ref)):
            yield lambda: ref, lora

    def adapter(self, ref: PolicyRef) -> Any:
        """vLLM's LoRARequest. Raises: VersionError."""
        if ref not in self._held:
            raise not_loaded(ref, self.loaded())
        return self._held[ref].lora

    async def mismatches(self, published: Published) -> list[str]:
        if published.ref == BASE:
            return await ask_workers(self._llm, "ratchet_model_mismatches", str(local_folder(published.path)))
        adapter = self.adapter(published.ref).lora_int_id
        return await ask_workers(self._llm, "ratchet_adapter_mismatches", adapter, str(Path(published.path).absolute()))

    async def digests(self, ref: PolicyRef) -> list[str]:
        if ref == BASE:
            return await ask_workers(self._llm, "ratchet_model_digests")
        return await ask_workers(self._llm, "ratchet_adapter_digests", self.adapter(ref).lora_int_id)

    def swapping(self) -> bool:
        return False

    async def close(self) -> None: ...

    async def _add(self, published: Published) -> None:
        from vllm.lora.request import LoRARequest

        taken = [*self._held, *self._coming_or_going]
        if len(taken) >= self._room:  # vLLM would silently evict the least recently used adapter
            names = ", ".join(map(str, taken))
            raise VersionError(
                f"no slot for {published.ref}: {names} use all {self._room} slots; unload one or raise max_versions"
            )
        self._numbered += 1
        lora = LoRARequest(str(published.ref), self._numbered, str(Path(published.path).absolute()))
        adapter = self._coming_or_going[published.ref] = Adapter(published, lora)  # takes a slot; not used yet
        started = time.monotonic()
        try:
            await self._llm.add_lora(lora)
            self.pauses_s.append(time.monotonic() - started)
        except Exception as error:
            raise ArtifactError(f"{published.path} is not an adapter of this model: {error}") from None
        finally:
            self._coming_or_going.pop(published.ref, None)
        self._held[published.ref] = adapter
        private.name_adapter(self._app_models, lora)
