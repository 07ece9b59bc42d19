import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.protocols import Facts, Method
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from methods.tuners.balance import balance
from tests.pure.methods.recipes.texts import built, group, learned, settled

THREE = [f"{step} The answer is 7." for step in ("a", "b", "c")]
WRONG = "The answer is 9."


def means(*of: tuple[int, int]) -> float:
    return sum(balance(right, kept, 8) for right, kept in of) / len(of)


def measured(method: Method, *texts: str) -> dict[str, float]:
    assert method.measure is not None
    return dict(method.measure(settled(method, group(*texts)).scored, method.tuned))


def moved(method: Method, now: float, window: int = 3, **scores: float) -> float:
    """The temperature after a window in which the arms `t80` (0.80) and so on had these scores."""
    assert method.tune is not None
    found = {f"balance@{int(name[1:]) / 100:.2f}": (score, 5) for name, score in scores.items()}
    return method.tune(Facts(window=window, prompts=9, kept=9, measured=found, tuned={"temperature": now}))[
        "temperature"
    ]


def test_the_balance_score_worked_by_hand() -> None:
    assert [balance(right, kept, 8) for right, kept in ((6, 8), (2, 4), (10, 10), (0, 3))] == [0.5625, 0.125, 1, 0]
    assert means((6, 8), (2, 4), (10, 10), (0, 3)) == pytest.approx(0.4219, abs=1e-4)
    low, high = means((8, 10), (4, 8), (1, 8)), means((6, 6), (3, 3), (1, 2))
    assert (low, high) == (pytest.approx(0.3552, abs=1e-4), pytest.approx(0.3958, abs=1e-4)) and high > low


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 16))
def test_the_balance_score_rises_with_right_samples_and_falls_with_wrong_ones(
    right: int, wrong: int, enough: int
) -> None:
    kept = max(1, right + wrong)
    assert 0 <= balance(right, kept, enough) <= 1
    assert balance(right, kept + 1, enough) <= balance(right, kept, enough) <= balance(right + 1, kept + 1, enough)


def test_a_prompt_scores_its_distinct_winners_at_its_own_temperature() -> None:
    method = built("bstar")
    (name, score), *others = measured(method, *THREE, THREE[0], WRONG).items()
    assert not others and score == 3 / 8
    assert name in ("balance@0.60", "balance@0.70", "balance@0.80")
    assert list(measured(built("bstar", "method.options.kept=samples"), *THREE, WRONG).values()) == [3 / 8 * 3 / 4]


def test_a_prompt_of_which_nothing_is_kept_has_no_score() -> None:
    method = built("bstar")
    assert measured(method, "no", "nothing") == {}
    assert measured(method, THREE[0], WRONG, "The answer is 8.") == {}, "below min_share"


def test_prompts_are_sampled_at_three_neighbouring_temperatures_within_the_bounds() -> None:
    drawn: Counter[float] = Counter()

    class Recording(ScriptedPolicy):
        async def generate(self, prompt, sampling, ref=None):  # type: ignore[no-untyped-def]
            drawn[sampling.temperature] += 1
            return await super().generate(prompt, sampling, ref)

    method, policy = built("bstar"), Recording()
    for now, arms in ((0.7, {0.6, 0.7, 0.8}), (1.2, {1.1, 1.2})):
        drawn.clear()
        for number in range(300):
            asyncio.run(method.sample(as_prompt(f"q {number}"), policy, {"temperature": now}))
        assert drawn.keys() == arms and min(drawn.values()) > 60


def test_the_measured_temperature_is_the_sampled_one() -> None:
    asked: list[float] = []

    class Recording(ScriptedPolicy):
        async def generate(self, prompt, sampling, ref=None):  # type: ignore[no-untyped-def]
            asked.append(sampling.temperature)
            return await super().generate(prompt, sampling, ref)

    method, policy = built("bstar"), Recording(accuracy={0: 1.0})
    assert method.measure is not None
    for number in range(20):
        groups = asyncio.run(method.sample(as_prompt(f"q {number}"), policy, {"temperature": 0.9}))
        found = method.measure(settled(method, groups).scored, {"temperature": 0.9})
        assert list(found) == [f"balance@{asked[-1]:.2f}"]
    assert len(set(asked)) == 3


def test_the_temperature_moves_to_the_neighbour_with_the_best_mean() -> None:
    method = built("bstar")
    assert moved(method, 0.7, t60=0.2, t70=0.3, t80=0.4) == 0.8
    assert moved(method, 0.7, t60=0.5, t70=0.3, t80=0.4) == 0.6
    assert moved(method, 0.7, t60=0.3, t70=0.3, t80=0.3) == 0.7, "equal scores: it stays"
    assert moved(method, 0.7) == 0.7, "nothing was measured"
    assert moved(method, 0.7, t110=1.0) == 0.7, "no neighbour"
    assert moved(method, 1.2, t120=0.1, t130=0.9) == 1.2, "outside the bounds"


def test_the_null_control_draws_from_the_grid_whatever_was_measured() -> None:
    method = built("bstar", "method.options.random=true")
    drawn = [moved(method, 0.7, window, t80=1.0) for window in range(200)]
    assert drawn == [moved(method, 0.7, window, t60=1.0) for window in range(200)]
    assert set(drawn) == {0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2}


def test_winners_are_learned_as_in_lmsi() -> None:
    assert learned(settled(built("bstar"), group(*THREE, WRONG))) == dict.fromkeys(THREE, 1.0)


def test_a_first_temperature_outside_the_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.sampler\.temperature=0\.3; set it within"):
        built("bstar", "method.sampler.temperature=0.3")
