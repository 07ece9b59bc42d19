import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.codec import pack_ids
from core.config import NumberAnswer
from core.messages import BASE, Candidate, Finish, Group, Imitate, Scored, Verdict, Vote
from core.protocols import History, Votes
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.prompts import as_prompt
from methods.scorers.majority import Majority
from methods.scorers.unvoted import Unvoted
from methods.scripted import ScriptedPolicy
from methods.selectors.winners import Winners

NUMBER = extractor(NumberAnswer())
PROMPT = as_prompt("How many?")


def candidate(name: str, text: str, finish: Finish = "stop") -> Candidate:
    ids = pack_ids([*text.encode(), 0])
    return Candidate(
        id=name, start=BASE, end=BASE, context_ids=b"", completion_ids=ids, text=text, finish=finish, render_id="r"
    )


def group(*texts: str, finish: Finish = "stop", name: str = "g") -> Group:
    candidates = tuple(candidate(f"{name}-{index}", text, finish) for index, text in enumerate(texts))
    return Group(id=name, prompt=PROMPT, candidates=candidates)


def vote(answer: str | None = None, weight: float = 1, candidate_id: str | None = None, by: str = "person") -> Vote:
    return Vote.model_validate(
        {"id": "v", "prompt_id": PROMPT.id, "answer": answer, "weight": weight, "candidate_id": candidate_id, "by": by}
    )


def judged(groups: Sequence[Group] | Group, *cast: Vote) -> Verdict:
    all_groups = [groups] if isinstance(groups, Group) else groups
    return asyncio.run(Majority(NUMBER)(all_groups, Votes(cast), ScriptedPolicy()))[0].verdict


def test_the_share_of_the_winner_counts_samples_without_an_answer() -> None:
    verdict = judged(group("5", "5.0", "6", "no idea"))
    assert verdict == Verdict(scores=(1, 1, 0, 0), answers=("5", "5", "6", None), winner="5", share=0.5, margin=0.25)


def test_equals_go_to_the_answer_named_first() -> None:
    verdict = judged(group("6", "5", "5", "6"))
    assert (verdict.winner, verdict.share, verdict.margin) == ("6", 0.5, 0)


def test_a_candidate_that_was_cut_off_has_no_answer() -> None:
    cut, whole = candidate("a", "5", "length"), candidate("b", "6")
    verdict = judged(Group(id="g", prompt=PROMPT, candidates=(cut, whole)))
    assert verdict.answers == (None, "6") and verdict.scores == (0, 1) and verdict.share == 0.5


def test_people_vote_in_the_same_ballot_by_answer_by_sentence_or_by_candidate() -> None:
    samples = group("5", "5", "6")
    assert judged(samples, vote("6.0")).winner == "5"
    assert judged(samples, vote("It is 6", 2)).winner == "6"
    by_candidate = judged(samples, vote(weight=2, candidate_id="g-2"))
    assert by_candidate.winner == "6" and by_candidate.share == pytest.approx(3 / 5)


def test_a_vote_against_makes_a_ballot_less_sure_and_never_negative() -> None:
    samples = group("5", "5", "5", "6")
    assert judged(samples, vote("5", -1)).share == 0.5
    turned = judged(samples, vote("5", -10))
    assert (turned.winner, turned.share, turned.margin) == ("6", 0.25, 0.25)
    nobody = judged(samples, vote("5", -10), vote("6", -1))
    assert (nobody.winner, nobody.share, nobody.scores) == (None, 0, (0, 0, 0, 0))


def test_people_may_outvote_every_sample() -> None:
    verdict = judged(group("5", "6"), vote("7", 3))
    assert verdict.winner == "7" and not any(verdict.scores) and verdict.share == pytest.approx(3 / 5)


def test_a_samples_stored_vote_is_not_counted_twice() -> None:
    assert judged(group("5", "6"), vote("6", by="sample")).winner == "5"


def test_a_vote_for_a_candidate_that_is_not_here_says_nothing() -> None:
    assert judged(group("5", "5"), vote(weight=9, candidate_id="elsewhere")).share == 1


def test_without_any_answer_people_choose_among_the_candidates() -> None:
    samples = group("a poem", "an ode", "a song")
    assert judged(samples).winner is None
    verdict = judged(samples, vote(candidate_id="g-1"), vote(candidate_id="g-1"), vote(candidate_id="g-2"))
    assert verdict.winner == "g-1" and verdict.scores == (0, 1, 0)
    assert verdict.share == pytest.approx(2 / 3) and verdict.answers == (None, None, None)
    assert judged(group("a poem", finish="length"), vote(candidate_id="g-0")).winner is None


def test_all_groups_of_a_prompt_share_one_ballot() -> None:
    first, second = group("5", "6", name="a"), group("6", "6", name="b")
    scored = asyncio.run(Majority(NUMBER)([first, second], Votes(), ScriptedPolicy()))
    assert [one.verdict.scores for one in scored] == [(0, 1), (1, 1)]
    assert {one.verdict.share for one in scored} == {0.75}


def test_an_empty_group_has_no_winner() -> None:
    assert judged(group()) == Verdict(scores=(), answers=(), winner=None, share=0, margin=0)


TEXTS = st.lists(st.sampled_from(["1", "2", "3", "none"]), max_size=9)
CAST = st.lists(st.tuples(st.sampled_from(["1", "2", "4", None]), st.floats(-5, 5), st.sampled_from([None, "g-0"])))


@given(TEXTS, CAST)
def test_any_ballot_has_a_share_in_bounds_and_scores_just_the_winners(
    texts: list[str], cast: list[tuple[str | None, float, str | None]]
) -> None:
    verdict = judged(group(*texts), *(vote(*one) for one in cast))
    assert 0 <= verdict.margin <= verdict.share <= 1
    if any(verdict.answers):
        assert verdict.scores == tuple(float(a is not None and a == verdict.winner) for a in verdict.answers)


@given(st.lists(st.sampled_from(["1", "2", "none"]), min_size=1, max_size=9), st.randoms())
def test_the_order_of_the_samples_decides_nothing_but_ties(texts: list[str], chance: object) -> None:
    verdict = judged(group(*texts))
    other = judged(group(*reversed(texts)))
    assert (verdict.share, verdict.margin) == (other.share, other.margin)
    assert verdict.margin == 0 or verdict.winner == other.winner


def test_the_null_control_picks_one_answered_sample_whatever_the_others_say() -> None:
    chosen: set[str | None] = set()
    for index in range(40):
        samples = group("5", "5", "5", "6", "none", name=f"g{index}")
        first, again = (asyncio.run(Unvoted(NUMBER)([samples], Votes(), ScriptedPolicy()))[0] for _ in range(2))
        assert first == again and sum(first.verdict.scores) == 1 and first.verdict.scores[4] == 0
        chosen.add(first.verdict.winner)
    assert chosen == {"5", "6"}
    assert asyncio.run(Unvoted(NUMBER)([group("none")], Votes(), ScriptedPolicy()))[0].verdict.winner is None


def test_filters_say_why_a_group_is_dropped() -> None:
    sure, unsure = Scored(group=group("5"), verdict=judged(group("5"))), judged(group("5", "6", "7"))
    assert min_share(0.5)(sure) is None
    half = Scored(group=group("5", "6"), verdict=judged(group("5", "6")))
    assert half.verdict.share == 0.5 and min_share(0.5)(half) is None
    assert min_share(0.5)(Scored(group=group("5", "6", "7"), verdict=unsure)) == "low_share"
    nobody = Scored(group=group(), verdict=judged(group()))
    assert has_winner(nobody) == "no_winner" and has_winner(sure) is None
    assert has_winning_candidate(nobody) == "no_winning_candidate" and has_winning_candidate(sure) is None


def test_distinct_winners_become_examples_up_to_the_bound() -> None:
    samples = group("so 5", "so 5", "thus 5", "6", "it is 5")
    scored = Scored(group=samples, verdict=judged(samples))
    examples = Winners("lmsi", 64)(scored, History())
    assert [e.completion_ids for e in examples if isinstance(e, Imitate)] == [
        samples.candidates[index].completion_ids for index in (0, 2, 4)
    ]
    assert len({example.id for example in examples}) == 3 and {e.group_id for e in examples} == {"g"}
    assert Winners("lmsi", 64)(scored, History()) == examples
    assert len(Winners("lmsi", 2)(scored, History())) == 2
