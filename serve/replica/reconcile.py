"""How a replica reaches the desired state: pull, stage, prove, report. No Ray, no vLLM: the engine is a protocol.

A version number is never raised before its proof. A version that cannot be proven is unloaded again and reported with
the reason; what was served before goes on being served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from core.arrival_proof import Proof, Vector, arrival, require_arrival, vector
from core.artifacts import read_manifest
from core.errors import Overdue, ProofError, RatchetError, Unavailable, VersionError
from core.messages import BASE, PolicyRef, Pool, Published, ReplicaReport, Slots

log = logging.getLogger("ratchet.replica")


class Engine(Protocol):
    """What reconciliation needs of an engine."""

    def loaded(self) -> list[PolicyRef]: ...
    async def stage(self, published: Published) -> None: ...
    async def unload(self, ref: PolicyRef) -> None: ...
    async def swap(self, target: PolicyRef) -> float: ...
    async def verify_weights(self, published: Published) -> list[str]: ...
    async def score(self, sequences: Sequence[list[int]], ref: PolicyRef) -> list[list[float]]: ...


class Prover:
    """Shows that the weights in an engine are the ones that were published: every tensor's bytes, and the change of
    the log-probabilities on the run's fixed sequences against the change that the trainer saw."""

    def __init__(self, engine: Engine, base: Callable[[], Awaitable[Published]]) -> None:
        """`base` says what the trainer wrote down of version 0; nobody waits for it before there is another version."""
        self._engine = engine
        self._described = base
        self._base: Proof | None = None
        self._engine_base: Vector | None = None

    async def ready(self) -> None:
        """Measure the base once, before any version is staged."""
        if self._engine_base is None:
            self._base = Proof.read(read_manifest(Path((await self._described()).path)))
            self._engine_base = await self._score(self._base, BASE)

    async def prove(self, published: Published) -> None:
        """Raises: ProofError naming what did not arrive."""
        mismatches = await self._engine.verify_weights(published)
        if mismatches:
            raise ProofError(f"{published.ref}: {len(mismatches)} tensors differ in the engine, first: {mismatches[0]}")
        assert self._base is not None and self._engine_base is not None, "ready() was not awaited"
        proof = Proof.read(read_manifest(Path(published.path)))
        found = arrival(
            engine_new=await self._score(self._base, published.ref),
            engine_base=self._engine_base,
            trainer_new=vector(proof.version),
            trainer_parent=vector(proof.parent),
            trainer_base=vector(self._base.version),
        )
        require_arrival(str(published.ref), found)

    async def _score(self, proof: Proof, ref: PolicyRef) -> Vector:
        return np.concatenate(await self._engine.score(proof.token_ids, ref)).astype(np.float64)


class Reconciler:
    """Moves one replica from what it holds to what is desired."""

    def __init__(
        self,
        replica: str,
        pool: Pool,
        engine: Engine,
        prover: Prover,
        locate: Callable[[Published], Awaitable[Published]] | None = None,
    ) -> None:
        """`locate`: the version with a path that this node can open, where its own may be another node's."""
        self.replica = replica
        self._locate = locate
        self.pool: Pool = pool
        self._engine = engine
        self._prover = prover
        self._proven: set[PolicyRef] = {BASE}
        self._failed: dict[str, str] = {}
        self._drains: set[asyncio.Task[None]] = set()
        self.slots = Slots(epoch=-1)

    @property
    def serving(self) -> PolicyRef:
        """What users are answered by: the desired version once it is proven here."""
        return self.slots.serve

    async def apply(self, desired: Slots) -> ReplicaReport:
        """Stage and prove what is new, move the slots, unload what nobody needs."""
        wanted = {p.ref: p for p in desired.loaded if self.pool != "serving" or p.ref == desired.serve}
        self._failed = {name: why for name, why in self._failed.items() if PolicyRef.parse(name) in wanted}
        self._proven &= {BASE, *self._engine.loaded()}  # an engine of whole models lets go of what it swapped away
        for ref, published in wanted.items():
            if ref not in self._proven and str(ref) not in self._failed:
                await self._stage(published)
        if desired.serve == BASE and BASE not in self._engine.loaded():
            await self._engine.swap(BASE)
        serve = desired.serve if desired.serve in self._proven else self.slots.serve
        self.slots = desired.model_copy(update={"serve": serve})
        for ref in [r for r in self._engine.loaded() if r != BASE and r not in wanted and r != serve]:
            self._proven.discard(ref)
            task = asyncio.create_task(self._drain(ref))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        return self.report()

    async def stop(self) -> None:
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def report(self) -> ReplicaReport:
        return ReplicaReport(
            replica=self.replica,
            pool=self.pool,
            serving=self.serving,
            epoch=self.slots.epoch,
            proven=tuple(sorted(self._proven, key=lambda ref: ref.version)),
            failed=dict(self._failed),
        )

    async def _drain(self, ref: PolicyRef) -> None:
        """Unload once its last request has ended, however long a user's answer takes."""
        while True:
            try:
                return await self._engine.unload(ref)
            except Overdue:
                continue
            except VersionError:  # gone already
                return

    async def _stage(self, published: Published) -> None:
        await self._prover.ready()
        try:
            there = published if self._locate is None else await self._locate(published)
            await self._engine.stage(there)
            await self._prover.prove(there)
        except (Unavailable, VersionError) as error:  # no place yet, or no engine: says nothing about the version
            log.info("%s is not staged yet: %s", published.ref, error)
        except (RatchetError, OSError, ValueError, RuntimeError) as error:
            self._failed[str(published.ref)] = f"{type(error).__name__}: {error}"
            if published.ref in self._engine.loaded():
                await self._engine.unload(published.ref)
        else:
            self._proven.add(published.ref)
