"""Extracts the answer of a text in canonical form, so that equal answers are equal strings and count as one vote.

number    the last number: `so 1,200.0 apples` -> `1200`
choice    the named option: `the answer is (B)` -> `B`
pattern   the first group of the last match, folded
text      the whole text, folded
"""

import re
import unicodedata
from collections.abc import Sequence

from core.config import AnswerConfig, ChoiceAnswer, NumberAnswer, PatternAnswer
from core.errors import ConfigError
from core.protocols import Extract

_DASHES = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-"))
# A sign after a word, a digit or a bracket is an operator; digits inside a word (`x2`, `H2O`) are not a number.
_SIGN = r"(?:(?<![\w)\]])[-+])?"
_WHOLE = r"(?<!\w)(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(rf"{_SIGN}(?:{_WHOLE}(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)")
_TOKEN = re.compile(rf"(?P<number>{_NUMBER.pattern})|\w+|[+/=<>^%]")
_BOX = r"\boxed{"


def extractor(config: AnswerConfig) -> Extract:
    """Raises: ConfigError for a pattern that is not a regular expression with a group, or for invalid choices."""
    match config:
        case NumberAnswer():
            return number
        case ChoiceAnswer():
            return _choice(config.choices)
        case PatternAnswer():
            return _pattern(config.pattern)
        case _:
            return lambda text: folded(text) or None


def same(a: str | None, b: str | None) -> bool:
    """Whether two answers are the same when folded. None (no answer) equals no other answer, not even None."""
    return a is not None and b is not None and folded(a) == folded(b)


def folded(text: str) -> str:
    """The text without case, punctuation and spacing, its numbers canonical. Signs and `+/=<>^%` stay, because they
    change the question or the answer. A text of punctuation only keeps it."""
    plain = unicodedata.normalize("NFC", text.casefold()).translate(_DASHES)
    tokens = [_canonical(m[0]) if m["number"] else m[0] for m in _TOKEN.finditer(plain)]
    return " ".join(tokens or plain.split())


def number(text: str) -> str | None:
    """The last number, canonical. With a `\\boxed{...}` only the last box counts, and it must hold exactly one."""
    plain = text.translate(_DASHES).replace("{,}", ",").replace("\\,", "")
    box = _last_box(plain)
    found = _NUMBER.findall(plain if box is None else box)
    return _canonical(found[-1]) if found and (box is None or len(found) == 1) else None


def _canonical(digits: str) -> str:
    """`+01,200.50` -> `1200.5`. Works on the text, so that no number is too long and none is rounded."""
    whole, _, part = digits.lstrip("+-").replace(",", "").partition(".")
    part = part.rstrip("0")
    plain = (whole.lstrip("0") or "0") + (f".{part}" if part else "")
    return f"-{plain}" if digits.startswith("-") and plain != "0" else plain


def _last_box(text: str) -> str | None:
    """The content of the last complete `\\boxed{...}`."""
    start = text.rfind(_BOX)
    while start >= 0:
        depth, begin = 1, start + len(_BOX)
        for end in range(begin, len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                return text[begin:end]
        start = text.rfind(_BOX, 0, start)
    return None


def _choice(choices: str) -> Extract:
    if not choices or not choices.isalnum() or len(set(choices.casefold())) != len(choices):
        raise ConfigError(f"method.answer.choices={choices!r} must be distinct letters or digits, as in ABCDE")
    letters = re.escape(choices)
    # Tried in this order: after `answer`, `option` or `choice`; in brackets; alone. `A` before a lower-case word is an
    # article.
    named = re.compile(rf"(?i:answer|option|choice)(?:\s+(?i:is))?\s*:?\s*[*(\[]*([{letters}])(?![\w'])")
    bracketed = re.compile(rf"[(\[]([{letters}])[)\]]")
    alone = re.compile(rf"(?<![\w'])([{letters}])(?![\w'])(?! +[a-z])")
    by_fold = {choice.casefold(): choice for choice in choices}

    def choice(text: str) -> str | None:
        box = _last_box(text)
        whole = (text if box is None else box).strip(" \n\t().[]*{}").removeprefix("\\text{").casefold()
        if whole in by_fold or box is not None:
            return by_fold.get(whole)
        found: Sequence[str] = next((hits for form in (named, bracketed, alone) if (hits := form.findall(text))), ())
        return found[-1] if found else None

    return choice


def _pattern(source: str) -> Extract:
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise ConfigError(f"method.answer.pattern={source!r} is not a regular expression: {error}") from None
    if pattern.groups == 0:
        raise ConfigError(f"method.answer.pattern={source!r} has no group; put the answer in one, as in `answer: (.+)`")

    def last(text: str) -> str | None:
        matches = list(pattern.finditer(text.strip()))
        return (folded(matches[-1][1] or "") or None) if matches else None

    return last
