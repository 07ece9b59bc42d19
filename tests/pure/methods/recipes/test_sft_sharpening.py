"""SFT-Sharpening: the likeliest sample is imitated. Numbers worked by hand."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest

from core.codec import unpack_ids
from core.config import SamplerConfig
from core.errors import ConfigError
from core.messages import Group
from core.protocols import Method
from methods.samplers.iid import Iid
from tests.pure.methods.recipes.hand_made import PROMPT, candidate, method, settled, texts

BASE = {"a": 0.5, "b": 0.3, "c": 0.2}
SUMS, TOKENS = (-6.0, -4.5, -9.0, -5.0), (6, 3, 15, 4)


def worked(**finish: str) -> Group:
    made = [
        candidate(text, text, nats=[total / tokens] * tokens, finish=finish.get(text, "stop"))  # type: ignore[arg-type]
        for text, total, tokens in zip("wxyz", SUMS, TOKENS, strict=True)
    ]
    return Group(id="g", prompt=PROMPT, candidates=tuple(made), fixed=True)


def picked(made: Method, one: Group) -> str:
    (example,) = settled(made, one).examples
    return texts(example, one)[0]


def law(n: int, base: dict[str, float], *options: str, names: Sequence[str] = ("g",)) -> dict[str, float]:
    """The probability of each text to be picked from `n` samples."""
    made, found = method("sft_sharpening", *options), Counter[str]()
    for name, drawn in itertools.product(names, itertools.product(base, repeat=n)):
        samples = [candidate(t, f"{name}-{i}", nats=[math.log(base[t])]) for i, t in enumerate(drawn)]
        one = Group(id=f"{name}-{''.join(drawn)}", prompt=PROMPT, candidates=tuple(samples), fixed=True)
        found[picked(made, one)] += math.prod(base[text] for text in drawn) / len(names)
    return dict(found)


def test_the_likeliest_text_is_imitated_or_the_likeliest_per_token() -> None:
    assert picked(method("sft_sharpening"), worked()) == "x"
    assert picked(method("sft_sharpening", "method.options.norm=length"), worked()) == "y"


def test_scores_are_sums_or_means_of_the_samples_own_log_probabilities() -> None:
    (plain,) = settled(method("sft_sharpening"), worked()).scored
    (mean,) = settled(method("sft_sharpening", "method.options.norm=length"), worked()).scored
    assert plain.verdict.scores == pytest.approx(SUMS, abs=1e-5)
    assert mean.verdict.scores == pytest.approx((-1, -1.5, -0.6, -1.25), abs=1e-6)
    assert (mean.verdict.winner, mean.verdict.share, mean.verdict.margin) == ("y", 0.25, 0), "each said something else"


def test_a_sample_that_was_cut_off_is_not_picked_however_likely() -> None:
    assert picked(method("sft_sharpening"), worked(x="length")) == "z"
    none = settled(method("sft_sharpening"), worked(w="length", x="length", y="length", z="length"))
    assert not none.examples and none.drops == {"no_winner": 1}


def test_of_equals_the_first_drawn_is_picked() -> None:
    twins = [candidate("same", name, nats=[-1.0, -1.0]) for name in ("one", "two")]
    (example,) = settled(method("sft_sharpening"), Group(id="g", prompt=PROMPT, candidates=tuple(twins))).examples
    alone = settled(method("sft_sharpening"), Group(id="g", prompt=PROMPT, candidates=(twins[0],))).examples[0]
    assert example.id == alone.id


def test_the_law_of_the_pick_is_that_of_the_best_of_four() -> None:
    found = law(4, BASE)
    assert [found[text] for text in BASE] == pytest.approx([0.9375, 0.0609, 0.0016], abs=1e-4)


@pytest.mark.parametrize(("n", "hit"), [(1, 0.3), (2, 0.51), (4, 0.7599), (8, 0.9424)])
def test_the_likeliest_text_is_found_as_often_as_it_is_sampled(n: int, hit: float) -> None:
    base = {"best": 0.3, "other": 0.1}  # one of seven others
    made, total = method("sft_sharpening"), 0.0
    for drawn in itertools.product(base, repeat=n):
        samples = tuple(candidate(t, f"{i}", nats=[math.log(base[t])]) for i, t in enumerate(drawn))
        if picked(made, Group(id="g", prompt=PROMPT, candidates=samples)) == "best":
            total += math.prod(0.3 if text == "best" else 0.7 for text in drawn)
    assert total == pytest.approx(hit, abs=1e-4)


def test_the_pick_grows_likelier_with_the_number_of_samples() -> None:
    means = [sum(p * math.log(BASE[text]) for text, p in law(n, BASE).items()) for n in (1, 2, 3, 4)]
    assert means == sorted(means) and means[-1] > means[0] + 0.2


def test_the_null_control_picks_as_the_base_model_samples() -> None:
    found = law(3, BASE, "method.options.shuffled=true", names=[str(seed) for seed in range(40)])
    assert [found[text] for text in BASE] == pytest.approx(list(BASE.values()), abs=0.03)


def test_it_samples_the_base_model_with_log_probabilities() -> None:
    sampler = method("sft_sharpening").sample
    assert isinstance(sampler, Iid) and sampler.logprobs and str(sampler.ref) == "policy@v0"
    assert sampler.config == SamplerConfig(temperature=1)


def test_a_sampler_that_bends_the_distribution_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set method\.sampler\.temperature=1 method\.sampler\.top_p=1"):
        method("sft_sharpening", "method.sampler.temperature=0.7")
    with pytest.raises(ConfigError, match="n=1"):
        method("sft_sharpening", "method.sampler.n=1")


def test_the_example_holds_the_completion_behind_its_context() -> None:
    one = worked()
    (example,) = settled(method("sft_sharpening"), one).examples
    (row,) = example.rows
    assert unpack_ids(row.token_ids)[:2] == [1, 2] and row.targets == 3 and example.fixed
