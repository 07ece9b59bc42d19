"""One of three neighbouring temperatures for each prompt, so that a tuner can compare them."""

import random
from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import Iid


@dataclass(frozen=True)
class Temperatures:
    """Independent candidates at T, T - step or T + step, where T is the tuned `temperature`. Prompt and T decide which,
    so that whoever knows both knows at what temperature a prompt was sampled."""

    config: SamplerConfig
    low: float
    high: float
    step: float

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        return await Iid(self.config)(prompt, policy, {**tuned, "temperature": self.of(prompt.id, tuned)})

    def of(self, prompt_id: str, tuned: Tuned) -> float:
        now = tuned.get("temperature", self.config.temperature)
        return random.Random(stable_id("temperature", f"{now:.2f}", prompt_id)).choice(self.around(now))

    def around(self, now: float) -> list[float]:
        """The temperatures to compare, the present one first."""
        near = (round(now + steps * self.step, 2) for steps in (0, -1, 1))
        return [one for one in near if self.low <= one <= self.high]

    def grid(self) -> list[float]:
        """All temperatures that can be reached from `low`."""
        return [
            round(self.low + place * self.step, 2) for place in range(int((self.high - self.low) / self.step + 1.5))
        ]
