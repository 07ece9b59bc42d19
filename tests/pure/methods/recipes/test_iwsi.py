import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, ObjectiveError
from core.messages import Vote
from core.protocols import Facts, Method
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.near import loss_of, shift
from methods.tuners.near import LIMITS
from tests.pure.methods.recipes.texts import PROMPT, built, group, learned, settled

LOSSES = (0.4, 0.8, 1.0, 1.6, 0.75)
TEXTS = [f"{letter} The answer is 7." for letter in "abcde"]
KNOWN = {"texts": 60.0, "valid_loss": 0.8, "ds_limit": 0.0}
CORRECTION = Vote(id="v", prompt_id=PROMPT.id, voter="ann", by="person", correction="So 7. The answer is 7.")


def tuned(method: Method, now: dict[str, float], **measured: tuple[float, int]) -> dict[str, float]:
    assert method.tune is not None
    return dict(method.tune(Facts(window=1, prompts=9, kept=9, measured=measured, tuned=now)))


def measured(
    method: Method, now: dict[str, float], *cast: Vote, policy: ScriptedPolicy | None = None
) -> dict[str, float]:
    assert method.measure is not None
    scored = settled(method, group(*TEXTS, losses=LOSSES), *cast, policy=policy).scored
    return dict(method.measure(scored, now))


def test_the_shift_worked_by_hand() -> None:
    assert [shift(loss, 0.8) for loss in LOSSES] == pytest.approx([2, 1, 1.25, 2, 1.0667], abs=1e-4)
    assert [shift(loss, 0.8) for loss in (0.2, 0.4, 0.8, 1.6, 3.2)] == pytest.approx([4, 2, 1, 2, 4])


@given(st.floats(0.01, 20), st.floats(0.01, 20), st.floats(0.1, 10))
def test_the_shift_is_least_at_the_valid_loss_and_does_not_know_its_unit(
    loss: float, valid: float, unit: float
) -> None:
    assert shift(loss, valid) >= 1 == shift(valid, valid)
    assert shift(loss, valid) == pytest.approx(shift(valid**2 / loss, valid))
    assert shift(unit * loss, unit * valid) == pytest.approx(shift(loss, valid))


def test_winners_far_from_the_valid_loss_are_left_out_and_ties_stay() -> None:
    method, made = built("iwsi"), group(*TEXTS, losses=LOSSES)
    assert learned(settled(method, made)).keys() == set(TEXTS), "inert without texts"
    near = {TEXTS[1], TEXTS[2], TEXTS[4]}
    assert learned(settled(method, made, tuned=KNOWN | {"ds_limit": 1.5})).keys() == near
    assert learned(settled(method, made, tuned=KNOWN | {"ds_limit": 2.001})).keys() == set(TEXTS)
    assert learned(settled(method, made, tuned=KNOWN | {"ds_limit": 1.1})).keys() == {TEXTS[1], TEXTS[4]}


def test_losers_stay_out_and_texts_of_people_stay_in() -> None:
    method = built("iwsi")
    made = group(*TEXTS[:3], "The answer is 9.", losses=(0.8, 9.0, 0.8, 0.8))
    kept = learned(settled(method, made, CORRECTION, tuned=KNOWN | {"ds_limit": 1.1}))
    assert kept.keys() == {TEXTS[0], TEXTS[2], "So 7. The answer is 7."}


def test_the_limit_is_the_least_that_keeps_the_share_of_the_last_window() -> None:
    method = built("iwsi")
    within = measured(method, KNOWN)
    shares = {limit: within[name] for name, limit in LIMITS.items()}
    assert [shares[1.1**power] for power in (1, 2, 3, 7, 8)] == [0.4, 0.4, 0.6, 0.6, 1.0]
    now = tuned(method, KNOWN | {"texts": 100.0}, **{name: (share, 9) for name, share in within.items()})
    assert now["ds_limit"] == 1.1**8
    narrow = built("iwsi", "method.options.keep=0.6")
    assert tuned(narrow, KNOWN | {"texts": 100.0}, **{n: (s, 9) for n, s in within.items()})["ds_limit"] == 1.1**3


def test_only_what_would_be_learned_is_measured() -> None:
    method = built("iwsi")
    assert method.measure is not None
    made = group(*TEXTS[:2], "The answer is 9.", losses=(0.8, 0.8, 9.0))
    assert set(method.measure(settled(method, made).scored, KNOWN).values()) == {1.0}
    unsure = group(TEXTS[0], "The answer is 9.", "The answer is 8.", losses=(0.8, 0.8, 0.8))
    assert method.measure(settled(method, unsure).scored, KNOWN) == {}


def test_nothing_is_left_out_until_enough_prompts_were_corrected() -> None:
    method = built("iwsi", "method.options.min_texts=20")
    within = {name: (1.0, 9) for name in LIMITS}
    few = tuned(method, KNOWN | {"texts": 20.0}, valid_loss=(0.5, 3), **within)
    assert few["texts"] == 19.0 and few["ds_limit"] == 0.0, "20 * .8 + 3"
    enough = tuned(method, KNOWN | {"texts": 20.0}, valid_loss=(0.5, 4), **within)
    assert enough == {"texts": 20.0, "valid_loss": pytest.approx(0.74), "ds_limit": 1.1}
    assert "within@1.100" not in measured(method, KNOWN | {"texts": 19.9})
    assert tuned(method, dict(method.tuned)) == method.tuned


def test_the_valid_loss_is_the_policys_loss_on_what_people_wrote() -> None:
    method, policy = built("iwsi"), ScriptedPolicy(accuracy={0: 0.5})
    found = measured(method, dict(method.tuned), CORRECTION, policy=policy)
    expected = asyncio.run(policy.logprobs(PROMPT, "So 7. The answer is 7."))
    assert found == {"valid_loss": pytest.approx(-sum(expected) / len(expected))}
    assert measured(method, dict(method.tuned)) == {}, "no text of people"


def test_a_text_of_people_is_read_once() -> None:
    method, policy, made = built("iwsi"), ScriptedPolicy(), group(*TEXTS, losses=LOSSES)
    first = settled(method, made, CORRECTION, policy=policy)
    calls = policy.calls
    again = settled(method, made, CORRECTION, policy=policy, known=first.scored)
    assert (again, policy.calls) == (first, calls) and calls == 1


def test_garbled_winners_are_removed_more_often_than_others_but_not_by_the_null_control() -> None:
    texts = [f"{number} The answer is 7." for number in range(500)]
    losses = [2.5 if number % 10 < 3 else 0.6 + 0.004 * (number % 100) for number in range(500)]
    now, made = KNOWN | {"ds_limit": 1.5}, group(*texts, losses=losses)
    garbled = {text for text, loss in zip(texts, losses, strict=True) if loss == 2.5}
    options = ("method.options.max_winners=500", "method.options.keep=0.7")

    def removed(*more: str) -> tuple[float, float]:
        out = set(texts) - learned(settled(built("iwsi", *options, *more), made, tuned=now)).keys()
        return len(out & garbled) / len(garbled), len(out) / len(texts)

    assert removed() == (1.0, 0.3)
    of_garbled, of_all = removed("method.options.random=true")
    assert of_all == pytest.approx(0.3, abs=0.05) and of_garbled == pytest.approx(of_all, abs=0.1)


def test_the_null_control_removes_nothing_while_the_method_does_not() -> None:
    made = group(*TEXTS, losses=LOSSES)
    assert learned(settled(built("iwsi", "method.options.random=true"), made)).keys() == set(TEXTS)


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set method\.sampler\.temperature=1"):
        built("iwsi", "method.sampler.temperature=0.7")
    with pytest.raises(ConfigError, match="min_texts"):
        built("iwsi", "method.options.min_texts=19")
    with pytest.raises(ObjectiveError, match=r"g-0 has no log-probabilities; sample with Sampling\.logprobs=True"):
        loss_of(group("The answer is 7.").candidates[0])
    certain = group("The answer is 7.", losses=(0.0,)).candidates[0]
    assert shift(loss_of(certain), 1.0) == 1e6
