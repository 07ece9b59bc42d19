"""Teaches the winning texts in more formats than the one that was sampled.

    1  as sampled: examples, if the prompt has any, and the question -> text
    2  the same examples without their reasoning, and the question -> "The answer is X."
    3  the question and "Let's think step by step.", without examples -> text
    4  the question, without examples -> "The answer is X."

The examples of a prompt are the turns before its last message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.codec import stable_id
from core.errors import PromptError
from core.messages import Candidate, ChatMessage, Group, Prompt, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.data.prompts import as_prompt

Format = Literal[2, 3, 4]


@dataclass(frozen=True)
class Formats:
    """Another scorer's judgments, and of each sampled group with winners one more group for each format, in which every
    winner has a candidate. A prompt without examples has no format 2, which would equal format 4."""

    of: Scorer
    extract: Extract
    formats: tuple[Format, ...]

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        scored = await self.of(groups, votes, policy, known)
        before = {one.group.id: one.group for one in known}
        extra = [
            await self._in_format(number, one, policy, before)
            for one in scored
            if one.group.by == "sample"
            for number in self.formats
        ]
        return [*scored, *(one for one in extra if one is not None)]

    async def _in_format(
        self, number: Format, scored: Scored, policy: Policy, before: dict[str, Group]
    ) -> Scored | None:
        winner, asked = scored.verdict.winner, reworded(scored.group.prompt, number, self.extract)
        judged = zip(scored.group.candidates, scored.verdict.scores, scored.verdict.answers, strict=True)
        winners = [candidate for candidate, score, answer in judged if score > 0 and answer is not None]
        if winner is None or asked is None or not winners:
            return None
        name = stable_id("format", str(number), scored.group.id, *(candidate.id for candidate in winners))
        try:
            group = before.get(name) or await _rendered(name, number, asked, winners, winner, policy)
        except PromptError:  # too long for the engine
            return None
        update = {"scores": (1.0,) * len(winners), "answers": (winner,) * len(winners)}
        shares = (scored.verdict.share,) * len(winners) if scored.verdict.shares else ()
        return Scored(group=group, verdict=scored.verdict.model_copy(update=update | {"shares": shares}))


def reworded(prompt: Prompt, number: Format, extract: Extract) -> Prompt | None:
    """The prompt in another format; None for format 2 of a prompt without examples that have an answer."""
    system = [message for message in prompt.messages[:-1] if message.role == "system"]
    question = prompt.messages[-1]
    examples: list[ChatMessage] = []
    if number == 2:
        examples = _direct([message for message in prompt.messages[:-1] if message.role != "system"], extract)
        if not examples:
            return None
    if number == 3:
        question = ChatMessage(role="user", content=f"{question.content}\nLet's think step by step.")
    chat = [message.model_dump() for message in (*system, *examples, question)]
    return as_prompt(chat, origin=prompt.origin)


def direct(answer: str) -> str:
    return f"The answer is {answer}."


def _direct(turns: Sequence[ChatMessage], extract: Extract) -> list[ChatMessage]:
    """Examples with nothing but their answers. Examples without an answer are left out."""
    kept: list[ChatMessage] = []
    for asked, said in zip(turns[::2], turns[1::2], strict=False):
        answer = extract(said.content, stated=True)
        if answer is not None:
            kept += [asked, ChatMessage(role="assistant", content=direct(answer))]
    return kept


async def _rendered(
    name: str, number: Format, asked: Prompt, winners: Sequence[Candidate], winner: str, policy: Policy
) -> Group:
    candidates: list[Candidate] = []
    for path in winners:
        candidate = await policy.render(asked, path.text if number == 3 else direct(winner))
        update = {"id": stable_id("format", name, path.id), "start": path.start, "end": path.end}
        candidates.append(candidate.model_copy(update=update))
    return Group(id=name, prompt=asked, candidates=tuple(candidates))
