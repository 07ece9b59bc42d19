"""Detects held-out questions, and near duplicates of them, among the prompts to train on."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from core.errors import ConfigError
from core.messages import Prompt
from methods.data.text import asked_text, shingles_of, together, words_of


class Probes:
    """The questions of gate and report. Every part that trains on prompts checks them with `holds`.

    A prompt is held if one of its messages (except the system's) matches a probe in one of two ways. Either both are
    equal once case, punctuation, spacing and Unicode's compatibility forms are folded. Or they share the ratio `near`
    of 8-word sequences: of the probe's, which finds a probe with a preamble, or of the message's if it is shorter, but
    counted as at least half the probe's. Numbers are words: a template with other numbers is another question. Texts
    without spaces between words are only compared as a whole."""

    def __init__(self, prompts: Iterable[Prompt] = (), near: float = 0.8) -> None:
        self._near = near
        self._exact: set[str] = set()
        self._sizes: list[int] = []
        self._with: dict[int, list[int]] = {}
        """Hash of a word sequence -> indices of the probes that contain it."""
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
        found = [probes for shingle in shingles if (probes := self._with.get(shingle))]
        if not found:  # so most are
            return False
        shared = Counter(chain.from_iterable(found))
        return any(
            count >= self._near * min(size, max(len(shingles), size / 2))
            for probe, count in shared.items()
            for size in (self._sizes[probe],)
        )


def overlap(pool: Iterable[Prompt], probes: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Pairs that are equal once case, punctuation, spacing and Unicode's compatibility forms are folded. `Probes` finds
    near duplicates too."""
    by_text = {tuple(words_of(asked_text(probe))): probe for probe in probes}
    pairs = ((prompt, by_text.get(tuple(words_of(asked_text(prompt))))) for prompt in pool)
    return [(prompt, probe) for prompt, probe in pairs if probe is not None]


def refuse_overlap(pool: Iterable[Prompt], probes: Iterable[Prompt], pool_name: str, probes_name: str) -> None:
    """Raises: ConfigError that shows some of the questions that are in both."""
    both = overlap(pool, probes)
    if both:
        raise ConfigError(
            together(
                f"{len(both)} questions are both in {pool_name} and in {probes_name}; a question that is trained on "
                "cannot measure learning: remove them from one of the two",
                [repr(asked_text(prompt)) for prompt, _ in both],
            )
        )
