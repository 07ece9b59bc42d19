"""Partial answers as states of a search: their next steps are sampled, and rollouts say what they are worth."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from core.config import Part
from core.messages import Candidate, Finish, Group, Prompt
from core.protocols import ModeAnswer, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import grouped, sampling_of
from methods.scorers.majority import answer_of, count
from methods.search import Step
from methods.turns import going_on

STEPS, ENDS = "steps", "ends"
"""Kinds of groups: the next steps of a partial answer, and rollouts from it."""
TRIES = 5
"""Calls for a step that differs from its siblings."""


class StepShape(Part):
    """How answers are cut into steps, in modes and in recipes."""

    depth: int = Field(default=4, ge=1, le=32)
    """The most steps; what is longer is finished by its rollouts."""
    rollouts: int = Field(default=2, ge=1, le=8)
    stop: str = Field(default=". ", min_length=1)
    """What ends a step."""


class StepSettings(StepShape, ModeSettings):
    """What a request may set in every mode that searches among steps."""


@dataclass(frozen=True)
class Partial:
    """The beginning of an answer, or a whole one."""

    prompt: Prompt
    """The chat that goes on from here."""
    text: str = ""
    finish: Finish = "stop_string"
    answer: str | None = None
    """Of a whole one."""
    last: str | None = None
    """The id of its last candidate."""


@dataclass
class Steps:
    """Grows the answers to one prompt. A step ends with `stop`. Its value is the part of its `rollouts` that reach the
    answer which most of all rollouts so far reach: no label, and no model of its own. The value of a whole answer is
    its share among them."""

    shared: Shared
    policy: Policy
    progress: Progress
    stop: str
    rollouts: int
    whole: list[Partial] = field(default_factory=list[Partial])
    """Every whole answer that was seen."""
    _known: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Prompt id -> texts of the steps that it has."""
    _drawn: dict[tuple[str, str], tuple[Partial, list[Candidate]]] = field(
        default_factory=dict[tuple[str, str], tuple[Partial, list[Candidate]]]
    )
    """Kind and prompt id -> where they begin, and what was drawn."""

    async def grow(self, state: Partial, width: int) -> list[Step[Partial]]:
        known = self._known.setdefault(state.prompt.id, set())
        found: list[Candidate] = []
        for _ in range(TRIES):
            missing = width - len(found)
            if not missing:
                break
            drawn = await self.policy.generate(
                state.prompt, sampling_of(self.shared.sampler, n=missing, stop=(self.stop,))
            )
            found += [c for i, c in enumerate(drawn) if c.text not in known | {d.text for d in drawn[:i]}]
            known |= {candidate.text for candidate in drawn}
        self._keep(STEPS, state, found)
        return list(await asyncio.gather(*(self._valued(state, candidate) for candidate in found)))

    async def _valued(self, state: Partial, candidate: Candidate) -> Step[Partial]:
        step = self._partial(state, candidate)
        if step.finish != "stop_string":
            self._note([step])
            return Step(step, self._shares().get(step.answer or "", 0.0), final=True)
        drawn = await self.policy.generate(step.prompt, sampling_of(self.shared.sampler, n=self.rollouts))
        self._keep(ENDS, step, drawn)
        ends = [self._partial(step, each) for each in drawn]
        self._note(ends)
        winner = max(self._shares().items(), key=lambda pair: pair[1], default=(None, 0.0))[0]
        return Step(step, sum(end.answer == winner for end in ends if winner) / len(ends), final=False)

    def _partial(self, state: Partial, candidate: Candidate) -> Partial:
        text = state.text + candidate.text
        whole = candidate.model_copy(update={"text": text})
        answer = answer_of(whole, self.shared.extract)
        return Partial(going_on(state.prompt, candidate), text, candidate.finish, answer, candidate.id)

    def _keep(self, kind: str, start: Partial, drawn: Sequence[Candidate]) -> None:
        self._drawn.setdefault((kind, start.prompt.id), (start, []))[1].extend(drawn)

    def groups(self) -> list[Group]:
        """All that was drawn, the first steps first. What two calls drew of one partial answer is one group; its
        `parent` is the step that it goes on from."""
        found = [
            grouped(start.prompt, drawn, kind=kind, parent=start.last)
            for (kind, _), (start, drawn) in self._drawn.items()
        ]
        return [group for group in found if group.candidates]

    def _note(self, ends: Sequence[Partial]) -> None:
        self.whole += ends
        self.progress.so_far(self.elected())
        self.progress.aside(f"{len(self.whole)} whole answers")

    def _shares(self) -> dict[str, float]:
        counts = Counter(end.answer for end in self.whole if end.answer is not None)
        return {answer: n / len(self.whole) for answer, n in counts.items()}

    def elected(self) -> ModeAnswer:
        """The vote of all whole answers: the first with the winning one."""
        result = count((end.answer, 1.0) for end in self.whole)
        first = next((end for end in self.whole if end.answer == result.winner), self.whole[0])
        return ModeAnswer.of(first, result.share)
