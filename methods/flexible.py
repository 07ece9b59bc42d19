"""Reads the answer that a text names last, in whatever form, also of a text that was cut off.

The difference from `core.answers.extractor` tells what a version gains or loses by format alone.
"""

import re
from collections.abc import Callable, Collection

from core.answers import folded
from core.config import AnswerConfig, ChoiceAnswer, MathAnswer, NumberAnswer
from core.numbers import number


def flexible(config: AnswerConfig, expected: Collection[str]) -> Callable[[str], str | None] | None:
    """number: the last number. choice: the last of the letters that stands alone. pattern, text: the last number if all
    expected answers are numbers, else the last expected answer of any question. math: None, since its extractor reads
    the last formula anyway."""
    match config:
        case MathAnswer():
            return None
        case NumberAnswer():
            return number
        case ChoiceAnswer():
            return _last(rf"(?<!\w)[{re.escape(config.choices)}](?!\w)")
        case _ if expected and all(number(answer) == answer for answer in expected):
            return number
        case _:
            longest_first = sorted(map(re.escape, expected), key=len, reverse=True)
            named = _last(rf"(?<!\S)(?:{'|'.join(longest_first)})(?!\S)")
            return lambda text: named(folded(text))


def _last(source: str) -> Callable[[str], str | None]:
    pattern = re.compile(source)
    return lambda text: next(reversed(pattern.findall(text)), None)
