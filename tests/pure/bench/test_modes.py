"""The figures of `bench modes`: a mode beside the vote of as many tokens, by hand."""

from bench.modes import Reply, against_majority, figures


def replies(answers: list[str], keys: list[str], tokens: float) -> list[Reply]:
    return [Reply(said == key, tokens, 0.1, None, said) for said, key in zip(answers, keys, strict=True)]


KEYS = ["1", "2", "3", "4"]
POOL = [
    replies(["1", "9", "3", "8"], KEYS, 10),
    replies(["1", "9", "9", "8"], KEYS, 10),
    replies(["9", "2", "3", "8"], KEYS, 10),
]


def test_a_mode_is_set_beside_the_majority_that_its_tokens_buy() -> None:
    mode = replies(["1", "2", "3", "8"], KEYS, 39)
    found = against_majority(mode, POOL, KEYS)["majority"]
    assert (found["samples"], found["wanted"], found["accuracy"]) == (3, 3.9, 0.5)
    assert found["lead"] == 0.25 and found["lead_95"][0] < 0.25 < found["lead_95"][1]
    cheap = against_majority(replies(["1", "2", "3", "8"], KEYS, 4), POOL, KEYS)["majority"]
    assert (cheap["samples"], cheap["wanted"]) == (1, 0.4), "less than a sample is set beside one, and that is told"


def test_a_second_answer_is_told_by_what_it_keeps_and_what_it_mends() -> None:
    greedy = replies(["1", "2", "9", "8"], KEYS, 10)
    found = figures(replies(["1", "9", "3", "8"], KEYS, 30), greedy)
    assert (found["accuracy"], found["gain"], found["kept"], found["mended"], found["rss"]) == (0.5, 0.0, 0.5, 0.5, 0.5)
    assert found["oracle"] == 0.75
    assert figures(greedy, greedy)["kept"] == 1 and figures(greedy, greedy)["mended"] == 0
