import asyncio
import random

import pytest

from core.answers import extractor
from core.config import TextAnswer
from core.errors import ConfigError
from core.messages import Prompt, Resettle
from core.protocols import Votes
from methods.explore import settle_again
from methods.judge_prompts import PAIR
from methods.monitors import gv_gap
from methods.scorers.judge import UNJUDGED, Judging
from methods.scorers.tournament import Tournament
from tests.pure.methods.recipes.judged import Texts, built, explored, learned, number_in, scored, shown

TEXT = "method.answer.kind=text"
FIVE = ("quality 1", "quality 4", "quality 2", "quality 4 too: 4", "quality 3")


def judge(prompt: Prompt, index: int) -> str:
    """Scores the last number in the answer, prefers the greater, and finds more than 2 right."""
    if "Answer A:" in prompt.messages[0].content:
        first, second = number_in(shown(prompt, "Answer A")), number_in(shown(prompt, "Answer B"))
        return f"Winner: {'A' if first > second else 'B'}"
    value = number_in(shown(prompt))
    return f"Verdict: {'yes' if value > 2 else 'no'}. Score: {value}"


def texts(*options: str, said: tuple[str, ...] = FIVE, judged: object = judge) -> list[str]:
    words = {text: float(number_in(text)) - 2.5 for text in said}
    policy = Texts(said, judged, words)  # type: ignore[arg-type]
    named = [f"method.options.{option}" for option in options]
    return [text for (text,) in learned(explored(built("verify_filter", TEXT, *named), policy))]


def test_the_best_part_of_each_prompt_survives_with_all_equals_of_the_last_one() -> None:
    assert texts("value=0.2") == [FIVE[1], FIVE[3]]
    assert texts("value=0.5") == [FIVE[1], FIVE[3], FIVE[4]]


@pytest.mark.parametrize("verifier", ["cot_score", "mc", "tournament"])
def test_each_verifier_finds_the_best(verifier: str) -> None:
    four = ("quality 1", "quality 4", "quality 2", "quality 3")
    assert texts(f"verifier={verifier}", "value=0.25", said=four) == ["quality 4"]


def test_a_yes_survives_and_a_no_does_not() -> None:
    assert texts("verifier=cot_binary", "keep=tau", "value=0.5") == [FIVE[1], FIVE[3], FIVE[4]]


def test_one_threshold_for_all_prompts_may_leave_nothing() -> None:
    assert texts("keep=tau", "value=0.4") == [FIVE[1], FIVE[3]]
    assert texts("keep=tau", "value=0.41") == []
    assert texts("verifier=mc", "keep=tau", "value=0.5") == [FIVE[1], FIVE[3], FIVE[4]]


def test_a_second_verifier_must_agree() -> None:
    def other(prompt: Prompt, index: int) -> str:
        value = number_in(shown(prompt))
        return f"Verdict: {'no' if value == 4 else 'yes'}. Score: {value}"

    assert texts("value=0.5", "also=cot_binary", judged=other) == [FIVE[4]]
    assert texts("value=0.2", "also=cot_binary", judged=other) == []


def test_a_malformed_verdict_never_survives() -> None:
    assert texts("value=1.0", judged=lambda prompt, index: "very good") == []
    assert texts("value=1.0") == list(FIVE)


def test_a_sample_without_an_answer_is_neither_judged_nor_imitated() -> None:
    policy = Texts(("no number", "it is 3"), judge)
    outcome = explored(built("verify_filter", "method.answer.kind=number", "method.options.value=1.0"), policy)
    assert learned(outcome) == [("it is 3",)] and len(outcome.scored) == 2


def test_late_votes_ask_for_no_verdict_again() -> None:
    for verifier in ("mc", "tournament", "cot_score"):
        method = built("verify_filter", TEXT, f"method.options.verifier={verifier}")
        policy = Texts(FIVE, judge, {text: float(number_in(text)) for text in FIVE})
        outcome = explored(method, policy)
        spent, asked = policy.tokens["judge"], policy.asked
        groups = tuple(one.group for one in outcome.scored if one.group.id in outcome.sampled_ids)
        about = {"id": "again", "place": 0, "prompt_id": outcome.prompt_id, "revision": 1, "votes": ()}
        work = Resettle(**about, groups=groups, known=outcome.scored, tuned=dict(method.tuned))
        again = asyncio.run(settle_again(method, work, policy))
        assert again.examples == outcome.examples and outcome.examples
        assert (policy.tokens["judge"], policy.asked) == (spent, asked)


def played(*answers: str, judged: object = judge, k: int = 1) -> tuple[float, ...]:
    policy = Texts((), judged)  # type: ignore[arg-type]
    tournament = Tournament(PAIR, Judging(k=k), extractor(TextAnswer()))
    group = scored(policy, answers, (0.0,) * len(answers)).group
    return asyncio.run(tournament([group], Votes(), policy))[0].verdict.scores


@pytest.mark.parametrize("players", [2, 3, 4, 5, 7, 8])
def test_the_best_wins_a_tournament_of_any_size(players: int) -> None:
    scores = played(*(f"quality {place}" for place in range(players)))
    assert max(scores) == scores[-1] == 1 and sorted(scores)[-2] < 1 and scores[0] < 1
    assert scores[0] == 0 or players in (3, 5, 7), "only without an opponent does the worst go on"


def test_in_a_tournament_of_four_one_loser_of_the_final_went_on_once() -> None:
    assert sorted(played("1", "2", "3", "4")) == [0, 0, 0.5, 1]


def test_in_a_tournament_the_second_goes_on_where_the_judgements_are_divided() -> None:
    divided = played("1", "2", k=2, judged=lambda prompt, index: "Winner: " + "AB"[index])
    first = played("1", "2", judged=lambda prompt, index: "Winner: A")
    assert sorted(divided) == [0, 1] and divided == tuple(reversed(first))


def test_a_tournament_that_cannot_be_read_has_no_scores() -> None:
    assert played("1", "2", "3", judged=lambda prompt, index: "both") == (UNJUDGED,) * 3
    assert played("1") == (UNJUDGED,) and played("1", "1") == (UNJUDGED,) * 2, "one text has nobody to meet"


def precision(*more: str) -> tuple[float, float]:
    """The part of the survivors that is right, and the gap that the monitor finds, for a verifier that passes 80% of
    right answers and 30% of wrong ones, of which 40% are right."""
    method, right, utilities, scores = built("verify_filter", TEXT, *VERDICT, *more), [], [], []
    for place in range(150):
        lots = random.Random(place)
        said = tuple(f"{place}.{index} {'right' if lots.random() < 0.4 else 'wrong'}" for index in range(8))
        verdicts = {text: lots.random() < (0.8 if "right" in text else 0.3) for text in said}
        policy = Texts(said, lambda prompt, _: f"Verdict: {'yes' if verdicts[shown(prompt)] else 'no'}")  # noqa: B023
        outcome = explored(method, policy, prompt=f"q {place}")
        right += ["right" in text for (text,) in learned(outcome)]
        utilities.append([float("right" in text) for text in said])
        scores.append([float(score) for score in outcome.scored[0].verdict.scores])
    gap = gv_gap(utilities, scores, 0.5)
    assert gap is not None
    return sum(right) / len(right), gap.absolute


VERDICT = ("method.options.verifier=cot_binary", "method.options.keep=tau", "method.options.value=0.5")


def test_survivors_of_a_verifier_of_known_rates_have_the_known_precision() -> None:
    found, gap = precision()
    assert found == pytest.approx(0.64, abs=0.04) and gap == pytest.approx(0.24, abs=0.04)


def test_the_null_control_destroys_the_signal() -> None:
    found, _ = precision("method.options.shuffled=true")
    assert found == pytest.approx(0.4, abs=0.05)


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.options\.verifier: Input should be 'mc', 'cot_binary'"):
        built("verify_filter", "method.options.verifier=majority")
    with pytest.raises(ConfigError, match=r"method\.options\.value: .*greater than 0"):
        built("verify_filter", "method.options.value=0")
    with pytest.raises(ConfigError, match="recipe verify_filter needs different samples"):
        built("verify_filter", "method.sampler.temperature=0")
