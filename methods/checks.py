"""Checks that several recipes make of the settings they share. Each raises: ConfigError, with the remedy."""

from core.config import SamplerConfig
from core.errors import ConfigError


def differ(recipe: str, sampler: SamplerConfig) -> None:
    """The samples of a prompt must be able to differ."""
    if sampler.n < 2 or sampler.temperature == 0:
        raise ConfigError(
            f"recipe {recipe} needs different samples to vote, but method.sampler.n={sampler.n} at "
            f"method.sampler.temperature={sampler.temperature} gives one; use n >= 2 and a temperature above 0"
        )


def exact(recipe: str, sampler: SamplerConfig) -> None:
    """The engine's log-probabilities must be those of the policy."""
    if sampler.temperature != 1 or sampler.top_p != 1:
        raise ConfigError(
            f"recipe {recipe} learns from the probabilities of its samples, but with "
            f"method.sampler.temperature={sampler.temperature} and method.sampler.top_p={sampler.top_p} they do not "
            "come from the policy's distribution; set method.sampler.temperature=1 method.sampler.top_p=1"
        )
