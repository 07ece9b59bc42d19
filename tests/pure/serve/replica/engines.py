"""What the tests of reconciliation are built from: version folders with a proof, and an engine that may be broken."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.arrival_proof import Proof
from core.artifacts import appearing
from core.codec import pack_floats, pack_ids
from core.errors import ArtifactError, VersionError
from core.messages import BASE, PolicyRef, Published

TOKENS = 65
RNG = np.random.default_rng(0)
BASE_NATS = RNG.normal(-1.0, 0.5, TOKENS - 1)
STEP_NATS = RNG.normal(0.0, 0.3, TOKENS - 1)


def nats(version: int) -> list[float]:
    """What trainer and engine both find under a version's weights."""
    return list(BASE_NATS + version * STEP_NATS)


def published(version: int, folder: Path) -> Published:
    """A folder whose manifest proves the version, a step from the one before."""
    path = folder / "versions" / f"v{version:04d}"
    base, parent, mine = (pack_floats(nats(v)) for v in (0, max(0, version - 1), version))
    proof = Proof(sequences=(pack_ids(range(TOKENS)),), base=(base,), parent=(parent,), version=(mine,))
    with appearing(path, {"proof": proof.model_dump(mode="json")}) as aside:
        (aside / "weights").write_bytes(bytes([version]))
    ref, before = PolicyRef(version=version), PolicyRef(version=max(0, version - 1))
    return Published(ref=ref, path=str(path), parent=before, window=version, fingerprint=str(version))


class FakeEngine:
    """Holds versions and refuses wrong order. `fault` is what goes wrong here with every version from `broken` on."""

    def __init__(self, fault: str = "", broken: int = 2) -> None:
        self.fault, self.broken = fault, broken
        self.staged: list[PolicyRef] = [BASE]

    def _wrong(self, ref: PolicyRef, fault: str) -> bool:
        return self.fault == fault and ref.version >= self.broken

    def loaded(self) -> list[PolicyRef]:
        return list(self.staged)

    async def stage(self, published: Published) -> None:
        if self._wrong(published.ref, "bad file"):
            raise ArtifactError(f"{published.path}/weights is damaged; publish the version anew")
        if self._wrong(published.ref, "wrong shapes"):
            raise RuntimeError("size mismatch for layers.0.q_proj: [8, 64] against [16, 64]")
        self.staged.append(published.ref)

    async def unload(self, ref: PolicyRef) -> None:
        if ref not in self.staged:
            raise VersionError(f"{ref} is not loaded")
        self.staged.remove(ref)

    async def swap(self, target: PolicyRef) -> float:
        raise AssertionError("adapters are not swapped")

    async def verify_weights(self, published: Published) -> list[str]:
        return ["layers.0.q_proj"] if self._wrong(published.ref, "failed proof") else []

    async def score(self, sequences: Sequence[list[int]], ref: PolicyRef) -> list[list[float]]:
        assert ref in self.staged
        if self._wrong(ref, "NaN"):
            return [[float("nan")] * (TOKENS - 1)]
        return [nats(ref.version - 1 if self._wrong(ref, "nothing changed") else ref.version)]
