"""What `bench vote-gap` computes from the answers, and the settings of a family."""

from bench.vote_gap import Asked, majority, settings, summary
from core.config import load


def asked(right: str, greedy: str | None, *samples: str | None) -> Asked:
    return Asked(right, greedy, samples, tokens=40)


def test_the_majority_counts_samples_without_an_answer_in_its_share() -> None:
    assert majority(asked("a", None, "b", "a", None, "a")) == ("a", 0.5)
    assert majority(asked("a", None, "b", "a", None, None)) == ("b", 0.25)  # the earliest of equals
    assert majority(asked("a", "a", None, None, None, None)) == (None, 0.0)


def test_a_summary_is_what_it_says() -> None:
    found = summary(
        [
            asked("a", "a", "a", "a", "a", None),  # kept, right
            asked("a", "b", "a", "b", "b", "c"),  # kept, wrong
            asked("a", None, "a", None, None, None),  # right, but not kept
            asked("a", "a", None, None, None, None),
        ],
        samples=4,
    )
    assert found == {
        "questions": 4,
        "greedy": 0.5,
        "sample": round(5 / 16, 3),
        "majority": 0.5,
        "format": 0.5,
        "kept": 0.5,
        "precision": 0.5,
        "tokens": 10.0,
    }


def test_nothing_kept_has_no_precision() -> None:
    assert summary([asked("a", "a", None, None)], samples=2)["precision"] is None


def test_a_family_names_kind_task_shots_and_options() -> None:
    config = load(None, settings("reasoning-gym:chain_sum:2:max_terms=3", "smollm2"))
    assert (config.prompts.kind, config.prompts.task, config.prompts.shots) == ("reasoning-gym", "chain_sum", 2)
    assert config.prompts.options == {"max_terms": 3} and config.model.path == "smollm2"
    assert load(None, settings("words:kinds:0", "smollm2")).prompts.size is None
