"""Where each bound of the proof lies: a value on it passes, and one just beyond it does not."""

from dataclasses import replace

import numpy as np
import pytest

from core.arrival_proof import Arrival, Proof, arrival, require_arrival, vector
from core.codec import pack_floats, pack_ids
from core.errors import ArtifactError, ProofError

WHOLE = Arrival(coefficient=1.0, distance=0.0, step=1.0, noise=0.0, error=0.0, gap=0.0)
LOST = replace(WHOLE, error=0.2, step=0.01)
"""A step that drowns in noise."""
NOISE = 0.35 / (1.5 * 2**0.5)
"""With this noise and a step of 1, the limit of the distance is sqrt(2) * .35."""


@pytest.mark.parametrize(
    ("found", "field", "passes", "fails"),
    [
        (WHOLE, "coefficient", 1.2, 1.21),
        (WHOLE, "coefficient", 0.8, 0.79),
        (replace(WHOLE, error=0.0125), "coefficient", 1.25, 1.26),
        (replace(WHOLE, error=0.0125), "coefficient", 0.75, 0.74),
        (replace(WHOLE, noise=0.2), "coefficient", 0.5, 0.49),
        (replace(WHOLE, noise=0.2), "coefficient", 1.2, 1.21),
        (replace(WHOLE, noise=0.4, step=2.0), "coefficient", 0.5, 0.49),
        (replace(WHOLE, coefficient=0.0, distance=0.5, gap=0.3), "noise", 0.34, 0.33),
        (WHOLE, "distance", 0.35, 0.36),
        (replace(WHOLE, noise=NOISE), "distance", 0.49, 0.50),
        (replace(WHOLE, noise=2 * NOISE, step=2.0), "distance", 0.49, 0.50),
        (replace(WHOLE, noise=2 * NOISE), "distance", 0.78, 0.79),
        (WHOLE, "gap", 1.0, 1.01),
        (replace(WHOLE, step=0.1), "gap", 0.5, 0.51),
        (LOST, "gap", 0.01, 0.011),
        (replace(LOST, noise=0.05), "gap", 0.28, 0.29),
        (replace(LOST, noise=1.0), "gap", 0.5, 0.51),
        (replace(WHOLE, coefficient=0.0), "error", 0.126, 0.125),
    ],
)
def test_a_value_on_a_bound_passes_and_one_beyond_it_does_not(
    found: Arrival, field: str, passes: float, fails: float
) -> None:
    assert replace(found, **{field: passes}).accepted
    assert not replace(found, **{field: fails}).accepted


def test_all_measures_of_an_arrival_by_hand() -> None:
    """e = (2, 2), n = (3, 1) and p = (1, 1), so the step is (2, 0); engine and base differ by (3, 4)."""
    found = arrival([5.0, 6.0], [3.0, 4.0], [3.0, 1.0], [1.0, 1.0], [0.0, 0.0])
    assert (found.coefficient, found.gap) == (0.5, 1.0)
    assert found.distance == pytest.approx(2**0.5 / 2) and found.step == pytest.approx(2**0.5)
    assert found.noise == pytest.approx(12.5**0.5) and found.error == pytest.approx(2.5)


def test_numbers_of_half_the_width_are_subtracted_at_full_width() -> None:
    assert arrival(*np.float32([[2**24], [-1], [1], [0], [0]])).gap == 2.0**24


def test_no_step_at_all_leaves_everything_to_the_digests() -> None:
    found = arrival([2.0, 2.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0])
    assert found == Arrival(0.0, 0.0, 0.0, 0.5**0.5, float("inf"), 0.5**0.5) and not found.conclusive


@pytest.mark.parametrize(
    ("found", "guess"),
    [
        (replace(WHOLE, coefficient=0.19), "the swap did nothing"),
        (replace(WHOLE, coefficient=-0.19), "the swap did nothing"),
        (replace(WHOLE, coefficient=0.2), "other weights"),
        (replace(WHOLE, coefficient=-0.2), "other weights"),
        (replace(WHOLE, coefficient=0.7), "other weights"),
        (
            replace(WHOLE, coefficient=0.64, noise=0.1),
            "precision swallows more .* if model.engine_dtype is bfloat16, set float32",
        ),
        (replace(WHOLE, coefficient=0.19, noise=0.1), "the swap did nothing"),
        (replace(WHOLE, coefficient=1.0, distance=0.36), "other weights"),
        (replace(LOST, coefficient=0.7, gap=1.0), "other weights"),
    ],
)
def test_a_refusal_guesses_what_the_engine_holds_instead(found: Arrival, guess: str) -> None:
    with pytest.raises(ProofError, match=guess):
        require_arrival("policy@v2", found)


@pytest.mark.parametrize("vectors", [[[]] * 5, [[[1.0]]] * 5, [1.0] * 5, [[1.0], [1.0], [1.0], [1.0], [1.0, 2.0]]])
def test_anything_but_five_vectors_over_the_same_tokens_is_refused(vectors: list[object]) -> None:
    with pytest.raises(ProofError, match="expected five over the same tokens"):
        arrival(*vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", range(5))
def test_one_broken_number_in_any_of_the_five_is_refused(place: int) -> None:
    vectors = [[float("inf") if i == place else 0.0, 0.0] for i in range(5)]
    with pytest.raises(ProofError, match="not finite"):
        arrival(*vectors)


def test_a_manifest_without_a_proof_is_refused_and_one_with_it_read_whole() -> None:
    for manifest in ({}, {"proof": {"sequences": []}}, {"proof": None}):
        with pytest.raises(ArtifactError, match="publish the version again"):
            Proof.read(manifest)
    packed = pack_floats([-0.5, -1.5])
    proof = Proof(sequences=(pack_ids([1, 2, 3]),), base=(packed,), parent=(packed,), version=(packed, packed))
    again = Proof.read({"proof": proof.model_dump(mode="json")})
    assert again == proof and again.token_ids == [[1, 2, 3]]
    assert vector(again.version).tolist() == [-0.5, -1.5, -0.5, -1.5] and vector(again.version).dtype == np.float64
