"""S2R by hand: segments, rewards, advantages and their baselines."""

import asyncio
from itertools import pairwise

import pytest

from core.codec import pack_floats, pack_ids, unpack_floats, unpack_ids
from core.messages import Candidate, Group, PolicyRef, Prompt, Sampling
from core.protocols import Facts, History
from methods.chains import chains
from methods.samplers.segmented import segments
from methods.scorers.self_verified import verdict_of
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.by_segment import advantages, beginnings
from tests.pure.methods.recipes.hand_made import PROMPT, method, settled

OPTIONS = ("method.answer={kind: number}", "method.sampler.n=3")
GOOD = "It is 7. "
THREE = [
    "It is 8. Wait, that is wrong. Let me try again. It is 7. Wait, that is correct.",
    "It is 7.",
    "It is 7. Wait, that is incorrect. Let me try again. It is 9.",
]


class Saying(ScriptedPolicy):
    """Says these texts in turn; a token is a byte, and a pair of them where `odd` is set."""

    def __init__(self, *texts: str, odd: bool = False, cut: bool = False) -> None:
        super().__init__()
        self.texts, self.odd, self.cut = texts, odd, cut

    def ids(self, text: str) -> list[int]:
        raw = text.encode()
        return [int.from_bytes(raw[i : i + 2], "big") + 1 for i in range(0, len(raw), 2)] if self.odd else list(raw)

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        made = await super().generate(prompt, sampling)
        return [self._told(one, text) for one, text in zip(made, self.texts, strict=True)]

    def _told(self, made: Candidate, text: str) -> Candidate:
        ids = [*self.ids(text), *([] if self.cut else [0])]
        nats = [-0.01 * place for place in range(len(ids))]
        update = {"text": text, "completion_ids": pack_ids(ids), "logprobs": pack_floats(nats)}
        return made.model_copy(update=update | {"finish": "length" if self.cut else "stop"})

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        made = await super().render(prompt, text)
        return made.model_copy(update={"completion_ids": pack_ids([*self.ids(text), 0])})


def drawn(policy: Saying, n: int = 3) -> list[Group]:
    made = method("s2r", *OPTIONS, f"method.sampler.n={n}")
    return asyncio.run(made.sample(PROMPT, policy))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7.", ["7."]),
        ("7. Wait, no. Wait, 8? Let me try again. 8.", ["7. ", "Wait, no. Wait, 8? ", "Let me try again. 8."]),
        ("7. Let me try again. 8. Wait, ok.", ["7. Let me try again. 8. ", "Wait, ok."]),
        ("Wait, what? 7.", ["Wait, what? 7."]),
        ("", [""]),
    ],
)
def test_a_text_is_cut_where_another_part_opens(text: str, found: list[str]) -> None:
    assert segments(text) == found and "".join(found) == text


def test_segments_put_together_are_the_sample_and_each_goes_on_from_the_one_before() -> None:
    groups = drawn(Saying(*THREE))
    (whole,) = [chain for chain in chains(settled(method("s2r", *OPTIONS), *groups).scored) if len(chain) == 4]
    first = whole[0][1]
    assert [c.text for _, c, _ in whole] == segments(THREE[0])
    joined = b"".join(c.completion_ids for _, c, _ in whole)
    assert bytes(unpack_ids(joined)[:-1]).decode() == THREE[0]
    nats = [nat for _, c, _ in whole for nat in unpack_floats(c.logprobs)]
    assert nats == pytest.approx([-0.01 * place for place in range(len(nats))])
    for (_, before, _), (group, after, _) in pairwise(whole):
        assert after.context_ids == before.context_ids + before.completion_ids and group.parent == before.id
        assert group.prompt.sampled_ids == after.context_ids and group.prompt.root == PROMPT.id
    assert [c.finish for _, c, _ in whole] == ["stop_string", "stop_string", "stop_string", "stop"]
    assert groups[0].parent is None and len(groups[0].candidates) == 3 and first in groups[0].candidates


def test_words_that_do_not_begin_at_a_border_of_tokens_open_nothing() -> None:
    """With tokens of two characters, `Wait,` begins inside one where an odd number of characters is before it."""
    text = "It is 7. Wait, that is correct."
    groups = drawn(Saying(text, "It is 7.", "It is 7.", odd=True))
    assert len(text.partition("Wait")[0]) % 2 == 1 and len(groups) == 1
    assert groups[0].candidates[0].text == text
    groups = drawn(Saying("It is  7. Wait, that is correct.", "It is 7.", "It is 7.", odd=True))
    assert [c.text for c in groups[1].candidates] == ["Wait, that is correct."]


def test_solutions_are_judged_by_the_majority_of_the_first_and_verdicts_by_the_solution_before() -> None:
    scored = settled(method("s2r", *OPTIONS), *drawn(Saying(*THREE))).scored
    assert {one.verdict.winner for one in scored} == {"7"} and scored[0].verdict.share == 2 / 3
    rewards = [[reward for _, _, reward in chain] for chain in chains(scored)]
    assert rewards == [[-1, 1, 1, 1], [1], [1, -1, -1]]
    assert scored[0].verdict.answers == ("8", "7", "7") and scored[1].verdict.answers == (None,)


@pytest.mark.parametrize(
    ("text", "last", "right"),
    [
        ("Wait, that is correct.", False, True),
        ("Wait, that is not what was asked.", True, True),
        ("Wait, that is not what was asked.", False, False),
        ("Wait, first I thought it is wrong, but it is right.", False, True),
        ("Wait, the sum is right but the product is Incorrect.", True, False),
        ("Wait, there is an error.", True, False),
        ("Wait, bright and righteous.", False, False),
    ],
)
def test_the_last_word_of_a_verification_is_its_verdict(text: str, last: bool, right: bool) -> None:
    assert verdict_of(text, last) is right


def test_advantages_worked_by_hand() -> None:
    """Rewards -1, 1, 1, 1 with the paper's kind of baselines: the fourth has been seen too rarely."""
    (chain,) = [c for c in chains(settled(method("s2r", *OPTIONS), *drawn(Saying(*THREE))).scored) if len(c) == 4]
    means = {"": 0.2, "-": 0.4, "-+": -0.1, "-++": 0.9}
    tuned = {f"mean {name}": mean for name, mean in means.items()} | {f"seen {name}": 10.0 for name in means}
    tuned["seen -++"] = 7.0
    assert advantages(chain, tuned, 10) == pytest.approx([-1.2, 0.6, 2.2, 2.0])
    tuned["seen -++"] = 10.0
    assert advantages(chain, tuned, 10)[3] == pytest.approx(0.2)
    assert advantages(chain, {}, 10) == pytest.approx([-1, 1, 2, 2])


def test_a_cut_off_segment_is_fined_unless_it_is_the_first() -> None:
    made = method("s2r", *OPTIONS, "method.sampler.n=2")
    groups = drawn(Saying("It is 7. Wait, that is", "It is 7. Wait, that", cut=True), n=2)
    found = [advantages(chain, {}, 10) for chain in chains(settled(made, *groups).scored)]
    assert found == [[1, -1], [1, -1]]
    groups = drawn(Saying("It is", "It is 7. Wait, that is correct", cut=True), n=2)
    scored = settled(made, *groups).scored
    assert [advantages(chain, {}, 10)[0] for chain in chains(scored)] == [-1, 1], "no answer was reached"


def test_every_segment_is_an_example_of_its_own_and_without_an_advantage_it_is_none() -> None:
    made, groups = method("s2r", *OPTIONS), drawn(Saying(*THREE))
    examples = settled(made, *groups).examples
    assert len(examples) == 4 + 1 + 3 and len({example.id for example in examples}) == 8
    told = [(example.rows[0].spans[-1].advantage, example.rows[0].targets) for example in examples]
    assert told[:4] == [(-1, 9), (1, 21), (2, 27), (2, len("Wait, that is correct.") + 1)]
    certain = {"mean ": 1.0, "seen ": 10.0}
    dropped = settled(made, *groups, history=History(tuned={**made.tuned, **certain})).examples
    assert len(dropped) == len(examples) - 2, "the right first solutions were expected"


def test_means_run_over_windows_by_their_numbers_of_prompts() -> None:
    made = method("s2r", *OPTIONS)
    assert made.tune is not None and made.measure is not None and len(beginnings()) == 1 + 2 + 4 + 8
    measured = made.measure(settled(made, *drawn(Saying(*THREE))).scored, made.tuned)
    assert measured["mean "] == pytest.approx(1 / 3) and measured["mean -"] == 1 and measured["mean +"] == -1
    assert "mean --" not in measured

    def facts(tuned: object, **found: tuple[float, int]) -> Facts:
        return Facts(0, 4, 4, {f"mean {name}": each for name, each in found.items()}, tuned)  # type: ignore[arg-type]

    once = made.tune(facts(made.tuned, **{"": (0.5, 4), "-": (-1.0, 2)}))
    twice = made.tune(facts(once, **{"": (-0.5, 12)}))
    assert (twice["mean "], twice["seen "]) == pytest.approx((-0.25, 16)) and twice["mean -"] == -1
    assert twice["seen +"] == 0 and twice["mean +"] == 0
    assert made.tune(facts(twice)) == twice, "nothing new changes nothing"


def test_the_null_control_rewards_verifications_by_lot_and_solutions_as_ever() -> None:
    control = method("s2r", *OPTIONS, "method.options.by_lot=true")
    lots: set[float] = set()
    for seed in range(8):
        policy = Saying(*THREE)
        policy._seed = seed
        scored = settled(control, *drawn(policy)).scored
        rewards = [[reward for _, _, reward in chain] for chain in chains(scored)]
        assert [each[::2] for each in rewards] == [[-1, 1], [1], [1, -1]]
        lots |= {reward for each in rewards for reward in each[1::2]}
    assert lots == {1, -1}
