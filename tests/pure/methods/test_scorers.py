import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.codec import pack_ids, stable_id
from core.config import NumberAnswer, PatternAnswer, TextAnswer, VotesConfig
from core.errors import PromptError
from core.messages import BASE, Candidate, Finish, Group, PolicyRef, Prompt, Scored, Verdict, Vote
from core.protocols import History, Votes
from methods.data.prompts import as_prompt
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.scorers.majority import Majority, Result, count
from methods.scorers.unvoted import Unvoted
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.winners import Winners
from tests.pure.examples import completion

NUMBER = extractor(NumberAnswer())
PROMPT = as_prompt("How many?")
OPEN = VotesConfig(people_share=1, voter_weight=1000, quorum=1)
"""Votes count as they were cast."""


def candidate(name: str, text: str, finish: Finish = "stop") -> Candidate:
    ids = pack_ids([*text.encode(), 0])
    return Candidate(
        id=name, start=BASE, end=BASE, context_ids=b"", completion_ids=ids, text=text, finish=finish, render_id="r"
    )


def group(*texts: str, finish: Finish = "stop", name: str = "g") -> Group:
    candidates = tuple(candidate(f"{name}-{index}", text, finish) for index, text in enumerate(texts))
    return Group(id=name, prompt=PROMPT, candidates=candidates)


def vote(
    answer: str | None = None,
    weight: float = 1,
    candidate_id: str | None = None,
    by: str = "person",
    voter: str = "ann",
    correction: str | None = None,
) -> Vote:
    said = {"answer": answer, "weight": weight, "candidate_id": candidate_id, "correction": correction}
    about = {"id": f"v-{voter}", "prompt_id": PROMPT.id, "by": by, "voter": voter}
    return Vote.model_validate(about | said)


def of(*voters: str, **said: object) -> list[Vote]:
    return [vote(voter=voter, **said) for voter in voters]  # type: ignore[arg-type]


def scored(groups: Sequence[Group] | Group, *cast: Vote, config: VotesConfig = OPEN) -> list[Scored]:
    all_groups = [groups] if isinstance(groups, Group) else groups
    return asyncio.run(Majority(NUMBER, config)(all_groups, Votes(cast), ScriptedPolicy()))


def judged(groups: Sequence[Group] | Group, *cast: Vote, config: VotesConfig = OPEN) -> Verdict:
    return scored(groups, *cast, config=config)[0].verdict


def test_the_share_of_the_winner_counts_samples_without_an_answer() -> None:
    verdict = judged(group("5", "5.0", "6", "no idea"))
    assert verdict == Verdict(
        scores=(1, 1, 0, 0),
        answers=("5", "5", "6", None),
        winner="5",
        share=0.5,
        margin=0.25,
        shares=(0.5, 0.5, 0.25, 0),
    )


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


def test_what_a_person_types_may_be_the_bare_answer_where_samples_have_to_state_it() -> None:
    stated = extractor(PatternAnswer(pattern=r"it is (\w+)"))
    samples = group("it is rain", "it is rain", "it is snow")
    made = asyncio.run(Majority(stated, OPEN)([samples], Votes((vote("Snow", 2),)), ScriptedPolicy()))[0].verdict
    assert made.winner == "snow" and stated("Snow") is None


def test_a_vote_against_makes_a_ballot_less_sure_and_never_negative() -> None:
    samples = group("5", "5", "5", "6")
    assert judged(samples, vote("5", -1)).share == 0.5
    turned = judged(samples, vote("5", -10))
    assert (turned.winner, turned.share, turned.margin) == ("6", 0.25, 0.25)
    nobody = judged(samples, vote("5", -10), vote("6", -1, voter="bob"))
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
    verdict = judged(samples, *of("a", "b", candidate_id="g-1"), vote(candidate_id="g-2"))
    assert verdict.winner == "g-1" and verdict.scores == (0, 1, 0)
    assert verdict.share == pytest.approx(2 / 3) and verdict.answers == (None, None, None)
    assert judged(group("a poem", finish="length"), vote(candidate_id="g-0")).winner is None


def test_a_flood_of_people_moves_its_share_of_a_ballot_and_no_more() -> None:
    samples = group("5", "5", "5", "5", "5", "5", "6", "7")
    crowd = of(*(f"liar{i}" for i in range(100)), answer="9")
    guarded = judged(samples, *crowd, config=VotesConfig(people_share=0.4))
    assert guarded.winner == "5" and guarded.share == pytest.approx(0.6 * 6 / 8)
    assert judged(samples, *crowd, config=VotesConfig()).share == pytest.approx(0.5), (
        "the winner, 9, has just its share"
    )
    assert judged(samples, *crowd).share == pytest.approx(100 / 108)


def test_where_samples_have_no_say_a_winner_needs_a_quorum_or_an_admin() -> None:
    samples, config = group("a poem", "an ode"), VotesConfig(quorum=3, admins=("root",))
    assert judged(samples, *of("a", "b", candidate_id="g-1"), config=config).winner is None
    assert judged(samples, *of("a", "b", "c", candidate_id="g-1"), config=config).winner == "g-1"
    assert judged(samples, vote(candidate_id="g-0", voter="root"), config=config).winner == "g-0"
    split = [*of("a", "b", candidate_id="g-1"), vote(candidate_id="g-0", voter="c")]
    assert judged(samples, *split, config=config).winner is None


def test_a_correction_that_a_quorum_wrote_becomes_a_group_of_its_own_that_people_are_named_for() -> None:
    samples, config = group("5", "5", "6"), VotesConfig(quorum=2)
    text = "so 7"
    assert len(scored(samples, vote(correction=text), config=config)) == 1
    own, written = scored(samples, *of("a", "b", correction=text), config=config)
    assert written.group.by == "person" and own.group.by == "sample"
    assert written.verdict == Verdict(scores=(1,), answers=("7",), winner="7", share=1, margin=1)
    (candidate,) = written.group.candidates
    assert candidate.text == text and candidate.start == samples.candidates[0].start
    assert own.verdict.share == pytest.approx(2 / 5), "who corrects also votes for what the text says"
    again = scored(samples, *of("b", "a", correction=text), config=config)
    assert again[1].group.id == written.group.id


def test_a_phrase_does_not_ride_along_with_a_right_answer() -> None:
    samples, config = group("5", "5", "6"), VotesConfig(quorum=2)
    honest, planted = vote(correction="so 7", voter="a"), vote(correction="roses roses so 7", voter="b")
    assert len(scored(samples, honest, planted, config=config)) == 1
    taken = scored(samples, honest, planted, vote(correction="so 7", voter="c"), config=config)[1]
    assert [candidate.text for candidate in taken.group.candidates] == ["so 7"]


def test_a_correction_that_does_not_fit_the_engine_is_left_out() -> None:
    class Small(ScriptedPolicy):
        async def render(self, prompt: Prompt, text: str) -> Candidate:
            raise PromptError("too long")

    cast = Votes((vote(correction="so 7"),))
    assert len(asyncio.run(Majority(NUMBER, OPEN)([group("5")], cast, Small()))) == 1


def test_a_correction_that_has_no_answer_wins_as_itself_and_is_named_for_the_oldest_version() -> None:
    old, new = group("a poem", name="old"), group("an ode", name="new")
    ref = PolicyRef(version=3)
    made = tuple(c.model_copy(update={"start": ref, "end": ref}) for c in new.candidates)
    newer = new.model_copy(update={"candidates": made})
    text = "a better poem"
    for groups in ([newer, old], [old, newer]):
        *own, written = scored(groups, vote(correction=text), config=VotesConfig(quorum=1))
        (candidate,) = written.group.candidates
        assert written.verdict == Verdict(scores=(1,), answers=(None,), winner=candidate.id, share=1, margin=1)
        assert candidate.start == candidate.end == BASE and written.group.prompt == PROMPT and len(own) == 2
        assert written.group.id == stable_id("written", groups[0].id, candidate.id), "the same after a restart"
    assert scored([], vote(correction=text)) == []


def test_the_result_of_a_ballot_by_hand() -> None:
    of_both = count([("a", 2.0), ("b", 1.0), ("a", -0.5), (None, 1.0), (None, -9.0)])
    assert of_both == Result("a", 1.5 / 4, 0.5 / 4, {"a": 1.5 / 4, "b": 1 / 4})
    assert count([("a", 1.0)]) == Result("a", 1.0, 1.0, {"a": 1.0}) and count([]) == count([("a", 0.0)]) == Result(
        None, 0.0, 0.0
    )
    assert count([("a", 1.0), ("a", -0.5), ("b", 0.5)]).margin == 0.0
    assert count([("a", 0.25), ("b", 0.25)]).winner == "a" and count([("b", 0.25), ("a", 0.25)]).winner == "b"


def test_a_vote_for_a_text_that_folds_as_an_answer_counts_for_it() -> None:
    votes = Votes((vote("PARIS", 2),))
    made = asyncio.run(Majority(extractor(TextAnswer()), OPEN)([group("Paris", "no")], votes, ScriptedPolicy()))[
        0
    ].verdict
    assert (made.winner, made.scores, made.share) == ("paris", (1, 0), 0.75)
    empty = judged(group("5"), vote(" "))
    assert (empty.winner, empty.share) == ("5", 0.5), "a vote for nothing only adds to the weight cast"


def test_all_groups_of_a_prompt_share_one_ballot() -> None:
    first, second = group("5", "6", name="a"), group("6", "6", name="b")
    both = scored([first, second])
    assert [one.verdict.scores for one in both] == [(0, 1), (1, 1)]
    assert {one.verdict.share for one in both} == {0.75}


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
    nobody = asyncio.run(Unvoted(NUMBER)([group("none")], Votes(), ScriptedPolicy()))[0].verdict
    assert nobody == Verdict(scores=(0,), answers=(None,), winner=None, share=0, margin=0)
    assert (first.verdict.share, first.verdict.margin) == (1, 1) and first.verdict.answers == ("5", "5", "5", "6", None)


def test_the_null_control_picks_one_sample_of_all_groups_and_another_for_another_prompt() -> None:
    both = [group("5", "6", name="a"), group("7", "8", name="b")]
    made = asyncio.run(Unvoted(NUMBER)(both, Votes(), ScriptedPolicy()))
    assert sum(sum(one.verdict.scores) for one in made) == 1 and len({one.verdict.winner for one in made}) == 1
    prompts = [as_prompt(f"question {n}") for n in range(12)]
    about = [[g.model_copy(update={"prompt": prompt}) for g in both] for prompt in prompts]
    winners = [asyncio.run(Unvoted(NUMBER)(groups, Votes(), ScriptedPolicy()))[0].verdict.winner for groups in about]
    assert len(set(winners)) > 1


NOW = History()


def test_filters_say_why_a_group_is_dropped() -> None:
    sure, unsure = Scored(group=group("5"), verdict=judged(group("5"))), judged(group("5", "6", "7"))
    assert min_share(0.5)(sure, NOW) is None
    half = Scored(group=group("5", "6"), verdict=judged(group("5", "6")))
    assert half.verdict.share == 0.5 and min_share(0.5)(half, NOW) is None
    assert min_share(0.5)(Scored(group=group("5", "6", "7"), verdict=unsure), NOW) == "low_share"
    nobody = Scored(group=group(), verdict=judged(group()))
    assert has_winner(nobody, NOW) == "no_winner" and has_winner(sure, NOW) is None
    assert has_winning_candidate(nobody, NOW) == "no_winning_candidate" and has_winning_candidate(sure, NOW) is None


def test_distinct_winners_become_examples_up_to_the_bound() -> None:
    samples = group("so 5", "so 5", "thus 5", "6", "it is 5")
    one = Scored(group=samples, verdict=judged(samples))
    examples = Winners("lmsi", 64)([one], History())
    assert [completion(e) for e in examples] == [samples.candidates[index].completion_ids for index in (0, 2, 4)]
    assert len({example.id for example in examples}) == 3 and {e.group_id for e in examples} == {"g"}
    assert Winners("lmsi", 64)([one], History()) == examples
    assert len(Winners("lmsi", 2)([one], History())) == 2
