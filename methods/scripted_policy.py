"""A policy without a model: deterministic, with scripted accuracy, latency and failures.

Implements `core.protocols.Policy` in tests, in studies with `run_local`, and behind simulated engines.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from core.codec import pack_floats, pack_ids, stable_id
from core.errors import VersionError
from core.messages import BASE, Candidate, PolicyRef, Prompt, Sampling

STOP_ID = 0


def right_answer(prompt: Prompt) -> str:
    """The right answer in this simulated world, a number derived from the prompt's id, alike in all turns of a chat."""
    return str(int(stable_id("right", prompt.root or prompt.id)[:6], 16) % 1000)


def judgement(prompt: Prompt, index: int) -> str:
    """A judgement by lot, in the words of every judge prompt (methods.judge_prompts)."""
    lots = random.Random(stable_id("judgement", prompt.id, str(index)))
    verdict, winner, score = lots.choice(("yes", "no")), lots.choice("AB"), lots.randint(1, 5)
    return f"Verdict: {verdict}\nWinner: {winner}\nScore: {score}"


class ScriptedPolicy:
    """Each version answers correctly with its own probability; wrong answers scatter over `wrong_answers` numbers.

    Candidates depend only on seed, prompt, version, and the number of earlier calls for that prompt and version, not on
    calls for other prompts. Greedy texts (temperature 0) depend only on seed, prompt and version. What it samples as a
    judge is `judge(prompt, number of the sample)`."""

    def __init__(
        self,
        seed: int = 0,
        accuracy: Mapping[int, float] | None = None,
        *,
        answer: Callable[[Prompt], str] = right_answer,
        judge: Callable[[Prompt, int], str] = judgement,
        wrong_answers: int = 10,
        unparsable_ratio: float = 0.0,
        cut_ratio: float = 0.0,
        latency_s: float = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fail: Callable[[Prompt, int], Exception | None] = lambda prompt, call: None,
        tokenize: Callable[[str], list[int]] = lambda text: [byte + 1 for byte in text.encode()],
        render_id: str = "scripted",
    ) -> None:
        self.accuracy = dict(accuracy or {0: 0.5})
        """Loaded version -> probability of a right answer. Change it to load, train or unload a version."""
        self.explore = BASE
        """The version for `ref=None`. Change it to simulate a swap."""
        self.calls = 0
        self.tokens: Counter[str] = Counter()
        """Purpose -> tokens generated."""
        self._judge = judge
        self._seed, self._answer, self._wrong_answers = seed, answer, wrong_answers
        self._unparsable_ratio, self._cut_ratio = unparsable_ratio, cut_ratio
        self._latency_s, self._sleep, self._fail = latency_s, sleep, fail
        self._tokenize, self._render_id = tokenize, render_id
        self._calls_of: Counter[tuple[str, str]] = Counter()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        """Raises: VersionError for a version without a script; the error that `fail(prompt, call number)` returns."""
        ref = ref or self.explore
        self._admit(prompt, ref)
        turn = self._calls_of[prompt.id, str(ref)]
        self._calls_of[prompt.id, str(ref)] += 1
        if self._latency_s:
            await self._sleep(self._latency_s)
        candidates = [self._candidate(prompt, sampling, ref, turn, index) for index in range(sampling.n)]
        self.tokens[sampling.purpose] += sum(len(candidate.completion_ids) // 4 for candidate in candidates)
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        """The right answer has the version's probability, any other text a small one."""
        ref = ref or self.explore
        self._admit(prompt, ref)
        chance = self.accuracy[ref.version]
        likely = chance if text == _sentence(self._answer(prompt)) else (1 - chance) / self._wrong_answers
        count = len(self._tokenize(text)) + 1
        return [math.log(max(likely, 1e-9)) / count] * count

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return Candidate(
            id=stable_id("written", prompt.id, text),
            start=BASE,
            end=BASE,
            context_ids=pack_ids(self._tokenize(prompt.messages[-1].content)),
            completion_ids=pack_ids([*self._tokenize(text), STOP_ID]),
            text=text,
            finish="stop",
            render_id=self._render_id,
        )

    def _admit(self, prompt: Prompt, ref: PolicyRef) -> None:
        self.calls += 1
        if ref.version not in self.accuracy:
            loaded = ", ".join(f"v{version}" for version in sorted(self.accuracy))
            raise VersionError(f"{ref} has no script (loaded: {loaded}); add it to ScriptedPolicy.accuracy")
        error = self._fail(prompt, self.calls)
        if error is not None:
            raise error

    def _candidate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef, turn: int, index: int) -> Candidate:
        call = (str(turn), str(index))
        draw = ("greedy",) if sampling.temperature == 0 else (*call, str(sampling.seed))
        chance = random.Random(stable_id(str(self._seed), prompt.id, str(ref), *draw))
        judging = sampling.purpose == "judge"
        text = self._judge(prompt, index) if judging else self._text(prompt, ref, chance)
        ids = self._tokenize(text)
        cut = chance.random() < self._cut_ratio or len(ids) >= sampling.max_tokens
        if cut:
            text = text[: min(len(text) // 2, sampling.max_tokens)]
        ids = self._tokenize(text)[: sampling.max_tokens] if cut else [*ids, STOP_ID]
        return Candidate(
            id=stable_id("scripted", str(self._seed), prompt.id, str(ref), *call),
            start=ref,
            end=ref,
            context_ids=pack_ids(self._tokenize(prompt.messages[-1].content)),
            completion_ids=pack_ids(ids),
            text=text,
            logprobs=pack_floats([-0.1] * len(ids)) if sampling.logprobs else b"",
            finish="length" if cut else "stop",
            render_id=self._render_id,
        )

    def _text(self, prompt: Prompt, ref: PolicyRef, chance: random.Random) -> str:
        right = self._answer(prompt)
        if chance.random() < self._unparsable_ratio:
            return "I do not know."
        if chance.random() < self.accuracy[ref.version]:
            return _sentence(right, step=chance.randrange(3))
        wrong = (int(right) if right.lstrip("-").isdecimal() else 0) + chance.randint(1, self._wrong_answers)
        return _sentence(str(wrong), step=chance.randrange(3))


def _sentence(answer: str, step: int = 0) -> str:
    """A text with this answer; `step` chooses one of three, so that there are distinct winners."""
    return f"{answer}+{step}={answer}. The answer is {answer}." if step else f"The answer is {answer}."
