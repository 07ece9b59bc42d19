import asyncio
import random

import pytest

from core.config import GateConfig
from core.errors import Unavailable
from core.messages import BASE, Candidate, ChatMessage, PolicyRef, Prompt
from core.messages.versions import Question
from core.store.facts import GateLedger
from training.gate.gate import Gate
from training.gate.guards import Answer
from training.gate.weighing import BASE_PROBES, Weighing, answered, distinct, greedy_candidates


class FakePolicy:
    """Answers right at the version's rate, and always gives the same answer to the same question."""

    def __init__(self, rates: dict[int, float], finish: str = "stop") -> None:
        self.rates = rates
        self.finish = finish
        self.asked: list[tuple[int, str]] = []
        self.now = self.peak = 0

    async def generate(self, prompt, sampling, ref=None):
        assert sampling.temperature == 0 and sampling.n == 1 and ref is not None
        self.asked.append((ref.version, prompt.id))
        self.now += 1
        self.peak = max(self.peak, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if ref.version not in self.rates:
            raise Unavailable("no replica")
        right = random.Random(prompt.id).random() < self.rates[ref.version]
        return [
            Candidate(
                id="c",
                start=ref,
                end=ref,
                context_ids=b"",
                completion_ids=b"",
                text=self.answer(prompt, ref, right),
                finish=self.finish,
                render_id="r",
            )
        ]

    def answer(self, prompt, ref, right: bool) -> str:
        return prompt.id if right else "wrong"

    async def logprobs(self, prompt, text, ref=None):
        return []


def questions(n: int) -> list[Question]:
    return [
        Question(Prompt(id=f"q{i}", messages=(ChatMessage(role="user", content=f"{i}?"),)), f"q{i}") for i in range(n)
    ]


def ask(policy, n, version=1, **kwargs):
    said = asyncio.run(greedy_candidates(policy, questions(n), PolicyRef(version=version), 8, **kwargs))
    return [answered(*each, lambda text: text).hit for each in zip(questions(n), said, strict=True)]


def test_hits_come_in_the_order_of_the_questions_and_are_asked_together():
    policy = FakePolicy({1: 0.5})
    hits = ask(policy, 40, concurrency=10)
    assert hits == [random.Random(f"q{i}").random() < 0.5 for i in range(40)]
    assert policy.peak == 10


def test_an_answer_that_was_cut_off_is_a_miss():
    assert ask(FakePolicy({1: 1.0}, finish="length"), 3) == [False] * 3


def test_a_broken_policy_raises_and_gives_no_partial_result():
    with pytest.raises(Unavailable):
        ask(FakePolicy({}), 3)


def weighing(policy, gate, n, version, cache, champion=BASE, seed=0, certified=False):
    return Weighing(
        policy,
        gate,
        questions(n) if isinstance(n, int) else n,
        random.Random(seed),
        PolicyRef(version=version),
        champion,
        lambda text: text,
        max_tokens=8,
        certified=certified,
        cache=cache,
    )


def run_weigh(policy, gate, n, version, cache, champion=BASE):
    made = weighing(policy, gate, n, version, cache, champion)
    return asyncio.run(made.verdict()), made.evidence


def test_a_better_candidate_is_promoted_in_one_batch_and_the_champion_is_asked_once():
    policy, cache = FakePolicy({0: 0.2, 1: 0.9, 2: 0.1}), {}
    gate = Gate(GateConfig(batch=64))
    decision, evidence = run_weigh(policy, gate, 500, 1, cache)
    assert decision.verdict == "promote" and decision.new_champion and not decision.certified
    assert len(evidence.candidate_hits) == 64 == decision.probes
    decision, _ = run_weigh(policy, gate, 500, 2, cache, champion=PolicyRef(version=1))
    assert decision.verdict == "reject"
    assert len(policy.asked) == len(set(policy.asked)), "no version is asked the same question twice"


def test_when_the_probes_are_used_up_the_candidate_is_held():
    gate = Gate(GateConfig(batch=16))
    decision, evidence = run_weigh(FakePolicy({0: 0.5, 1: 0.5}), gate, 40, 1, {})
    assert decision.verdict == "hold" and len(evidence.champion_hits) == 40
    assert run_weigh(FakePolicy({}), gate, 0, 2, {})[0].verdict == "hold"
    assert "undecided after all 40 probes; if it goes on so, " in decision.reason
    assert decision.reason.endswith("probes decide it nine of ten times: bring more of them")


def test_a_watch_is_taken_up_from_known_answers_or_not_at_all():
    cache, policy = {}, FakePolicy({0: 0.6, 1: 0.66})
    before = weighing(policy, Gate(GateConfig(batch=16)), 2000, 1, cache)
    decision = asyncio.run(before.verdict())
    asked = len(policy.asked)
    again = weighing(policy, Gate(GateConfig(batch=16)), 2000, 1, cache)
    assert again.take_up(decision) is True
    assert (again.decision, again.evidence, len(policy.asked)) == (decision, before.evidence, asked)
    del cache[PolicyRef(version=1), before._order[decision.probes - 1].prompt.id]
    assert weighing(policy, Gate(GateConfig(batch=16)), 2000, 1, cache).take_up(decision) is False


FIRST = GateLedger(champion=PolicyRef(version=1))


def test_a_watch_needs_every_answer_of_the_base_to_the_probes_that_guard() -> None:
    cache, policy = {}, FakePolicy({0: 0.6, 1: 0.6, 2: 0.7})
    asyncio.run(weighing(policy, Gate(GateConfig(batch=16), FIRST), 2000, 2, cache, PolicyRef(version=1)).verdict())
    again = weighing(policy, Gate(GateConfig(batch=16), FIRST), 2000, 2, cache, PolicyRef(version=1))
    decision = asyncio.run(again.verdict())
    del cache[BASE, again._order[1].prompt.id]
    once_more = weighing(policy, Gate(GateConfig(batch=16), FIRST), 2000, 2, cache, PolicyRef(version=1))
    assert once_more.take_up(decision) is False


def test_who_keeps_the_answers_is_told_of_every_version_that_was_asked() -> None:
    told: list[PolicyRef] = []

    async def learned(refs: list[PolicyRef]) -> None:
        told.extend(refs)

    made = weighing(
        FakePolicy({0: 0.5, 1: 0.5, 2: 0.9}), Gate(GateConfig(batch=16), FIRST), 300, 2, {}, PolicyRef(version=1)
    )
    made.learned = learned
    asyncio.run(made.verdict())
    assert set(told) == {BASE, PolicyRef(version=1), PolicyRef(version=2)}


def test_a_promoted_version_that_is_better_becomes_the_champion_when_asked_on():
    gate = Gate(GateConfig(batch=16))
    made = weighing(FakePolicy({0: 0.6, 1: 0.66}), gate, 2000, 1, {})
    decision = asyncio.run(made.verdict())
    assert decision.verdict == "promote" and not decision.new_champion
    seen = asyncio.run(made.crown())
    assert seen is not None and seen.result == "crowned"
    assert gate.ledger.champion == PolicyRef(version=1)
    assert len(made.evidence.candidate_hits) > decision.probes


def test_a_promoted_version_that_is_merely_equal_never_becomes_the_champion():
    gate = Gate(GateConfig(batch=64))
    made = weighing(FakePolicy({0: 0.5, 1: 0.5}), gate, 2000, 1, {})
    if asyncio.run(made.verdict()).verdict == "promote":
        assert not asyncio.run(made.crown())
    assert gate.ledger.champion == BASE


def test_the_base_answers_the_first_probes_too_each_once():
    policy, cache = FakePolicy({0: 0.6, 1: 0.6, 2: 0.6}), {}
    gate = Gate(GateConfig(), GateLedger(champion=PolicyRef(version=1)))
    made = weighing(policy, gate, 2000, 2, cache, champion=PolicyRef(version=1))
    asyncio.run(made.verdict())
    assert sum(version == 0 for version, _ in policy.asked) == min(BASE_PROBES, made.asked)
    assert len(policy.asked) == len(set(policy.asked))


def test_after_a_promotion_the_same_order_is_asked_on_and_a_fall_is_seen():
    policy = FakePolicy({0: 0.95, 1: 0.95})
    gate = Gate(GateConfig(max_probes=1000, watch_probes=256))
    made = weighing(policy, gate, 2000, 1, {})
    decision = asyncio.run(made.verdict())
    assert decision.verdict == "promote" and asyncio.run(made.crown()) is None
    policy.rates[1] = 0.3
    for _ in range(4):
        seen = asyncio.run(made.watch())
        if seen is not None:
            break
    assert seen is not None and seen.result == "rollback" and "0.03 worse than the champion" in seen.reason
    assert decision.probes < seen.probes <= decision.probes + 256
    assert len(policy.asked) == len(set(policy.asked)), "a probe was asked twice"


def test_a_watch_ends_after_its_probes_when_nothing_is_found():
    gate = Gate(GateConfig(max_probes=1000, watch_probes=100, batch=64))
    made = weighing(FakePolicy({0: 0.95, 1: 0.95}), gate, 2000, 1, {})
    asyncio.run(made.verdict())
    assert asyncio.run(made.crown()) is None
    assert asyncio.run(made.watch()) is None
    seen = asyncio.run(made.watch())
    assert seen is not None and (seen.result, seen.reason) == (
        "nothing",
        "nothing against it on 128 probes asked since",
    )


# --- which probes are asked, and what they show ----------------------------------------------------------------------


def order_of(seed: int) -> list[str]:
    policy = FakePolicy({0: 0.6, 1: 0.6})
    asyncio.run(weighing(policy, Gate(GateConfig(max_probes=128)), 2000, 1, {}, seed=seed).verdict())
    return [id for version, id in policy.asked if version == 1]


def test_the_probes_are_a_random_choice_in_an_order_that_the_seed_alone_decides():
    first, again, other = order_of(1), order_of(1), order_of(2)
    assert first == again and len(first) == 128
    assert first != other and first != [f"q{i}" for i in range(128)]
    asked = sorted(int(id[1:]) for id in first)
    assert asked[0] < 200 and asked[-1] > 1800, "only a part of the file is asked"
    assert [int(id[1:]) for id in first[:64]] != asked[:64]


class Narrow(FakePolicy):
    """The base answers its rate of the questions; versions 1 and 2 fewer and fewer different ones, all of them hits."""

    def answer(self, prompt, ref, right: bool) -> str:
        number = int(prompt.id[1:])
        return f"a{number % {0: 40, 1: 20, 2: 14}[ref.version]}"


def narrow(n: int) -> list[Question]:
    return [Question(question.prompt, f"a{int(question.prompt.id[1:]) % 40}") for question in questions(n)]


def test_a_decline_that_the_champion_shares_is_rejected_against_the_base():
    gate = Gate(GateConfig(), GateLedger(champion=PolicyRef(version=1)))
    made = weighing(Narrow({0: 1, 1: 1, 2: 1}), gate, narrow(2000), 2, {}, champion=PolicyRef(version=1))
    decision = asyncio.run(made.verdict())
    assert decision.verdict == "reject" and "of the base on the same 64 probes" in decision.reason


@pytest.mark.parametrize("certified", [True, False])
def test_keys_in_a_spelling_that_no_answer_has_promote_nobody_and_say_so(certified):
    floats = [Question(question.prompt, f"{question.answer}.0") for question in questions(2000)]
    gate = Gate(GateConfig())
    for version in (1, 2):
        made = weighing(FakePolicy({0: 0.4, 1: 0.9, 2: 0.6}), gate, floats, version, {}, certified=certified)
        decision = asyncio.run(made.verdict())
        what, setting = ("keys", "gate.keys") if certified else ("anchors", "gate.anchors")
        assert decision.verdict == "hold" and decision.probes < 400
        assert decision.reason.startswith(
            f"the {what} look broken: of {decision.probes} probes 0 by policy@v0 and 0 by"
        )
        assert f"check the answers in {setting}" in decision.reason and "said 'q" in decision.reason


def test_the_same_question_twice_is_asked_once_and_is_no_evidence_of_its_own():
    def told(i: int, text: str, answer: str) -> Question:
        return Question(Prompt(id=f"q{i}", messages=(ChatMessage(role="user", content=text),)), answer)

    spellings = ("How many?", "how  many", "How many ?!", "\uff28ow many?")
    repeated = [told(i, f"{i % 20}: {spellings[i % 4]}", f"q{i % 20}") for i in range(2000)]
    assert len(distinct(repeated)) == 20
    policy = FakePolicy({0: 1.0, 1: 1.0})
    decision = asyncio.run(weighing(policy, Gate(GateConfig()), repeated, 1, {}).verdict())
    assert (decision.verdict, decision.probes) == ("hold", 20)
    others = [told(0, "12 + 7?", "19"), told(1, "12 - 7?", "5"), told(2, "12 * 7?", "84"), told(3, "13 + 7?", "20")]
    assert distinct(others) == others


def test_a_chat_is_the_same_only_with_the_same_turns_before():
    def chat(id: str, *turns: str) -> Question:
        roles = ("user", "assistant", "user")
        messages = tuple(ChatMessage(role=r, content=t) for r, t in zip(roles, turns, strict=True))
        return Question(Prompt(id=id, messages=messages), "x")

    asked = [chat("a", "one", "yes", "and?"), chat("b", "two", "yes", "and?"), chat("c", "One.", "Yes!", "And?")]
    assert distinct(asked) == asked[:2]


def test_an_answer_that_never_came_is_a_miss_without_tokens() -> None:
    (question,) = questions(1)
    assert answered(question, None, lambda text: text) == Answer(hit=False, value=None, tokens=0)
