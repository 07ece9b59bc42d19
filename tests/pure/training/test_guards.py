import math

import pytest

from core.config import GuardsConfig
from training.gate.guards import Answer, Manner, broken, entropy, manner

LIMITS = GuardsConfig()
NUMBERS = [str(i % 40) for i in range(64)]


def answers(values, tokens: int = 20) -> list[Answer]:
    return [Answer(hit=True, value=value, tokens=tokens) for value in values]


def test_entropy_of_four_equal_answers_is_log_four() -> None:
    assert entropy(["1", "2", "3", "4"]) == pytest.approx(math.log(4))
    assert entropy(["1"] * 9) == entropy([]) == 0.0


def test_a_manner_counts_unreadable_answers_out_of_the_entropy_and_into_the_format() -> None:
    found = manner([*answers(["1", "2"], tokens=10), Answer(hit=False, value=None, tokens=40)])
    assert (found.probes, found.format_ratio, found.mean_tokens) == (3, pytest.approx(2 / 3), 20)
    assert found.entropy_nats == pytest.approx(math.log(2))
    assert manner(answers(["7"], tokens=10)) == Manner(1, 0.0, 1.0, 10.0)
    assert manner([]) == Manner(0, 0.0, 0.0, 0.0)


def test_the_same_manner_breaks_nothing() -> None:
    same = answers(NUMBERS)
    assert broken(same, {"policy@v1": same, "the base": same}, NUMBERS, LIMITS) is None


def test_answers_that_are_all_alike_break_the_entropy_guard_with_figure_and_limit() -> None:
    found = broken(answers(["7"] * 64), {"policy@v1": answers(NUMBERS)}, NUMBERS, LIMITS)
    assert found is not None
    assert found.startswith("answers too much alike: entropy 0.00 nats, limit ")
    assert found.endswith("of policy@v1 on the same 64 probes")


def test_nobody_need_be_more_diverse_than_what_is_expected() -> None:
    scattered, yes_or_no = [str(i) for i in range(64)], ["yes", "no"] * 32
    assert broken(answers(yes_or_no), {"the base": answers(scattered)}, yes_or_no, LIMITS) is None
    assert broken(answers(["yes"] * 64), {"the base": answers(scattered)}, yes_or_no, LIMITS) is not None


def test_a_slow_decline_that_the_champion_shares_breaks_against_the_base() -> None:
    part = [str(i % 14) for i in range(64)]
    half = [str(i % 20) for i in range(64)]
    assert broken(answers(part), {"policy@v5": answers(half)}, NUMBERS, LIMITS) is None
    found = broken(answers(part), {"policy@v5": answers(half), "the base": answers(NUMBERS)}, NUMBERS, LIMITS)
    assert found is not None and "of the base" in found


def test_unreadable_and_runaway_answers_break_their_guards() -> None:
    good = answers(NUMBERS)
    unreadable = [*good[:60], *[Answer(hit=False, value=None, tokens=20)] * 4]
    assert "cannot be read: 93.8% finished" in (broken(unreadable, {"v": good}, NUMBERS, LIMITS) or "")
    assert "another length: 81.0 tokens, limits 8.0 to 80.0" in (
        broken(answers(NUMBERS, tokens=81), {"v": good}, NUMBERS, LIMITS) or ""
    )
    assert broken(answers(NUMBERS, tokens=7), {"v": good}, NUMBERS, LIMITS) is not None


def test_a_guard_is_silent_before_its_probes() -> None:
    few = answers(["7"] * 63)
    assert broken(few, {"v": answers(NUMBERS[:63])}, NUMBERS[:63], LIMITS) is None


def test_of_a_version_that_answered_fewer_probes_only_these_are_compared() -> None:
    candidate = [*answers(["7"] * 64), *answers(NUMBERS)]
    found = broken(candidate, {"the base": answers(NUMBERS)}, NUMBERS * 2, LIMITS)
    assert found is not None and found.endswith("of the base on the same 64 probes")
    assert found.startswith("answers too much alike: entropy 0.00 nats")
