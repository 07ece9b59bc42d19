"""Proof of arrival: checks that an engine holds the weights that the trainer published. numpy only.

Digests show that the bytes are right; log-probabilities of fixed tokens show that the weights took effect. All vectors
here are log-probabilities (nats) of the same fixed tokens, from engine or trainer, under three sets of weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import ArtifactError, ProofError
from core.messages import Message

Vector = npt.NDArray[np.float64]

COEFFICIENT_SLACK = 0.2
"""How far the coefficient of a correct swap may lie from 1, beyond noise. Half an adapter gives about .5, a no-op 0."""
SWALLOWED = 1.5
"""Largest part of a step that the engine's precision may swallow, in units of noise / step. A half-precision engine
adds an adapter's part to outputs that it has rounded already, so the smaller the part, the more of it rounds away. That
is systematic: it does not average out over tokens. Measured (docs/results.md, "Arrival in bfloat16"): at most 1.14."""
DISTANCE_LIMIT = 0.35
"""Largest distance from the trainer's new version, beyond noise, in units of the step from its parent."""
NOISE_SIGMAS = 4.0
NO_OP = 0.3
"""Smallest limit of the coefficient that surely tells a correct swap from none; below it the step drowns in noise."""
SANITY_NATS = 0.5
"""Largest root mean square difference of engine and trainer, for a step of any size."""


def digest_tensor(dtype: str, shape: Sequence[int], data: bytes | memoryview) -> str:
    """sha256 of one tensor's dtype (torch's name: `float32`), shape and little-endian bytes."""
    digest = hashlib.sha256(f"{dtype}:{','.join(map(str, shape))}:".encode())
    digest.update(data)
    return digest.hexdigest()


def fingerprint(digests: Mapping[str, str]) -> str:
    """One digest of all tensors by name, independent of their order."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


class Proof(Message):
    """The `proof` of a version's manifest: fixed token sequences (int32[T], the same for the whole run) and the
    trainer's log-probabilities of tokens 1..T-1 of each (float32[T-1]) under three sets of weights."""

    sequences: tuple[bytes, ...]
    base: tuple[bytes, ...]
    parent: tuple[bytes, ...]
    version: tuple[bytes, ...]

    @classmethod
    def read(cls, manifest: Mapping[str, object]) -> Self:
        """Raises: ArtifactError if the manifest holds no valid proof."""
        try:
            return cls.model_validate_json(json.dumps(manifest["proof"]))
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"the manifest holds no valid proof ({error}); publish the version again") from None

    @property
    def token_ids(self) -> list[list[int]]:
        return [np.frombuffer(sequence, dtype="<i4").tolist() for sequence in self.sequences]


def vector(packed: Sequence[bytes]) -> Vector:
    """The log-probabilities of all sequences, concatenated."""
    return np.concatenate([np.frombuffer(p, dtype="<f4") for p in packed]).astype(np.float64)


@dataclass(frozen=True)
class Arrival:
    """How much of the step from parent to new version has arrived in the engine."""

    coefficient: float
    """1 if all of it arrived, 0 if the engine still answers as the parent does."""
    distance: float
    """Distance from the expected result, as a multiple of the step: ||engine's - trainer's new|| / ||step||."""
    step: float
    """The trainer's step from parent to new version, root mean square (nats)."""
    noise: float
    """Engine against trainer on the base weights, root mean square (nats): rounding only."""
    error: float
    """Standard error of the coefficient due to that noise."""
    gap: float
    """Engine against trainer on the new weights, each less its base, root mean square (nats)."""

    @property
    def conclusive(self) -> bool:
        """False if the step is lost in the noise: then only the digests can tell."""
        return self.least >= NO_OP

    @property
    def least(self) -> float:
        """The smallest coefficient of a correct swap at this precision and step size; negative if any is possible."""
        swallowed = SWALLOWED * self.noise / self.step if self.step else float("inf")
        return 1 - COEFFICIENT_SLACK - max(swallowed, NOISE_SIGMAS * self.error)

    @property
    def accepted(self) -> bool:
        """Whether direction and size agree. For an inconclusive step: whether nothing is grossly off.

        Measured on the embedded model, bf16 against float32, 1,780 tokens: correct swaps have coefficients from .97
        to 1.04; no-op 0; half the layers missing .45 to .6 at the first version and below .2 later; one
        layer of four .57 to .69 at the first, below .33 later."""
        noise = np.sqrt(2) * self.noise
        if not self.conclusive:
            return self.gap <= max(NOISE_SIGMAS * noise, 0.01) and self.gap <= SANITY_NATS
        return (
            self.least <= self.coefficient <= 1 + COEFFICIENT_SLACK + NOISE_SIGMAS * self.error
            and self.distance <= np.hypot(DISTANCE_LIMIT, 1.5 * noise / self.step)
            and self.gap <= max(SANITY_NATS, self.step)
        )


def arrival(
    engine_new: npt.ArrayLike,
    engine_base: npt.ArrayLike,
    trainer_new: npt.ArrayLike,
    trainer_parent: npt.ArrayLike,
    trainer_base: npt.ArrayLike,
) -> Arrival:
    """Compare the engine's step with the trainer's. Each of e, n, p has its base subtracted, so that the constant
    difference of engine and trainer cancels; coefficient = <e - p, n - p> / <n - p, n - p>.

    All [tokens]. Raises: ProofError for vectors of different lengths or with values that are not finite."""
    vectors = [
        np.asarray(v, dtype=np.float64) for v in (engine_new, engine_base, trainer_new, trainer_parent, trainer_base)
    ]
    if len({v.shape for v in vectors}) != 1 or vectors[0].ndim != 1 or vectors[0].size == 0:
        raise ProofError(
            f"log-probabilities of shapes {[v.shape for v in vectors]}; expected five over the same tokens"
        )
    if not all(np.isfinite(v).all() for v in vectors):
        raise ProofError("a log-probability of the proof is not finite; the weights or the engine are broken")
    engine_new, engine_base, trainer_new, trainer_parent, trainer_base = vectors
    e, n, p = engine_new - engine_base, trainer_new - trainer_base, trainer_parent - trainer_base
    step = n - p
    squared = float(step @ step)
    noise = _rms(engine_base - trainer_base)
    if squared == 0.0:
        return Arrival(0.0, 0.0, 0.0, noise, float("inf"), _rms(e - n))
    return Arrival(
        coefficient=float((e - p) @ step) / squared,
        distance=float(np.linalg.norm(e - n)) / squared**0.5,
        step=_rms(step),
        noise=noise,
        error=float(np.sqrt(2) * noise / squared**0.5),
        gap=_rms(e - n),
    )


def require_arrival(name: str, found: Arrival) -> None:
    """Raises: ProofError that says which weights the engine seems to hold instead."""
    if found.accepted:
        return
    if found.conclusive and abs(found.coefficient) < COEFFICIENT_SLACK:
        guess = "the engine still answers as the parent does: the swap did nothing; load it again"
    elif found.conclusive and found.noise and COEFFICIENT_SLACK <= found.coefficient < 1:
        guess = (
            "the engine holds only a part of these weights, or its precision swallows more of so small a step than any "
            "measured: if model.engine_dtype is bfloat16, set float32"
        )
    else:
        guess = "the engine holds other weights, or only a part of these; load it again"
    raise ProofError(
        f"{name} did not arrive: coefficient {found.coefficient:.3f} (expected 1), distance {found.distance:.3f}, "
        f"step {found.step:.4f} nats, noise {found.noise:.4f} nats; {guess}"
    )


def _rms(v: Vector) -> float:
    return float(np.sqrt(np.mean(v * v)))
