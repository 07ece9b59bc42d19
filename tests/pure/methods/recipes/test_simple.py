import random

import pytest

from core.errors import ConfigError
from core.messages import Vote
from methods.scorers.neighbours import distance, strangeness, unsure
from tests.pure.methods.recipes.texts import PROMPT, built, group, learned, settled

AT = (0, 0.1, 0.2, 0.3, 5, 5.1)
LABELS = ["1", "1", "1", "0", "0", "0"]
NEAR = [[abs(a - b) for b in AT] for a in AT]

CLUSTER = [f"we take {count} red apples and add the green ones. The answer is 7." for count in ("four", "five", "six")]
SLIP = "we take three red apples and add the green ones. The answer is 8."
FAR = ["no idea at all, maybe. The answer is 8.", "perhaps nothing is left. The answer is 8."]


def test_the_numbers_worked_by_hand() -> None:
    found = strangeness(NEAR, LABELS, 3)
    assert found == pytest.approx([-0.6696, -0.6428, -0.5439, 1.7280, -0.9685, -0.9695], abs=1e-4)
    assert unsure(found, 0.2) == [3]
    assert unsure(found, 0.5) == [3], "only those with z > 0"


def test_samples_that_agree_are_never_unsure() -> None:
    assert strangeness(NEAR, ["1"] * 6, 3) == [0.0] * 6
    assert unsure([0.0] * 6, 0.5) == []
    assert unsure([0.5, 0.5, 0.1, 0.2, 0.3], 0.2) == [0], "the first of equals"


def test_other_names_of_the_answers_change_nothing() -> None:
    swapped = ["0" if label == "1" else "1" for label in LABELS]
    assert strangeness(NEAR, swapped, 3) == pytest.approx(strangeness(NEAR, LABELS, 3))


def test_a_sample_is_less_strange_when_a_neighbour_agrees_with_it() -> None:
    """An answer far away changes too, so that the share of the answer stays."""
    lots = random.Random(0)
    for _ in range(200):
        distances = [[lots.random() for _ in range(8)] for _ in range(8)]
        others = sorted(range(1, 8), key=lambda j: distances[0][j])
        apart = [lots.choice("01") for _ in range(8)]
        apart[0], apart[others[0]], apart[others[-1]] = "1", "0", "1"
        agreeing = apart.copy()
        agreeing[others[0]], agreeing[others[-1]] = "1", "0"
        assert strangeness(distances, agreeing, 3)[0] < strangeness(distances, apart, 3)[0]


def test_the_distance_counts_common_words_and_pairs() -> None:
    assert distance("red apples", "red apples") == 0 and distance("", "") == 0
    assert distance("red apples", "green pears") == 1
    assert distance("a b c", "a b d") == pytest.approx(1 - 3 / 7)


def test_a_slip_in_a_cluster_neither_votes_nor_wins() -> None:
    texts = [*CLUSTER, SLIP, *FAR]
    plain, edited = settled(built("lmsi"), group(*texts)), settled(built("simple"), group(*texts))
    assert plain.scored[0].verdict.share == 0.5 and edited.scored[0].verdict.share == 0.6
    verdict = edited.scored[0].verdict
    assert verdict.winner == "7" and verdict.scores == (1, 1, 1, 0, 0, 0)
    assert verdict.answers == ("7", "7", "7", "8", "8", "8")
    assert verdict.shares == pytest.approx((0.6, 0.6, 0.6, 0.4, 0.4, 0.4))
    assert len(edited.scored[0].group.candidates) == 6


def test_an_answer_that_only_removed_samples_have_has_no_share() -> None:
    verdict = settled(built("simple"), group(*CLUSTER, SLIP.replace("8", "9"), *FAR)).scored[0].verdict
    assert verdict.answers == ("7", "7", "7", "9", "8", "8")
    assert verdict.shares == pytest.approx((0.6, 0.6, 0.6, 0, 0.4, 0.4))


def test_an_edit_can_turn_the_vote() -> None:
    texts = [*CLUSTER[:2], SLIP, SLIP.replace("three", "two"), *FAR, CLUSTER[2]]
    assert settled(built("lmsi", "method.options.min_share=0"), group(*texts)).scored[0].verdict.winner == "8"
    options = ("method.options.min_share=0", "method.options.unsure=0.3", "method.options.k=4")
    edited = settled(built("simple", *options), group(*texts)).scored[0].verdict
    assert edited.winner == "7"


def test_a_sample_that_a_person_voted_on_stays() -> None:
    like = Vote(id="v", prompt_id=PROMPT.id, voter="ann", by="person", candidate_id="g-3")
    made = settled(built("simple"), group(*CLUSTER, SLIP, *FAR), like)
    assert made.scored[0].verdict.share == pytest.approx(4 / 7) and made.scored[0].verdict.winner == "8"
    assert SLIP in learned(made)


def test_samples_without_an_answer_are_judged_as_in_lmsi() -> None:
    like = Vote(id="v", prompt_id=PROMPT.id, voter="ann", by="person", candidate_id="g-1")
    made = group("yes", "no", "maybe")
    assert settled(built("simple"), made, like).scored == settled(built("lmsi"), made, like).scored


def test_samples_without_an_answer_are_no_neighbours() -> None:
    """They are like the first winner, and would make it unsure."""
    mute = [CLUSTER[0].replace("The answer is 7.", end) for end in ("The answer", "The")]
    others = [
        "nothing else is left. The answer is 7.",
        "nothing more is left. The answer is 7.",
        "so 8. The answer is 8.",
    ]
    verdict = settled(built("simple", "method.options.k=2"), group(CLUSTER[0], *mute, *others)).scored[0].verdict
    assert verdict.answers == ("7", None, None, "7", "7", "8")
    assert verdict.scores == (1, 0, 0, 1, 1, 0)


def test_the_null_control_removes_right_samples_as_well() -> None:
    def winners(*overrides: str) -> set[str | None]:
        made = [group(*CLUSTER, SLIP, *FAR, name=f"g{number}") for number in range(40)]
        return {settled(built("simple", *overrides), each).scored[0].verdict.winner for each in made}

    assert winners() == {"7"}
    assert winners("method.options.shuffled=true") == {"7", "8"}


def test_too_few_samples_for_its_neighbours_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.options\.k=8 others, but method\.sampler\.n=8; use a k below n"):
        built("simple", "method.options.k=8")
