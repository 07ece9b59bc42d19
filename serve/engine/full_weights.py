"""Holds one version at a time as full weights in an engine, and swaps it in place while requests run."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from core.clock import SystemClock
from core.errors import ArtifactError, ProofError, Unavailable, VersionError
from core.messages import BASE, PolicyRef, Published
from serve.engine.in_flight import InFlight
from serve.engine.patches import private
from serve.engine.time_sharing import TimeSharing
from serve.engine.version_files import ask_workers, check_folder, check_same, drained, local_folder, not_loaded

QUANTUM_S = 5.0
"""While a request waits for another version, a shadow engine admits the resident version's requests for this long."""


class FullWeights:
    """A serving engine answers with one version; `stage` and `swap` replace it. A shadow engine (`multiplex`) accepts
    requests for any number of staged versions, and each request waits until its version is resident."""

    def __init__(self, llm: Any, app_models: Any, in_flight: InFlight, model: str, multiplex: bool) -> None:
        """`app_models`: the model registry of vLLM's OpenAI app."""
        self._llm = llm
        self._app_models = app_models
        self._in_flight = in_flight
        self._model = model
        self._multiplex = multiplex
        self._staged: dict[PolicyRef, Published] = {}
        self._leaving: dict[PolicyRef, Published] = {}
        self._resident = self._previous = BASE
        self._swapping = asyncio.Lock()
        self._time_sharing = TimeSharing(self._switch, BASE, quantum_s=QUANTUM_S, clock=SystemClock())
        self._broken: str | None = None
        self.pauses_s: deque[float] = deque(maxlen=1000)

    def loaded(self) -> list[PolicyRef]:
        if self._multiplex:
            return [BASE, *sorted(self._staged, key=lambda ref: ref.version)]
        return [self._resident]

    async def stage(self, published: Published) -> None:
        ref = published.ref
        if known := self._staged.get(ref) or self._leaving.get(ref):
            check_same(known, published)
        if not self._multiplex:
            await self.swap(published)
        elif ref in self._leaving:
            raise VersionError(f"{ref} is being unloaded; wait for that, or use a new number")
        elif ref not in self._staged and ref != BASE:
            await asyncio.to_thread(check_folder, Path(published.path))
            self._staged[ref] = published

    async def unload(self, ref: PolicyRef) -> None:
        if not self._multiplex and ref == self._resident:
            await self.swap(self._previous)
            return
        held = self._leaving.get(ref) or self._staged.pop(ref, None)
        if held is None:
            raise not_loaded(ref, self.loaded())
        if self._multiplex:
            self._leaving[ref] = held
            await drained(self._in_flight, ref)
            self._leaving.pop(ref, None)

    async def swap(self, target: Published | PolicyRef, *, check: bool = True) -> float:
        if isinstance(target, Published):
            await asyncio.to_thread(check_folder, Path(target.path))
            self._staged[target.ref] = target
        ref = target.ref if isinstance(target, Published) else target
        return await asyncio.shield(asyncio.ensure_future(self._swap(ref, check)))

    @asynccontextmanager
    async def using(self, ref: PolicyRef) -> AsyncIterator[tuple[Callable[[], PolicyRef], Any]]:
        if self._multiplex:
            if ref != BASE:
                self._held(ref)
            with self._in_flight.track(str(ref)):
                async with self._time_sharing.using(ref):
                    yield lambda: ref, None
        else:
            # A request that names the version before the last swap is still answered, so that a swap fails no request.
            if ref not in (self._resident, self._previous):
                raise not_loaded(ref, self.loaded())
            yield lambda: self._resident, None

    async def mismatches(self, published: Published) -> list[str]:
        async with self.using(published.ref):
            return await ask_workers(self._llm, "ratchet_model_mismatches", str(local_folder(published.path)))

    async def digests(self, ref: PolicyRef) -> list[str]:
        async with self.using(ref):
            return await ask_workers(self._llm, "ratchet_model_digests")

    def swapping(self) -> bool:
        """Whether a swap is in progress. Raises: Unavailable when a failed swap left unknown weights in the engine."""
        if self._broken is not None:
            raise Unavailable(self._broken)
        return self._swapping.locked()

    async def close(self) -> None:
        """Refuse the requests that wait for their version."""
        await self._time_sharing.close()

    def _held(self, ref: PolicyRef) -> Published:
        if ref not in self._staged:
            raise not_loaded(ref, self.loaded())
        return self._staged[ref]

    def _folder(self, ref: PolicyRef) -> str:
        return str(local_folder(self._model if ref == BASE else self._held(ref).path))

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
                raise ArtifactError(f"{folder} cannot be loaded: {error}; {before} continues to answer") from None
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
            WeightTransferUpdateRequest({"path": folder, "like": str(local_folder(self._model))})
        )
        await self._llm.finish_weight_update(weight_version=str(ref))
        if check and (mismatches := await ask_workers(self._llm, "ratchet_model_mismatches", folder)):
            raise ProofError(f"{ref}: {len(mismatches)} tensors differ in the engine, first: {mismatches[0]}")

    async def _restore(self, before: PolicyRef, error: Exception) -> None:
        """Load the previous version again from its files, because some layers may already be replaced."""
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
        private.name_base(self._app_models, list(names), self._model)
