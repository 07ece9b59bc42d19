"""kto: people's thumbs on samples and on answers."""

import asyncio
from collections.abc import Sequence

import pytest

from core.messages import Group, Vote
from core.objectives import Kto
from core.protocols import Votes
from methods.explore import NO_HISTORY, Settled, settle
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.people import built, candidate, compared, group, learned, vote
from tests.pure.training.tabular import sums
from training.objectives.kto import kto

RIGHT, OTHER, WRONG = "2+3=5. The answer is 5.", "The answer is 5.", "The answer is 6."


def settled(groups: Sequence[Group], *cast: Vote, options: Sequence[str] = ("method.votes.quorum=1",)) -> Settled:
    return asyncio.run(settle(built("kto", *options), groups, Votes(cast), NO_HISTORY, ScriptedPolicy()))


def judged(made: Settled) -> list[tuple[str, float]]:
    return [(learned(example.rows[0]), example.rows[0].spans[-1].advantage) for example in made.examples]


def test_a_liked_sample_is_wanted_and_a_disliked_one_is_not() -> None:
    up, down = vote("ann", candidate_id="3-0"), vote("bob", candidate_id="3-2", weight=-1)
    made = settled([group(RIGHT, OTHER, WRONG)], up, down)
    assert judged(made) == [(RIGHT, 1.0), (WRONG, -1.0)]
    assert all(example.rows[0].spans[0].advantage == 0 for example in made.examples)
    assert settled([group(RIGHT, OTHER, WRONG)]).drops == {"not_judged": 1}


def test_a_vote_on_an_answer_judges_every_sample_that_has_it() -> None:
    sampled = [group(RIGHT, OTHER, WRONG)]
    assert judged(settled(sampled, vote("ann", answer="5"))) == [(RIGHT, 1.0), (OTHER, 1.0)]
    assert judged(settled(sampled, vote("ann", answer="5", weight=-1))) == [(RIGHT, -1.0), (OTHER, -1.0)]
    assert judged(settled(sampled, compared("ann", "The answer is 6.", "x"))) == [(WRONG, 1.0)]
    assert not settled(sampled, vote("ann", correction="The answer is 5.")).examples, "a text to imitate is no thumb"


def test_fewer_people_than_the_quorum_teach_nothing_and_users_of_a_key_are_one() -> None:
    options = ("method.votes.quorum=2",)
    likes = [vote(name, answer="5") for name in ("ann", "bob")]
    assert not settled([group(RIGHT)], likes[0], options=options).examples
    assert judged(settled([group(RIGHT)], *likes, options=options)) == [(RIGHT, 1.0)]
    users = [vote(name, answer="5", weight=-1) for name in ("shop/ann", "shop/bob")]
    assert not settled([group(RIGHT)], *users, options=options).examples
    assert judged(settled([group(RIGHT)], *(v.model_copy(update={"weight": -1}) for v in likes), options=options))


def test_the_side_with_more_voters_counts_and_a_tie_does_not() -> None:
    likes, dislikes = ([vote(f"{w}{i}", answer="5", weight=w) for i in range(2)] for w in (1, -1))
    assert not settled([group(RIGHT)], *likes, *dislikes).examples
    assert judged(settled([group(RIGHT)], *likes, dislikes[0])) == [(RIGHT, 1.0)]
    assert judged(settled([group(RIGHT)], likes[0], *dislikes)) == [(RIGHT, -1.0)]


def test_a_text_that_was_cut_off_or_lacks_an_answer_is_never_wanted() -> None:
    cut = group(RIGHT, finish="length")
    assert not settled([cut], vote("ann", candidate_id="3-0")).examples
    assert judged(settled([cut], vote("ann", candidate_id="3-0", weight=-1))) == [(RIGHT, -1.0)]
    mixed = group("I do not know.", RIGHT)
    assert not settled([mixed], vote("ann", candidate_id="3-0")).examples
    free = group("Roses are red.", "Violets are blue.")
    assert judged(settled([free], vote("ann", candidate_id="3-0"))) == [("Roses are red.", 1.0)]


@pytest.mark.parametrize("weight", [1, -1])
def test_turned_signs_say_nothing_about_the_thumbs(weight: int) -> None:
    many = group(RIGHT).model_copy(update={"candidates": tuple(candidate(f"c{i}", RIGHT) for i in range(400))})
    options = ("method.votes.quorum=1", "method.options.flipped=true")
    signs = [sign for _, sign in judged(settled([many], vote("ann", answer="5", weight=weight), options=options))]
    assert len(signs) == 400 and abs(sum(signs)) < 80


def test_its_loss_worked_by_hand_on_its_advantages() -> None:
    objective = built("kto").objective
    assert isinstance(objective, Kto) and (objective.beta, objective.reference) == (0.1, "base")
    assert built("kto", "method.options.kto.beta=0.2").objective.model_dump()["reference"] == "base"
    both = sums([[-10.0], [-8.0]], [[-11.0], [-11.0]], advantage=[[1.0], [-1.0]])
    # 1 - sigmoid(.1) = .4750; sigmoid(.3) = .5744
    assert kto(both, objective).item() == pytest.approx(0.4750 + 0.5744, abs=1e-4)
