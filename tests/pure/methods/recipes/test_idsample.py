"""Answers that check themselves, by hand: where the checks stand, who votes, and which tokens are learned."""

import asyncio
from collections.abc import Sequence

import pytest

from core.codec import pack_ids, unpack_ids
from core.errors import ConfigError
from core.messages import Candidate, Group, PolicyRef, Prompt, Sampling
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, correction, method, settled

OPTIONS = ("method.options.first=10", "method.options.trigger='[?]'", "method.sampler.max_tokens=40")


class Writer(ScriptedPolicy):
    """Answer i is `texts[i]`, a token a byte, in as many calls as it takes."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.left, self.asked = list(texts), list[int]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        self.asked.append(sampling.max_tokens)
        made = await super().generate(prompt, sampling, ref)
        places = range(len(made)) if prompt.new_messages else [prompt.sampled_ids[4 * 2]]  # after the context
        return [self._part(c, prompt, sampling.max_tokens, i) for c, i in zip(made, places, strict=True)]

    def _part(self, made: Candidate, prompt: Prompt, most: int, place: int) -> Candidate:
        text, self.left[place] = self.left[place][:most], self.left[place][most:]
        ids = [place, *text.encode()[1:]] if prompt.new_messages else list(text.encode())
        return made.model_copy(
            update={
                "id": f"{place}-{len(self.asked)}-{text}",
                "text": text,
                "context_ids": prompt.sampled_ids or pack_ids([101, 102]),
                "completion_ids": pack_ids(ids),
                "finish": "length" if self.left[place] else "stop",
            }
        )

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        made = await super().render(prompt, text)
        return made.model_copy(update={"completion_ids": pack_ids([*text.encode(), 0])})


def sampled(*texts: str, more: Sequence[str] = ()) -> tuple[list[Group], Writer]:
    policy = Writer(*texts)
    made = method("idsample", *OPTIONS, f"method.sampler.n={len(texts)}", *more)
    return asyncio.run(made.sample(PROMPT, policy)), policy


def learned(groups: list[Group], *more: str, **given: object) -> list[str]:
    """The learned texts of each row; where something is context, a bar."""
    found: list[str] = []
    for made in settled(method("idsample", *OPTIONS, *more), *groups, **given).examples:  # type: ignore[arg-type]
        ids, at, text = unpack_ids(made.rows[0].token_ids), 0, ""
        for span in made.rows[0].spans:
            text += "".join(map(chr, ids[at : at + span.tokens])) if span.weight else "|"
            at += span.tokens
        found.append(text)
    return found


LONG = "?" + "a" * 9 + "b" * 10 + "is 7"  # ends with its third part
SHORT = "?is 7"
WRONG = "?" + "c" * 9 + "is 8"


def test_checks_stand_at_growing_bounds_and_end_with_the_answer_or_the_tokens() -> None:
    groups, policy = sampled(LONG, SHORT, "?" + "x" * 99)
    assert policy.asked[:1] == [10] and sorted(policy.asked[1:]) == [10, 10, 20, 20]
    assert [[c.text for c in group.candidates] for group in groups] == [
        ["?" + "a" * 9, "?is 7", "?" + "x" * 9],
        ["b" * 10],
        ["?" + "a" * 9 + "[?]" + "b" * 10 + "[?]is 7"],
        ["x" * 10],
        ["?" + "x" * 9 + "[?]" + "x" * 10 + "[?]" + "x" * 20],
    ]
    parents = [group.parent for group in groups]
    assert parents == [None, groups[0].candidates[0].id, groups[1].candidates[0].id, *parents[3:]]
    assert parents[3] == groups[0].candidates[2].id and parents[4] == groups[3].candidates[0].id


def test_only_ends_vote_and_the_words_of_the_check_are_not_learned() -> None:
    extract = "method.answer={kind: pattern, pattern: 'is (.)$'}"
    groups, _ = sampled(LONG, SHORT, WRONG, more=[extract])
    assert settled(method("idsample", *OPTIONS, extract), *groups).scored[0].verdict.share == pytest.approx(2 / 3)
    first, second = "|\0" + "a" * 9 + "|" + "b" * 10 + "|is 7", "|\x01is 7"
    assert learned(groups, extract) == [first, second]
    assert learned(groups, extract, "method.options.max_winners=1") == [first]
    assert learned(groups, extract, "method.options.min_share=0.9") == []
    written = learned(groups, extract, votes=[correction("it is 8")])[-1]
    assert "".join(chr(ord(letter) - 1) for letter in written[1:-1]) == "it is 8", "what people wrote, as it is"


def test_bounds_without_room_for_a_check_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.options\.first=40 leaves no room for a check within .*=40"):
        method("idsample", *OPTIONS, "method.options.first=40")
