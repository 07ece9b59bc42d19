"""Held-out questions that must not stand in the prompts to learn from."""

from collections import Counter
from collections.abc import Iterable

from core.errors import ConfigError
from core.messages import Prompt
from methods.data.text import asked_text, shingles_of, together, words_of


class Probes:
    """What is asked at the gate and in the report: the one answer to whether a prompt may enter training.

    A prompt is held when one of its messages (the system's aside) asks the same as a probe once case, punctuation,
    spacing and Unicode's compatibility forms are folded, or shares the part `near` of its 8-word sequences: of the
    probe's, so that a probe with a preamble is found, or of its own where it is the shorter, but not below half the
    probe. Numbers are words: one template with other numbers is another question. Texts without spaces between words
    are compared as wholes only."""

    def __init__(self, prompts: Iterable[Prompt] = (), near: float = 0.8) -> None:
        self._near = near
        self._exact: set[str] = set()
        self._sizes: list[int] = []
        self._with: dict[int, list[int]] = {}
        """Hash of a sequence of words -> the probes that hold it."""
        for prompt in prompts:
            words = words_of(asked_text(prompt))
            self._exact.add(" ".join(words))
            shingles = shingles_of(words)
            for shingle in shingles:
                self._with.setdefault(shingle, []).append(len(self._sizes))
            self._sizes.append(len(shingles))

    def holds(self, prompt: Prompt) -> bool:
        return any(self._has(message.content) for message in prompt.messages if message.role != "system")

    def _has(self, text: str) -> bool:
        words = words_of(text)
        if " ".join(words) in self._exact:
            return True
        shingles = shingles_of(words)
        shared = Counter(probe for shingle in shingles for probe in self._with.get(shingle, ()))
        return any(
            count >= self._near * min(size, max(len(shingles), size / 2))
            for probe, count in shared.items()
            for size in (self._sizes[probe],)
        )


def overlap(pool: Iterable[Prompt], probes: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Pairs that ask the same once case, punctuation, spacing and Unicode's compatibility forms are folded. What is
    only nearly the same is left out of training by `Probes`."""
    by_text = {tuple(words_of(asked_text(probe))): probe for probe in probes}
    asked = ((prompt, by_text.get(tuple(words_of(asked_text(prompt))))) for prompt in pool)
    return [(prompt, probe) for prompt, probe in asked if probe is not None]


def refuse_overlap(pool: Iterable[Prompt], probes: Iterable[Prompt], pool_name: str, probes_name: str) -> None:
    """Raises: ConfigError that shows some of the questions that stand in both."""
    both = overlap(pool, probes)
    if both:
        raise ConfigError(
            together(
                f"{len(both)} questions stand in {pool_name} and in {probes_name}; what is trained on cannot weigh "
                "what was learned: remove them from one of the two",
                [repr(asked_text(prompt)) for prompt, _ in both],
            )
        )
