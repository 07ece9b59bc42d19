"""The policy rewrites a question more clearly, and the rewording is explored next."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.config import SamplerConfig
from core.messages import ChatMessage, Prompt, Scored
from core.protocols import Policy
from methods.data.prompts import as_prompt
from methods.modes.polish import REWRITE, keeps_its_numbers
from methods.samplers.iid import greedily
from methods.turns import asking


@dataclass(frozen=True)
class Polished:
    """One rewording of each explored question of the data set whose vote is unsure: the winner has less than `share`.
    A rewording that loses a number of the question, or does not end, is not asked; rewordings lead to no further ones.
    """

    config: SamplerConfig
    share: float

    async def __call__(self, prompt: Prompt, policy: Policy, scored: Sequence[Scored]) -> list[Prompt]:
        sure = max((one.verdict.share for one in scored), default=0.0) >= self.share
        if prompt.origin != "dataset" or sure:
            return []
        text = prompt.messages[-1].content
        (rewrite,) = await policy.generate(asking(prompt, REWRITE.replace("{question}", text)), greedily(self.config))
        said = rewrite.text.strip()
        if rewrite.finish != "stop" or said in ("", text) or not keeps_its_numbers(said, text):
            return []
        chat = (*prompt.messages[:-1], ChatMessage(role="user", content=said))
        return [as_prompt([message.model_dump() for message in chat], origin="generated")]
