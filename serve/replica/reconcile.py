"""Brings a replica to the desired state: pull, stage, prove, report. Without Ray or vLLM: the engine is a protocol.

A version is served only after its proof. A version that cannot be proven is unloaded and reported with the reason, and
the version before it stays served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from core.arrival_proof import Arrival, Proof, Vector, arrival, require_arrival, vector
from core.artifacts import read_manifest
from core.errors import Overdue, ProofError, RatchetError, Unavailable, VersionError
from core.messages import BASE, PolicyRef, Pool, Published, ReplicaReport, Slots

log = logging.getLogger("ratchet.replica")


class Weights(Protocol):
    """The part of `serve.engine.engine.Engine` that reconciliation uses."""

    def loaded(self) -> list[PolicyRef]: ...
    async def stage(self, published: Published) -> None: ...
    async def unload(self, ref: PolicyRef) -> None: ...
    async def swap(self, target: PolicyRef) -> float: ...
    async def verify_weights(self, published: Published) -> list[str]: ...
    async def score(self, sequences: Sequence[list[int]], ref: PolicyRef) -> list[list[float]]: ...


class Prover:
    """Proves that the weights in an engine are the published ones: compares the bytes of every tensor, and the change
    of log-probabilities on the run's fixed sequences with the change that the trainer measured."""

    def __init__(self, engine: Weights, base: Callable[[], Awaitable[Published]]) -> None:
        """`base` returns the trainer's record of version 0. It is awaited only when another version is staged."""
        self._engine = engine
        self._described = base
        self._base: Proof | None = None
        self._engine_base: Vector | None = None

    async def ready(self) -> None:
        """Measure the base once, before any version is staged."""
        if self._engine_base is None:
            self._base = Proof.read(read_manifest(Path((await self._described()).path)))
            self._engine_base = await self._score(self._base, BASE)

    async def prove(self, published: Published, proof: Proof | None = None) -> Arrival:
        """`proof`: of a checkpoint whose manifest has none. Raises: ProofError that names the first difference."""
        mismatches = await self._engine.verify_weights(published)
        if mismatches:
            raise ProofError(f"{published.ref}: {len(mismatches)} tensors differ in the engine, first: {mismatches[0]}")
        assert self._base is not None and self._engine_base is not None, "ready() was not awaited"
        proof = proof or Proof.read(read_manifest(Path(published.path)))
        found = arrival(
            engine_new=await self._score(self._base, published.ref),
            engine_base=self._engine_base,
            trainer_new=vector(proof.version),
            trainer_parent=vector(proof.parent),
            trainer_base=vector(self._base.version),
        )
        require_arrival(str(published.ref), found)
        return found

    async def _score(self, proof: Proof, ref: PolicyRef) -> Vector:
        return np.concatenate(await self._engine.score(proof.token_ids, ref)).astype(np.float64)


class Reconciler:
    """Moves one replica from its loaded versions to the desired ones."""

    def __init__(
        self,
        replica: str,
        pool: Pool,
        engine: Weights,
        prover: Prover,
        locate: Callable[[Published], Awaitable[Published]] | None = None,
    ) -> None:
        """`locate` returns the version with a path on this node, for versions that another node wrote."""
        self.replica = replica
        self._locate = locate
        self.pool: Pool = pool
        self._engine = engine
        self._prover = prover
        self._proven: set[PolicyRef] = {BASE}
        self._failed: dict[str, str] = {}
        self._arrived: dict[str, float] = {}
        self._drains: set[asyncio.Task[None]] = set()
        self.slots = Slots(epoch=-1)

    @property
    def serving(self) -> PolicyRef:
        """The version that answers users: the desired one, once it is proven here."""
        return self.slots.serve

    async def apply(self, desired: Slots) -> ReplicaReport:
        """Stage and prove new versions, move the slots, unload versions that are no longer wanted."""
        wanted = {p.ref: p for p in desired.loaded if self.pool != "serving" or p.ref == desired.serve}
        self._failed = {name: why for name, why in self._failed.items() if PolicyRef.parse(name) in wanted}
        self._proven &= {BASE, *self._engine.loaded()}  # with full weights a swap unloads the version before
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
            arrived={name: part for name, part in self._arrived.items() if PolicyRef.parse(name) in self._proven},
        )

    async def _drain(self, ref: PolicyRef) -> None:
        """Unload after the version's last request, however long its answer takes."""
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
            found = await self._prover.prove(there)
        except (Unavailable, VersionError) as error:  # no free slot yet, or no engine: not the version's fault
            log.info("%s is not staged yet: %s", published.ref, error)
        except (RatchetError, OSError, ValueError, RuntimeError) as error:
            self._failed[str(published.ref)] = f"{type(error).__name__}: {error}"
            if published.ref in self._engine.loaded():
                await self._engine.unload(published.ref)
        else:
            self._proven.add(published.ref)
            if found.conclusive:
                self._arrived[str(published.ref)] = found.coefficient
