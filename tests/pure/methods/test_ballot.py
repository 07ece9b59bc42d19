"""The laws of methods/ballot.py."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.config import NumberAnswer, VotesConfig
from core.messages import Vote
from methods.ballot import Budgets, Weighed, backed, corrections, newest, weighed
from methods.scorers.majority import count

NUMBER = extractor(NumberAnswer())


def vote(voter: str, answer: str | None = "5", at: float = 0.0, weight: float = 1.0, **more: Any) -> Vote:
    body = {"id": f"{voter}-{answer}-{at}-{more}", "prompt_id": "p", "voter": voter, "by": "person", "cast_at": at}
    return Vote.model_validate({**body, "answer": answer, "weight": weight, **more})


def total(cast: Weighed, voter: str | None = None) -> float:
    return math.fsum(abs(weight) for vote, weight in cast if voter in (None, vote.voter))


VOTES = st.lists(
    st.builds(
        vote,
        st.sampled_from("abcde"),
        st.sampled_from(["1", "2", "3"]),
        st.integers(0, 5).map(float),
        st.floats(-10, 10),
        candidate_id=st.sampled_from([None, "x", "y"]),
    ),
    max_size=30,
)
CONFIGS = st.builds(VotesConfig, people_share=st.floats(0, 1), voter_weight=st.floats(0.1, 5))


def test_the_newest_vote_of_a_voter_on_the_same_thing_counts() -> None:
    cast = [vote("a", "1", 2), vote("a", "2", 1), vote("b", "3", 1), vote("a", None, 0, candidate_id="x")]
    assert [(v.voter, v.answer) for v in newest(cast)] == [("a", None), ("b", "3"), ("a", "1")]
    assert newest([vote("a", "1", counted=False), vote("s", "1", by="sample")]) == []


def test_weights_worked_out_by_hand() -> None:
    config = VotesConfig(people_share=0.5, voter_weight=1)
    alone = weighed([vote("a", "1", weight=3)], 8, config)
    assert [weight for _, weight in alone] == [1.0]
    two_things = weighed([vote("a", "1", weight=3), vote("a", None, weight=-1, candidate_id="x")], 8, config)
    assert sorted(weight for _, weight in two_things) == [-0.25, 0.75]
    crowd = weighed([vote(f"v{i}") for i in range(20)], 8, config)
    assert [weight for _, weight in crowd] == [pytest.approx(0.4)] * 20
    with_verifier = weighed([*(vote(f"v{i}") for i in range(20)), vote("checker", weight=4, by="verifier")], 8, config)
    assert total([pair for pair in with_verifier if pair[0].by == "person"]) == pytest.approx(12)
    assert total(weighed([vote(f"v{i}") for i in range(20)], 8, VotesConfig(people_share=0))) == 0
    assert total(weighed([vote(f"v{i}") for i in range(20)], None, config)) == 20


@given(VOTES, st.integers(0, 16), CONFIGS)
def test_no_voter_and_no_crowd_weighs_more_than_its_cap(cast: list[Vote], samples: int, config: VotesConfig) -> None:
    ballot = weighed(cast, samples, config)
    for voter in "abcde":
        assert total(ballot, voter) <= config.voter_weight + 1e-9
    assert total(ballot) <= config.people_share * (total(ballot) + samples) + 1e-6


@given(VOTES, st.randoms(), CONFIGS)
def test_the_order_of_the_votes_decides_nothing(cast: list[Vote], chance: object, config: VotesConfig) -> None:
    distinct = list({vote.id: vote for vote in cast}.values())
    shuffled = list(distinct)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert weighed(distinct, 8, config) == weighed(shuffled, 8, config)
    assert corrections(distinct, config, NUMBER) == corrections(shuffled, config, NUMBER)


@given(VOTES, st.integers(1, 20), st.floats(1, 100))
def test_more_votes_of_a_voter_at_the_cap_change_nothing(cast: list[Vote], more: int, weight: float) -> None:
    others = [vote for vote in cast if vote.voter != "a"]
    one = vote("a", "9", weight=1.0)
    flood = [vote("a", "9", at=float(i), weight=weight, candidate_id=f"c{i % 3}") for i in range(more)]
    once, often = weighed([*others, one], 8, VotesConfig()), weighed([*others, one, *flood], 8, VotesConfig())
    assert total(often, "a") == pytest.approx(total(once, "a"))
    for voter in "bcde":
        assert total(often, voter) == pytest.approx(total(once, voter))


@given(
    colluding=st.integers(0, 60),
    honest=st.integers(0, 60),
    samples=st.lists(st.sampled_from(["right", "wrong", "other"]), min_size=1, max_size=16),
    share=st.floats(0, 0.9),
    weight=st.floats(0.1, 1000),
)
def test_colluding_voters_never_exceed_the_share(
    colluding: int, honest: int, samples: list[str], share: float, weight: float
) -> None:
    config = VotesConfig(people_share=share)
    cast = [vote(f"liar{i}", "planted", weight=weight) for i in range(colluding)]
    cast += [vote(f"honest{i}", "right") for i in range(honest)]
    ballot = weighed(cast, len(samples), config)
    result = count([*((answer, 1.0) for answer in samples), *((v.answer, weight) for v, weight in ballot)])
    planted = math.fsum(w for v, w in ballot if v.answer == "planted")
    everything = len(samples) + total(ballot)
    assert planted / everything <= share + 1e-9
    assert result.winner != "planted" or result.share <= share + 1e-9
    if honest and weight >= 1:
        assert planted <= total(ballot) * colluding / (colluding + honest) + 1e-9


def test_a_share_of_people_is_measured_against_samples_and_positive_votes_of_verifiers() -> None:
    config = VotesConfig(people_share=0.25, voter_weight=10)
    against = [vote("a", weight=9), vote("tool", weight=-3, by="verifier"), vote("tool2", weight=6, by="verifier")]
    assert sorted(weight for _, weight in weighed(against, 3, config)) == [-3, pytest.approx(3.0), 6]
    assert [weight for _, weight in weighed([vote("a", weight=1)], 30, config)] == [1.0], (
        "below its share nothing changes"
    )
    assert [weight for _, weight in weighed([vote("a", weight=0)], 0, config)] == [0.0]
    assert [
        weight for _, weight in weighed([vote("a", weight=9)], 0, VotesConfig(people_share=1, voter_weight=10))
    ] == [9]
    assert [v.voter for v, _ in weighed([vote("b", at=2.0), vote("a", at=1.0), vote("c", at=0.0)], 8, config)] == list(
        "cab"
    )


def test_of_votes_cast_at_one_time_the_one_with_the_later_id_counts() -> None:
    first, second = vote("a", "1").model_copy(update={"id": "1"}), vote("a", "2").model_copy(update={"id": "2"})
    assert newest([second, first]) == [second] == newest([first, second])
    other_kind = vote("a", "3", by="verifier")
    assert newest([first, other_kind]) == [first, other_kind], "a person and a verifier of one name are two voters"


def test_a_vote_of_no_weight_or_of_a_sample_backs_nothing() -> None:
    config = VotesConfig(quorum=1, admins=("root",))
    assert not backed([vote("a", weight=0)], config) and not backed([vote("root", weight=0)], config)
    assert not backed([vote("s", by="sample")], config) and backed([vote("a", weight=0.1)], config)
    assert backed([vote("root/ann")], VotesConfig(quorum=2, admins=("root",)))
    assert not backed([], config)


def test_who_is_behind_something() -> None:
    config = VotesConfig(quorum=2, admins=("root",))
    assert not backed([vote("a"), vote("a", "6")], config) and backed([vote("a"), vote("b")], config)
    assert backed([vote("root")], config) and backed([vote("tool", by="verifier")], config)
    assert not backed([vote("a"), vote("b", weight=-1)], config)
    assert not backed([vote(""), vote("", "6")], config), "votes without a name are one voter's"


def test_corrections_wait_for_people_who_say_the_same_word_for_word() -> None:
    def wrote(voter: str, text: str, **more: Any) -> Vote:
        return vote(voter, None, correction=text, **more)

    config = VotesConfig(quorum=2)
    assert corrections([wrote("a", "so 7")], config, NUMBER) == []
    assert corrections([wrote("a", "so 7"), wrote("b", " so 7\n")], config, NUMBER) == ["so 7"]
    assert corrections([wrote("a", "so 7"), wrote("b", "roses so 7")], config, NUMBER) == []
    assert corrections([wrote("a", "no idea"), wrote("b", "no idea")], config, NUMBER) == []
    assert corrections([wrote("a", "no idea"), wrote("b", "no idea")], config, None) == ["no idea"]
    assert corrections([wrote("a", "so 7", at=0.0), wrote("b", "so 7"), vote("a", "8", at=1.0)], config, NUMBER) == []
    camps = [wrote("a", "so 7"), wrote("b", "so 7"), wrote("c", "so 8"), wrote("d", "so 8")]
    assert corrections(camps, config, NUMBER) == []
    assert corrections([*camps, wrote("e", "so 8")], config, NUMBER) == ["so 8"]
    assert corrections([wrote("root", "so 7")], VotesConfig(admins=("root",)), NUMBER) == ["so 7"]
    both = [wrote("a", "so 7"), wrote("b", "so 7"), wrote("c", "thus 7"), wrote("d", "thus 7"), *camps[2:]]
    both[4:] = [wrote("e", "so 8"), wrote("f", "so 8"), wrote("g", "so 8")]
    assert corrections(both, config, NUMBER) == ["so 7", "thus 7"], "four voters in two texts against three in one"
    assert corrections([wrote("a", " \n"), wrote("b", " \n")], config, None) == []
    assert corrections([wrote("shop/a", "so 7"), wrote("shop/b", "so 7"), wrote("c", "so 7")], config, None) == ["so 7"]


def test_a_budget_is_per_window_and_a_prompt_counted_on_stays_counted_on() -> None:
    budgets = Budgets(per_window=2)
    prompts: list[dict[str, int]] = [{} for _ in range(4)]
    assert [budgets.allows("a", since, 0) for since in prompts] == [True, True, False, False]
    assert budgets.allows("a", prompts[0], 0) and budgets.allows("b", prompts[3], 0)
    again = Budgets(per_window=2)
    again.restore(prompts, 0)
    assert not again.allows("a", prompts[2], 0) and again.allows("a", prompts[2], 1)
    assert prompts == [{"a": 0}, {"a": 0}, {"a": 1}, {"b": 0}]


def test_budgets_are_restored_from_the_prompts_of_their_own_window() -> None:
    budgets = Budgets(per_window=2)
    assert (budgets.window, budgets.allows("a", {}, 0)) == (0, True)
    budgets.restore([{"a": 4, "b": 4}, {"a": 4}, {"b": 3}], 4)
    assert budgets.window == 4 and not budgets.allows("a", {}, 4)
    assert [budgets.allows("b", {}, 4) for _ in range(2)] == [True, False]
    assert budgets.allows("b", {"b": 1}, 4) and budgets.allows("a", {}, 5)
    since: dict[str, int] = {}
    assert budgets.allows("shop/ann", since, 7) and since == {"shop": 7}


@given(st.integers(1, 30), st.integers(0, 8))
def test_the_users_of_a_key_share_its_caps(users: int, samples: int) -> None:
    """Any number of users of a key have the weight and the prompt budget of one voter, and count once in a quorum."""
    config = VotesConfig(people_share=1, voter_weight=1, quorum=2)
    cast = [vote(f"shop/{i}", correction="5. The answer is 5.") for i in range(users)]
    assert total(weighed(cast, samples, config)) <= 1 + 1e-9
    assert not backed(cast, config) and corrections(cast, config, NUMBER) == []
    assert backed([*cast, vote("bank")], config)
    budgets = Budgets(per_window=2)
    assert [budgets.allows(f"shop/{i}", {}, 1) for i in range(users)] == [i < 2 for i in range(users)]
