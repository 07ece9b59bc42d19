"""Extracts the answer of a text in canonical form, so that equal answers are equal strings and count as one vote.

number    the last number: `so 1,200.0 apples` -> `1200` (core/numbers.py)
math      the boxed or last formula, by math-verify: `\\boxed{2x+x}` -> `$3 x$` (core/formulas.py)
choice    the option stated, else the one spoken of last: `the answer is (B)` -> `B`
pattern   the first group of the last match, folded
text      the whole text, folded
"""

# ruff: noqa: RUF001
import re
import unicodedata
from functools import cache

from core.config import AnswerConfig, ChoiceAnswer, MathAnswer, NumberAnswer, PatternAnswer
from core.errors import ConfigError
from core.numbers import DASHES, FREE, canonical, last_box, number, simplified
from core.protocols import Extract

_NUMBER = r"(?<!\w)(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+"
_WORD = r"[^\s!-/:-@\[-^`{-~]+"
"""Letters with their marks, in any script: `\\w` would drop the vowel signs of Hindi."""
_TOKEN = re.compile(
    rf"(?P<number>(?:{FREE}[-+])?(?:{_NUMBER}))|(?:{FREE}[-!.])?{_WORD}#?|[+/=<>^%&|~@$]"
    r"|(?:(?<=[0-9])|(?<=[0-9] ))[-:](?= ?[0-9])|(?:(?<=\w)|(?<=\w ))\*(?= ?\w)"
)


def extractor(config: AnswerConfig) -> Extract:
    """The one way to read an answer: of a sample, a person, a key or an anchor.

    Raises: ConfigError for a pattern that is not a regular expression with a group, or for invalid choices."""
    match config:
        case NumberAnswer():
            return number
        case MathAnswer():
            from core.formulas import formula  # sympy takes a second to import

            return formula
        case ChoiceAnswer():
            return _choice(config.choices)
        case PatternAnswer():
            return _pattern(config.pattern)
        case _:
            return lambda text, stated=False: folded(text) or None


def same(a: str | None, b: str | None) -> bool:
    """Whether two answers are the same when folded. None (no answer) equals no other answer, not even None."""
    return a is not None and b is not None and folded(a) == folded(b)


def folded(text: str) -> str:
    """The text without case, punctuation and spacing, its numbers canonical. Whatever changes a question or an answer
    stays: signs and operators, marks on letters, symbols, `C#`, `-x`, `!x`. A text of punctuation only keeps it."""
    plain = unicodedata.normalize("NFC", text.casefold())
    if not plain.isascii():
        simple = "".join(char if char < "\x80" else _plain(char) for char in plain.translate(DASHES))
        plain = unicodedata.normalize("NFC", simple)
    tokens = [canonical(m[0]) if m.lastgroup else m[0] for m in _TOKEN.finditer(plain)]
    return " ".join(tokens or plain.split())


@cache
def _plain(char: str) -> str:
    """Full-width forms and digits as ASCII, punctuation as a space. Not NFKC, which makes `x²` the same as `x2`."""
    if "\uff01" <= char <= "\uffef":
        char = unicodedata.normalize("NFKC", char)
    match unicodedata.category(char)[0]:
        case "N":
            return str(unicodedata.decimal(char, char))
        case "P" | "Z" | "C" if char > "\x7f":
            return " "
        case "S" if char > "\x7f":
            return f" {char} "
        case _:
            return char


def _choice(choices: str) -> Extract:
    if not choices or not choices.isalnum() or len(set(choices.casefold())) != len(choices):
        raise ConfigError(f"method.answer.choices={choices!r} must be distinct letters or digits, as in ABCDE")
    wrong = r"(?!\W{0,3}\s(?i:is|was|seems)\s(?i:not|wrong|incorrect|false)\b)"
    one, end = f"([{re.escape(choices)}])", rf"(?![A-Za-z0-9_\u00aa-\u02af]|'[a-z]){wrong}"
    start = r"(?<![A-Za-z0-9_'\u00aa-\u02af])"
    verb = r"(?:is|are|was|would be|should be|must be|will be)"
    word = rf"(?:{verb}|the|definitely|clearly|therefore|thus|most likely|correct|right|best|option|choice|letter)"
    lead = (
        rf"(?i:\banswer\b(?:[ \w]{{1,30}}\b{verb}\b)?|\bans\b|\b(?:correct|right|best) (?:option|choice|one) {verb}\b"
        r"|\b(?:choose|pick|select|go with)\b|答案|答え|正解|정답|답|คำตอบ)"
        rf"[\s*_`:=\-]*(?i:{word}\b[\s*_`:]*){{0,4}}[是为為はが은는이คือ：:]*"
        r"[\s*_`\"(\[{$:=>\-]*(?:\\(?:text|textbf|mathbf|mathrm|boxed)\{[\s(]*)*"
    )
    more = rf"(?P<more>[\s)\].*]*(?i:or|and|/|&|,)\s*[(\[*]*[{re.escape(choices)}]{end})?"
    # Tried in this order: stated as the answer; called correct; after `option` or `choice`; in brackets; alone. `A`
    # before a lower-case word is an article.
    answer_is = re.compile(rf"{lead}{one}{end}{more}")
    spoken_of = [
        re.compile(rf"{start}{one}\W{{0,3}} (?i:{verb} (?:the |a )?(?:correct|right|best)\b)"),
        re.compile(rf"(?<!not )(?i:option|choice)\s*:?\s*[*(\[]*{one}{end}"),
        re.compile(rf"(?<!not )[(\[]{one}[)\]]{wrong}"),
        re.compile(rf"(?<!not ){start}{one}{end}(?! +[a-z])"),
    ]
    small = re.compile(rf"{lead}{one.lower()}{end}[)\].*_]*\s*(?:\n|$)")
    by_fold = {choice.casefold(): choice for choice in choices}

    def choice(text: str, stated: bool = False) -> str | None:
        plain = text if text.isascii() else simplified(text)
        box = last_box(plain) if "\\" in plain else None
        whole = re.sub(r"\\[a-z]+|\$|(?i:option|choice|answer)\b:?", "", plain if box is None else box)
        whole = whole.strip(" \n\t().:[]*_`{}\"'").casefold()
        if whole in by_fold or box is not None:
            return by_fold.get(whole)
        if found := list(answer_is.finditer(plain)):
            return None if found[-1]["more"] else found[-1][1]
        forms = [small, *spoken_of] if "nswer" in plain else spoken_of
        named: list[str] = next((hits for form in forms if (hits := form.findall(plain))), list[str]())
        return by_fold[named[-1].casefold()] if named else None

    return choice


def _pattern(source: str) -> Extract:
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise ConfigError(f"method.answer.pattern={source!r} is not a regular expression: {error}") from None
    if pattern.groups == 0:
        raise ConfigError(f"method.answer.pattern={source!r} has no group; put the answer in one, as in `answer: (.+)`")
    group = _first_group(source)
    bare = re.compile(group, pattern.flags) if group is not None else None

    def last(text: str, stated: bool = False) -> str | None:
        matches = list(pattern.finditer(text.strip()))
        if matches or not stated:
            return (folded(matches[-1][1] or "") or None) if matches else None
        return _bare(text.rpartition("####")[2].strip())

    def _bare(text: str) -> str | None:
        forms = (text, text.rstrip("."), folded(text), number(text) or "")
        found = next((form for form in forms if form and (bare is None or bare.fullmatch(form))), None)
        return None if found is None else folded(found) or None

    return last


def _first_group(source: str) -> str | None:
    """The first group of a regular expression, alone; None if it cannot stand alone."""
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", lambda m: "\x00" * len(m[0]), source, flags=re.DOTALL)
    opened = re.search(r"\((?!\?(?!P<))", bare)
    if opened is None:
        return None
    depth, end = 1, opened.end()
    while depth and end < len(bare):
        depth += (bare[end] == "(") - (bare[end] == ")")
        end += 1
    try:
        return re.compile(source[opened.start() : end]).pattern
    except re.error:
        return None
