"""Judges: what they ask, what they read, and what a judgement that cannot be read does."""

import asyncio
import math

import pytest
from pydantic import ValidationError

from core.answers import extractor
from core.config import TextAnswer
from core.errors import ConfigError, PromptError
from core.messages import BASE, Candidate, Finish, Group, PolicyRef, Prompt, Sampling, Scored
from core.messages.model import JUDGE
from core.protocols import Facts, History, Votes
from methods.data.prompts import as_prompt
from methods.judge_prompts import BINARY, PAIR, RUBRIC, SCORE, JudgePrompt, points
from methods.scorers.judge import (
    UNJUDGED,
    Judge,
    Judging,
    Probability,
    is_judgement,
    malformed,
    not_judgement,
    watched,
    yes_no,
)
from methods.scripted_policy import ScriptedPolicy

PROMPT = as_prompt("Why?")
TEXT = extractor(TextAnswer())


def candidate(text: str, finish: Finish = "stop") -> Candidate:
    return Candidate(
        id=f"c-{text}", start=BASE, end=BASE, context_ids=b"", completion_ids=b"", text=text, finish=finish,
        render_id="r",
    )  # fmt: skip


def group(*candidates: Candidate) -> Group:
    return Group(id="g", prompt=PROMPT, candidates=candidates)


def answer_in(prompt: Prompt) -> str:
    return prompt.messages[0].content.partition("Answer:\n")[2].partition("\n")[0]


def saying(said: dict[str, tuple[str, ...]]) -> ScriptedPolicy:
    """Judges each answer with these texts, in turn."""
    return ScriptedPolicy(judge=lambda prompt, index: said[answer_in(prompt)][index])


def judged(policy: ScriptedPolicy, *texts: str, k: int = 3, known: list[Scored] | None = None) -> list[Scored]:
    judge = Judge(RUBRIC, Judging(k=k), TEXT)
    return asyncio.run(judge([group(*map(candidate, texts))], Votes(), policy, known or []))


def stars(*values: object) -> tuple[str, ...]:
    return tuple(f"Good. Score: {value}" for value in values)


FOUR = {"y1": stars(4, 5, 3), "y2": stars(2, 3, "many"), "y3": stars(4, 4, 4), "y4": stars(2, 2, 1)}


def test_a_score_is_the_mean_of_the_judgements_that_could_be_read() -> None:
    scored, *judgements = judged(saying(FOUR), "y1", "y2", "y3", "y4")
    assert scored.verdict.scores == pytest.approx((4, 2.5, 4, 5 / 3)) and scored.verdict.winner == "y1"
    assert [one.verdict.answers for one in judgements][1] == ("2", "3", None)
    assert [one.group.parent for one in judgements] == ["c-y1", "c-y2", "c-y3", "c-y4"]
    assert malformed([scored, *judgements], {}) == {"malformed": 1 / 12}


def test_a_candidate_of_which_no_judgement_could_be_read_has_no_score_and_not_the_lowest() -> None:
    scored, *_ = judged(saying({"y": stars("none", 6, -1), "z": stars(0, 0, 0)}), "y", "z")
    assert scored.verdict.scores == (UNJUDGED, 0.0) and scored.verdict.winner == "z"
    nothing, *_ = judged(saying({"y": stars("none", 6, -1)}), "y")
    assert nothing.verdict.winner is None


def test_a_candidate_that_was_cut_off_is_not_judged() -> None:
    judge = Judge(RUBRIC, Judging(), TEXT)
    cut = group(candidate("y1", "length"), candidate("y3"))
    scored, *judgements = asyncio.run(judge([cut], Votes(), saying(FOUR)))
    assert scored.verdict.scores == (UNJUDGED, 4.0) and len(judgements) == 1


def test_equal_texts_are_judged_once() -> None:
    calls: list[str] = []

    def judge(prompt: Prompt, index: int) -> str:
        calls.append(answer_in(prompt))
        return f"Score: {len(calls)}"

    policy = ScriptedPolicy(judge=judge)
    same = group(candidate("y"), candidate("y").model_copy(update={"id": "other"}))
    scored, *judgements = asyncio.run(Judge(RUBRIC, Judging(), TEXT)([same], Votes(), policy))
    assert scored.verdict.scores == (1.0, 1.0) and calls == ["y"] and judgements[0].group.parent == "c-y"


def test_a_judgement_that_was_cut_off_is_malformed() -> None:
    policy = ScriptedPolicy(judge=lambda prompt, index: "Score: 4 and so on, and so on", cut_ratio=1)
    scored, judgement = judged(policy, "y", k=1)
    assert scored.verdict.scores == (UNJUDGED,) and judgement.verdict.answers == (None,)


def test_stored_judgements_are_not_paid_for_again() -> None:
    policy = saying(FOUR)
    first = judged(policy, "y1", "y2")
    spent = dict(policy.tokens)
    assert judged(policy, "y1", "y2", known=first) == first and dict(policy.tokens) == spent
    assert set(policy.tokens) == {"judge"}
    judged(policy, "y1", "y2", "y3", known=first)
    assert policy.tokens["judge"] > spent["judge"], "a new candidate is judged"


@pytest.mark.parametrize(("version", "asked", "fixed"), [("explore", 3, False), ("base", 0, True)])
def test_the_judge_is_the_version_that_is_explored_or_the_base(version: str, asked: int, fixed: bool) -> None:
    policy = ScriptedPolicy(accuracy={0: 0.5, 3: 0.5})
    policy.explore = PolicyRef(version=3)
    judge = Judge(RUBRIC, Judging.model_validate({"version": version}), TEXT)
    _, judgement = asyncio.run(judge([group(candidate("y"))], Votes(), policy))
    assert judgement.group.policy.version == asked and judgement.group.fixed == fixed


def test_a_candidate_that_is_too_long_to_judge_has_no_score() -> None:
    def fail(prompt: Prompt, call: int) -> Exception | None:
        return PromptError("too long") if "long" in answer_in(prompt) else None

    policy = ScriptedPolicy(fail=fail, judge=lambda prompt, index: "Score: 2")
    for judge in (Judge(RUBRIC, Judging(), TEXT), Probability(RUBRIC, TEXT)):
        scored, judgement = asyncio.run(judge([group(candidate("long"), candidate("short"))], Votes(), policy))
        assert scored.verdict.scores[0] == UNJUDGED < scored.verdict.scores[1]
        assert judgement.group.parent == "c-short"


def test_judgements_are_groups_of_their_own_of_which_nothing_is_learned() -> None:
    scored, judgement = judged(saying(FOUR), "y1")
    assert judgement.group.prompt.role == JUDGE and is_judgement(judgement) and not is_judgement(scored)
    assert not_judgement(judgement, History()) == "judgement" and not_judgement(scored, History()) is None


# --- probabilities ---


class Worded(ScriptedPolicy):
    """Gives the tokens of a word these log-probabilities."""

    def __init__(self, words: dict[str, list[float]]) -> None:
        super().__init__()
        self.words, self.asked = words, 0

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        self.asked += 1
        return self.words[text]


def test_yes_against_no_counts_the_first_token_only() -> None:
    policy = Worded({"Yes": [math.log(0.6), -9.0, -9.0], "No": [math.log(0.2), -0.1]})
    assert asyncio.run(yes_no(policy, PROMPT)) == pytest.approx(0.75)
    sure = Worded({"Yes": [-2000.0], "No": [0.0]})
    assert asyncio.run(yes_no(sure, PROMPT)) == pytest.approx(0)


def test_a_probability_is_stored_and_not_asked_for_again() -> None:
    policy = Worded({"Yes": [math.log(0.6)], "No": [math.log(0.2)]})
    judge = Probability(RUBRIC, TEXT)
    first = asyncio.run(judge([group(candidate("y"))], Votes(), policy))
    assert first[0].verdict.scores == pytest.approx((0.75,)) and policy.asked == 2
    assert asyncio.run(judge([group(candidate("y"))], Votes(), policy, first)) == first and policy.asked == 2
    assert malformed(first, {}) == {}, "nothing was sampled that could be malformed"


# --- prompts ---


@pytest.mark.parametrize(
    ("text", "points_found"),
    [
        ("Score: 4", 4),
        ("score = 4.", 4),
        ("**Score:** 3.5", 3.5),
        ("Score: 2. No: Score: 5/5", 5),
        ("Score: <1>", 1),
        ("Score: 0", 0),
        ("Score: 6", None),
        ("Score: -1", None),
        ("Score: 45", None),
        ("Score: 4/10", None),
        ("Score: 4 / 10", None),
        ("Score: 3.5.1", None),
        ("Score: four", None),
        ("I give it 4 points", None),
        ("", None),
    ],
)
def test_points_are_read_from_the_last_line_that_states_them_within_their_range(
    text: str, points_found: float | None
) -> None:
    assert points(0, 5)(text) == points_found


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        (BINARY, "Verdict: no, wait. Verdict: **Yes**", 1),
        (BINARY, "Verdict: no", 0),
        (BINARY, "Verdict: nobody knows", None),
        (BINARY, "yes", None),
        (PAIR, "Winner: A", 1),
        (PAIR, "winner: b.", 0),
        (PAIR, "Winner: A or B? Winner: neither", 1),
        (PAIR, "Winner: both", None),
        (SCORE, "Score: 7/10", 0.7),
        (SCORE, "Score: 0", None),
    ],
)
def test_a_verdict_is_read_or_none(form: JudgePrompt, text: str, found: float | None) -> None:
    assert form.read(text) == found


def test_a_judge_prompt_shows_question_and_answer_as_they_are() -> None:
    asked = RUBRIC.about(as_prompt("What is {answer}?"), answer="{question} {shoe}")
    assert "What is {answer}?" in asked.messages[0].content and "{question} {shoe}" in asked.messages[0].content
    other = RUBRIC.about(as_prompt("What is {answer}?"), answer="another")
    assert asked.id != other.id and asked.role == JUDGE
    assert SCORE.about(as_prompt("What is {answer}?"), answer="another").id != other.id


# --- the rate of malformed judgements ---


def facts(rate: float | None) -> Facts:
    measured = {} if rate is None else {"malformed": (rate, 10)}
    return Facts(window=3, prompts=16, kept=8, measured=measured, tuned={"malformed": 0.0})


def test_a_judge_that_cannot_be_read_is_refused_by_name_with_the_remedy() -> None:
    assert watched("self_rewarding", Judging(), facts(0.5)) == 0.5
    assert watched("self_rewarding", Judging(), facts(None)) == 0
    with pytest.raises(ConfigError, match=r"51% .* self_rewarding in window 3 .* most 50%; raise method\.options\.ju"):
        watched("self_rewarding", Judging(), facts(0.51))


@pytest.mark.parametrize("temperature", [-0.1, 5.1])
def test_a_temperature_out_of_bounds_is_refused(temperature: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        Judging(temperature=temperature)
    assert Judging(temperature=5).temperature == 5 and Judging(temperature=0).temperature == 0


def test_equal_judgements_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k=3 judgements at temperature 0 are equal; use k=1, or"):
        Judging(k=3, temperature=0)


def test_judgements_are_sampled_for_judging() -> None:
    seen: list[Sampling] = []

    class Spy(ScriptedPolicy):
        async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
            seen.append(sampling)
            return await super().generate(prompt, sampling, ref)

    asyncio.run(Judge(RUBRIC, Judging(k=2, max_tokens=9), TEXT)([group(candidate("y"))], Votes(), Spy()))
    assert seen == [Sampling(n=2, temperature=0.7, top_p=0.9, max_tokens=9, purpose="judge")]


@pytest.mark.parametrize("k", [0, 65])
def test_a_number_of_judgements_out_of_bounds_is_refused(k: int) -> None:
    with pytest.raises(ValidationError, match="k"):
        Judging(k=k)
