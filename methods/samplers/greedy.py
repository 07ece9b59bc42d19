"""The likeliest text: one candidate at temperature 0."""

from core.config import SamplerConfig
from methods.samplers.iid import Iid


def greedy(config: SamplerConfig) -> Iid:
    return Iid(config.model_copy(update={"n": 1, "temperature": 0.0}))
