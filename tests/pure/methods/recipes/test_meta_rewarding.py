import asyncio

import pytest

from core.errors import ConfigError
from core.messages import Prompt, Resettle
from core.messages.model import JUDGE
from core.protocols import Facts, History
from methods.explore import settle_again
from methods.judge_prompts import META
from methods.scorers.judge import stored
from methods.scorers.meta_judge import battles, least_sure, meetings, readable
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.extremes import Extremes, tiers
from tests.pure.methods.recipes.judged import Texts, built, explored, learned, number_in, scored, shown

TEXT = "method.answer.kind=text"
SCORES, LENGTHS = (4.6, 4.5, 4.2, 3.0, 2.2, 2.0), (900, 600, 300, 500, 1200, 800)
SAID = {"short": (4, 4, 4), "a longer text": (5, 1, 3), "no": (2, 2, 2)}


def judge(prompt: Prompt, index: int) -> str:
    """Scores by the table; of two judgements, the one with the higher score is better."""
    if "Judgement A:" in prompt.messages[0].content:
        first, second = number_in(shown(prompt, "Judgement A")), number_in(shown(prompt, "Judgement B"))
        return f"Winner: {'A' if first > second else 'B'}"
    return f"Score: {SAID[shown(prompt)][index]}"


def samples(judged: object = judge) -> Texts:
    return Texts(tuple(SAID), judged)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rho", "pair"), [(0.0, (0, 5)), (0.32, (2, 4)), (0.4, (2, 4))])
def test_the_shortest_of_the_best_tier_is_chosen_and_the_longest_of_the_worst_rejected(
    rho: float, pair: tuple[int, int]
) -> None:
    assert tiers(SCORES, LENGTHS, rho) == pair


def test_the_bounds_of_the_tiers_worked_by_hand() -> None:
    at_bound = (2.0, 3.768, 3.767, 2.832, 2.833, 4.6)
    assert tiers(at_bound, (9, 1, 0, 10, 99, 5), 0.32) == (1, 3)


def test_a_wider_tier_never_chooses_a_longer_answer_and_never_rejects_a_shorter_one() -> None:
    found = [tiers(SCORES, LENGTHS, rho / 100) for rho in range(50)]
    chosen, rejected = zip(*(pair for pair in found if pair is not None), strict=True)
    lengths = [LENGTHS[place] for place in chosen]
    assert lengths == sorted(lengths, reverse=True)
    longest = [LENGTHS[place] for place in rejected]
    assert longest == sorted(longest) and tiers((3, 3), (1, 2), 0.4) is None


def test_an_answer_that_is_too_long_is_not_chosen() -> None:
    one = scored(ScriptedPolicy(), ("123456", "1"), (4, 2))
    assert len(Extremes("m", lengths=True, max_chosen=6)([one], History())) == 1
    assert Extremes("m", lengths=True, max_chosen=5)([one], History()) == []


def test_both_kinds_of_pairs_are_learned() -> None:
    outcome = explored(built("meta_rewarding", TEXT), samples())
    assert outcome.scored[0].verdict.scores == (4, 3, 2)
    assert learned(outcome) == [("short", "no"), ("Score: 5", "Score: 1")]
    of_judge = next(one.group for one in outcome.scored if one.group.id == outcome.examples[1].group_id)
    assert of_judge.prompt.role == JUDGE and shown(of_judge.prompt) == "a longer text"


def test_the_judgements_that_vary_most_are_compared_in_both_orders() -> None:
    outcome = explored(built("meta_rewarding", TEXT), samples())
    one = least_sure(outcome.scored)
    assert one is not None and [c.text for c in readable(one)] == ["Score: 5", "Score: 1", "Score: 3"]
    assert list(meetings(META, one)) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    won = {(b.first, b.second): b.first_won for b in battles(META, one, stored(outcome.scored))}
    assert won == {(0, 1): True, (0, 2): True, (1, 0): False, (1, 2): False, (2, 0): False, (2, 1): True}
    judgements = [each for each in outcome.scored if each.group.prompt.role == JUDGE]
    assert len(judgements) == 3 + 6


def test_judgements_that_agree_are_not_compared() -> None:
    outcome = explored(built("meta_rewarding", TEXT), samples(lambda prompt, _: f"Score: {len(shown(prompt)) % 5}"))
    assert least_sure(outcome.scored) is None and len(outcome.scored) == 1 + 3
    assert len(outcome.examples) == 1


def test_two_judgements_that_could_be_read_are_enough_to_vary() -> None:
    def third_is_lost(prompt: Prompt, index: int) -> str:
        return "Well." if index == 2 and "Judgement A:" not in prompt.messages[0].content else judge(prompt, index)

    one = least_sure(explored(built("meta_rewarding", TEXT), samples(third_is_lost)).scored)
    assert one is not None and [c.text for c in readable(one)] == ["Score: 5", "Score: 1"]


def test_a_comparison_that_cannot_be_read_is_no_battle() -> None:
    def silent(prompt: Prompt, index: int) -> str:
        return "Both." if "Judgement A:" in prompt.messages[0].content else judge(prompt, index)

    outcome = explored(built("meta_rewarding", TEXT), samples(silent))
    assert learned(outcome) == [("short", "no")] and outcome.measured["malformed"] == 6 / 15


def test_a_judge_that_only_looks_at_the_place_gives_no_judge_pair() -> None:
    def first(prompt: Prompt, index: int) -> str:
        return "Winner: A" if "Judgement A:" in prompt.messages[0].content else judge(prompt, index)

    outcome = explored(built("meta_rewarding", TEXT), samples(first))
    assert learned(outcome) == [("short", "no")] and outcome.measured["first_wins"] == 1


def test_late_votes_pay_for_no_comparison_again() -> None:
    method, policy = built("meta_rewarding", TEXT), samples()
    outcome, spent = explored(method, policy), policy.tokens["judge"]
    groups = tuple(one.group for one in outcome.scored if one.group.id in outcome.sampled_ids)
    about = {"id": "again", "place": 0, "prompt_id": outcome.prompt_id, "revision": 1, "groups": groups, "votes": ()}
    work = Resettle(**about, known=outcome.scored, tuned=dict(method.tuned))
    again = asyncio.run(settle_again(method, work, policy))
    assert again.examples == outcome.examples and policy.tokens["judge"] == spent


def test_a_judgement_that_is_too_long_is_not_chosen() -> None:
    method = built("meta_rewarding", TEXT, "method.options.max_judgement=7")
    assert learned(explored(method, samples())) == [("short", "no")]


def tuned(window: int, **measured: float) -> dict[str, float]:
    method = built("meta_rewarding", "method.options.round=2")
    assert method.tune is not None
    means = {name: (value, 9) for name, value in measured.items()}
    facts = Facts(window=window, prompts=9, kept=9, measured=means, tuned={**method.tuned, "first_wins": 0.6})
    values = method.tune(facts)
    assert values.keys() == method.tuned.keys()
    return dict(values)


def test_rho_and_the_training_of_the_judge_follow_the_rounds() -> None:
    found = [tuned(window) for window in (1, 2, 4, 6, 8, 99)]
    assert [each["rho"] for each in found] == [0, 0.32, 0.32, 0.4, 0.4, 0.4]
    assert [each["judging"] for each in found] == [1, 1, 0, 0, 0, 0]
    outcome = explored(built("meta_rewarding", TEXT), samples(), tuned={"judging": 0.0, "rho": 0.5 - 1e-9})
    assert learned(outcome) == [("short", "no")]


def test_the_weights_of_the_places_come_from_the_last_window_that_has_comparisons() -> None:
    assert tuned(1, first_wins=0.7)["first_wins"] == 0.7 and tuned(1)["first_wins"] == 0.6


def test_a_judge_that_cannot_be_read_pauses_learning() -> None:
    with pytest.raises(ConfigError, match=r"recipe meta_rewarding .* method\.options\.judge\.max_tokens"):
        tuned(1, malformed=0.6)


def test_the_null_control_learns_no_judge_pairs_and_deals_the_scores_out_again() -> None:
    method = built("meta_rewarding", TEXT, "method.options.shuffled=true")
    pairs = [learned(explored(method, samples(), prompt=f"q {place}")) for place in range(60)]
    assert all(len(pair) == 1 for pair in pairs)
    best_first = sum(pair[0] == ("short", "no") for pair in pairs)
    worst_first = sum(pair[0] == ("no", "short") for pair in pairs)
    assert {text for pair in pairs for text in pair[0]} == set(SAID) and abs(best_first - worst_first) < 10


def test_where_nothing_was_judged_no_judgement_is_the_least_sure() -> None:
    assert least_sure([]) is None
