import numpy as np
import pytest

from core.arrival_proof import arrival, digest_tensor, fingerprint, require_arrival
from core.errors import ProofError

RNG = np.random.default_rng(0)
BASE = -RNG.exponential(1.0, 400)
PARENT = BASE + RNG.normal(0, 0.3, 400)
NEW = PARENT + RNG.normal(0, 0.2, 400)


def noise(scale: float = 0.02):
    return RNG.normal(0, scale, 400)


ENGINE_BASE = BASE + noise()


def test_the_coefficient_of_a_half_step_by_hand():
    found = arrival([1.0, 1.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0], [0.0, 0.0])
    assert (found.coefficient, found.step, found.noise) == (0.5, 2.0, 0.0)
    assert found.distance == pytest.approx(0.5)
    assert not found.accepted


def test_a_right_swap_is_accepted_through_rounding_noise():
    found = arrival(NEW + noise(), ENGINE_BASE, NEW, PARENT, BASE)
    assert found.conclusive and found.accepted
    require_arrival("policy@v2", found)


def test_a_swap_that_did_nothing_is_caught_and_named():
    found = arrival(PARENT + noise(), ENGINE_BASE, NEW, PARENT, BASE)
    with pytest.raises(ProofError, match="the swap did nothing"):
        require_arrival("policy@v2", found)


def test_a_wrong_adapter_and_the_bare_base_are_caught():
    assert not arrival(PARENT + RNG.normal(0, 0.2, 400), ENGINE_BASE, NEW, PARENT, BASE).accepted
    assert not arrival(ENGINE_BASE, ENGINE_BASE, NEW, PARENT, BASE).accepted


def test_a_step_below_the_noise_is_left_to_the_digests_but_gross_errors_are_not():
    tiny = PARENT + RNG.normal(0, 0.0005, 400)
    assert not arrival(tiny + noise(), ENGINE_BASE, tiny, PARENT, BASE).conclusive
    assert arrival(tiny + noise(), ENGINE_BASE, tiny, PARENT, BASE).accepted
    assert not arrival(tiny + noise(0.3), ENGINE_BASE, tiny, PARENT, BASE).accepted
    assert arrival(PARENT, BASE, PARENT, PARENT, BASE).accepted


def test_broken_numbers_are_an_error():
    with pytest.raises(ProofError, match="not finite"):
        arrival([float("nan")], [0.0], [0.0], [0.0], [0.0])
    with pytest.raises(ProofError, match="same tokens"):
        arrival([0.0, 1.0], [0.0], [0.0], [0.0], [0.0])


def test_a_digest_tells_dtype_shape_and_bytes_apart_and_a_fingerprint_forgets_the_order():
    assert len({digest_tensor(d, s, b) for d in ("f", "g") for s in ((2, 1), (1, 2)) for b in (b"ab", b"ba")}) == 8
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"}) != fingerprint({"a": "2", "b": "1"})
