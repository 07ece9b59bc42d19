import asyncio
import math

import pytest

from core.errors import ConfigError
from core.messages import Resettle, Vote
from core.protocols import Tuned
from methods.explore import settle_again
from tests.pure.methods.recipes.judged import Texts, built, explored, learned

SAID = ("2+1=3", "it is 3", "3, I guess: 3", "it is 4", "no idea")
NUMBER = "method.answer.kind=number"
LIKELY = {"2+1=3": 2.0, "it is 3": 0.0, "3, I guess: 3": -1.0, "it is 4": 5.0}


def samples() -> Texts:
    return Texts(SAID, lambda prompt, index: "", LIKELY)


def test_the_winners_of_the_vote_that_need_no_improvement_are_imitated() -> None:
    policy = samples()
    outcome = explored(built("self_feedback", NUMBER), policy)
    assert learned(outcome) == [("2+1=3",), ("it is 3",)]
    assert outcome.scored[0].verdict.winner == "3" and outcome.scored[0].verdict.share == 0.6
    assert policy.asked == 2 * 3, "only winners are judged"
    assert [one.verdict.share for one in outcome.scored[1:]] == pytest.approx(
        [1 / (1 + math.exp(-LIKELY[text])) for text in SAID[:3]]
    )


def test_its_threshold_is_a_probability() -> None:
    strict = explored(built("self_feedback", NUMBER, "method.options.min_score=0.8"), samples())
    assert learned(strict) == [("2+1=3",)]
    none = explored(built("self_feedback", NUMBER, "method.options.min_score=0.9"), samples())
    assert none.examples == () and none.drops == {"no_winning_candidate": 1, "judgement": 3}
    assert len(learned(explored(built("self_feedback", NUMBER, "method.options.min_score=0"), samples()))) == 3


def again(votes: tuple[Vote, ...], tuned: Tuned) -> tuple[list[tuple[str, ...]], int]:
    """What is learned with late votes, and how many words more were asked for."""
    method, policy = built("self_feedback", NUMBER, "method.votes.quorum=1", "method.options.min_share=0.3"), samples()
    outcome = explored(method, policy)
    asked = policy.asked
    groups = tuple(one.group for one in outcome.scored if one.group.id in outcome.sampled_ids)
    about = {"id": "again", "place": 0, "prompt_id": outcome.prompt_id, "revision": 1, "votes": votes}
    work = Resettle(**about, groups=groups, known=outcome.scored, tuned=dict(tuned))
    late = asyncio.run(settle_again(method, work, policy))
    return learned(late), policy.asked - asked


def test_late_votes_judge_only_what_wins_anew() -> None:
    assert again((), {}) == ([("2+1=3",), ("it is 3",)], 0)
    votes = tuple(
        Vote(id=name, prompt_id="", answer="4", by="person", voter=name, cast_at=1.0) for name in ("ann", "bob", "cid")
    )
    assert again(votes, {}) == ([("it is 4",)], 2)


def test_a_persons_text_is_imitated_unjudged() -> None:
    text = Vote(id="t", prompt_id="", correction="Count: 3", by="person", voter="ann", cast_at=1.0)
    assert again((text,), {}) == ([("2+1=3",), ("it is 3",), ("Count: 3",)], 0)


def test_the_null_control_imitates_losers_of_the_vote_and_of_the_verdict_alike() -> None:
    method = built("self_feedback", NUMBER, "method.options.shuffled=true")
    found = [learned(explored(method, samples(), prompt=f"q {place}")) for place in range(80)]
    assert all(len(each) == 2 for each in found)
    counts = {text: sum((text,) in each for each in found) for text in SAID}
    assert counts["no idea"] == 0 and all(25 < counts[text] < 55 for text in SAID[:4]), counts


def test_settings_that_it_cannot_work_with_are_refused() -> None:
    with pytest.raises(ConfigError, match="recipe self_feedback needs different samples"):
        built("self_feedback", "method.sampler.n=1")
    with pytest.raises(ConfigError, match=r"method\.options\.min_score: .*less than or equal to 1"):
        built("self_feedback", NUMBER, "method.options.min_score=2")
