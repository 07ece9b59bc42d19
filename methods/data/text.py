"""Words and word sequences of prompts, for finding near duplicates."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

from core.answers import folded
from core.messages import Prompt

SHINGLE_WORDS = 8
_SHOWN = 5


def asked_text(prompt: Prompt) -> str:
    """The user's last message; splits and overlaps are determined by it."""
    return prompt.messages[-1].content


def words_of(text: str) -> list[str]:
    return folded(unicodedata.normalize("NFKC", text)).split()


def shingles_of(words: Sequence[str]) -> set[int]:
    """Hashes of all sequences of SHINGLE_WORDS words; a shorter text is one sequence."""
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {hash(tuple(words[start : start + SHINGLE_WORDS])) for start in starts}


def together(headline: str, reports: Sequence[str]) -> str:
    """A message with the first few of the reports."""
    more = [f"... and {len(reports) - _SHOWN} more"] if len(reports) > _SHOWN else []
    return "\n  ".join([headline, *reports[:_SHOWN], *more])


def nearest(name: str, known: Iterable[str]) -> str:
    """The three names that look most like `name`."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0.0))
