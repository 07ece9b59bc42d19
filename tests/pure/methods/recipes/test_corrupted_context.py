"""Pairs with and without the evidence. Numbers worked by hand."""

import asyncio
from statistics import fmean

import pytest

from core.errors import ConfigError
from core.messages import ChatMessage, Prompt, Scored, Verdict
from core.objectives import Dpo
from core.protocols import History
from methods.data.prompts import as_prompt
from methods.evidence import Divided, blinded, divided, overlap
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.evidence_pairs import EvidencePairs
from tests.pure.methods.recipes.hand_made import PROMPT, group, method, settled, texts

SHORT = as_prompt("How many fruits are there?")
SEEING = group("Ann has 3 apples", "3 apples and 4 pears", "seven", name="seeing")
BLIND = group("I guess ten", "Ann has 4 pears", "seven fruits", name="blind")


def scored(name: str, *scores: float) -> Scored:
    one = group(*(f"{name} {score}" for score in scores), name=name)
    verdict = Verdict(scores=scores, answers=tuple(c.text for c in one.candidates), winner=None, share=0, margin=0)
    return Scored(group=one, verdict=verdict)


@pytest.mark.parametrize(("seeing", "blind", "chosen"), [(0.6, 0.2, "seeing"), (0.2, 0.6, "blind"), (0.5, 0.45, None)])
def test_a_pair_is_kept_flipped_or_dropped_by_its_difference(seeing: float, blind: float, chosen: str | None) -> None:
    one, other = scored("seeing", seeing), scored("blind", blind)
    pairs = [texts(e, one.group, other.group) for e in EvidencePairs("m", 0.1)([one, other], History())]
    assert [first.split()[0] for first, _ in pairs] == ([] if chosen is None else [chosen])


def test_the_evidence_is_what_is_said_before_the_last_question() -> None:
    assert divided(PROMPT) == Divided(
        frozenset({"ann", "has", "3", "apples", "and", "4", "pears"}), "How many fruits are there?"
    )
    two = as_prompt("Is it raining? Bob has 2.5 litres.\nHow much is it? Answer with a number.")
    assert divided(two) == Divided(
        frozenset({"raining", "bob", "has", "2.5", "litres"}), "How much is it? Answer with a number."
    )


@pytest.mark.parametrize("text", ["How many are there?", "Count to 3. Then stop.", "What? What?"])
def test_a_prompt_without_evidence_or_without_a_question_cannot_be_divided(text: str) -> None:
    assert divided(as_prompt(text)) is None


def test_only_the_last_user_message_is_blinded() -> None:
    said = [
        ("system", "Be brief. Ok?"),
        ("user", "One. Two?"),
        ("assistant", "2"),
        ("user", "Ann is 3. How old is she?"),
    ]
    chat = Prompt(id="p", messages=tuple(ChatMessage(role=role, content=text) for role, text in said))  # type: ignore[arg-type]
    parts = divided(chat)
    assert parts is not None and parts.question == "How old is she?"
    assert [m.content for m in blinded(chat, parts.question).messages] == [
        *(text for _, text in said[:3]),
        "How old is she?",
    ]


def test_overlap_counts_words_of_the_evidence_once() -> None:
    assert overlap("3 apples, 3 APPLES!", frozenset({"ann", "has", "3", "apples"})) == 0.5


def test_texts_that_use_the_evidence_are_above_those_that_do_not() -> None:
    kept = settled(method("corrupted_context"), SEEING, BLIND)
    assert [one.verdict.scores for one in kept.scored] == [
        pytest.approx((4 / 7, 5 / 7, 0)),
        pytest.approx((0, 4 / 7, 0)),
    ]
    assert [texts(example, SEEING, BLIND) for example in kept.examples] == [
        ["Ann has 3 apples", "I guess ten"],
        ["3 apples and 4 pears", "Ann has 4 pears"],
    ]
    assert method("corrupted_context").objective == Dpo(beta=0.1, reference="parent")


def test_a_larger_margin_makes_fewer_pairs_and_a_cut_off_text_none() -> None:
    assert len(settled(method("corrupted_context", "method.options.margin=0.2"), SEEING, BLIND).examples) == 1
    cut = group("I guess ten", name="blind", cut=[0])
    assert not settled(method("corrupted_context"), SEEING, cut).examples


def test_equal_pairs_are_one_example() -> None:
    seeing, blind = group("Ann has 3", "Ann has 3", name="s"), group("none", "none", name="b")
    assert len(settled(method("corrupted_context"), seeing, blind).examples) == 1


def test_a_blind_text_is_put_behind_the_whole_prompt() -> None:
    policy = ScriptedPolicy(accuracy={0: 0.5})
    seeing, blind = asyncio.run(method("corrupted_context").sample(PROMPT, policy))
    assert len(seeing.candidates) == len(blind.candidates) == 8 and blind.prompt == PROMPT
    assert {c.context_ids for c in blind.candidates} == {c.context_ids for c in seeing.candidates}
    assert len({c.id for c in (*seeing.candidates, *blind.candidates)}) == 16
    asked: list[str] = []

    class Listening(ScriptedPolicy):
        async def generate(self, prompt, sampling, ref=None):  # type: ignore[override]
            asked.append(prompt.messages[-1].content)
            return await super().generate(prompt, sampling, ref)

    asyncio.run(method("corrupted_context").sample(PROMPT, Listening(accuracy={0: 0.5})))
    assert asked == [PROMPT.messages[-1].content, "How many fruits are there?"]


def test_a_question_alone_is_dropped_with_its_reason_and_costs_one_sample() -> None:
    made = method("corrupted_context")
    (one,) = asyncio.run(made.sample(SHORT, ScriptedPolicy()))
    assert len(one.candidates) == 1
    kept = settled(made, one)
    assert not kept.examples and kept.drops == {"no_evidence": 1}


def test_the_null_control_uses_the_evidence_no_more_on_one_side_than_on_the_other() -> None:
    parts = divided(PROMPT)
    assert parts is not None

    def ahead(*options: str) -> float:
        found = []
        for name in range(100):
            one, other = group("Ann has 3 apples", name=f"s{name}"), group("I guess ten", name=f"b{name}")
            for example in settled(method("corrupted_context", *options), one, other).examples:
                chosen, rejected = texts(example, one, other)
                found.append(overlap(chosen, parts.evidence) - overlap(rejected, parts.evidence))
        return fmean(found)

    assert ahead() == pytest.approx(4 / 7)
    assert abs(ahead("method.options.shuffled=true")) < 0.15


def test_it_needs_samples_that_differ() -> None:
    with pytest.raises(ConfigError, match="recipe corrupted_context needs different samples"):
        method("corrupted_context", "method.sampler.n=1")
