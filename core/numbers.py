"""Reads the last number of a text: its exact value in canonical form, or None. Never another value.

Read: thousands by comma, space, apostrophe or underscore, Indian groups, `1.200.000,5`, `1/2`, `3 1/2`, `1e5`,
`2 x 10^6`, `5 million`, `5万`, percent (`20%` is 0.2), currency signs, every script's decimal digits, every hyphen and
minus, and LaTeX's `\\frac`. A lone dot is a decimal point; a lone comma before three digits groups thousands.

Not read, because the value is not certain or not written out: `1,5` (a pair, or one and a half), `2:1`, `1.2.3`,
`2^10`, `x/2`, `\\sqrt{2}`, `5±1`, `0x1F`, `5k`.
"""
# ruff: noqa: RUF001

import re
import unicodedata
from fractions import Fraction
from functools import cache, lru_cache

DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−⁃⁻˗﹘﹣－➖", "-"))
_ASCII = {"’": "'", "‘": "'", "ʼ": "'", "´": "'", "٫": ".", "٬": ",", "٪": "%", "⁄": "/", "∕": "/"}
_LETTER = "A-Za-z_\u00aa-\u02af\u0370-\u052f\u1e00-\u1eff"
"""Letters of scripts that put spaces between words, in which `x12` holds no number. Others (`是42`, `คือ42`) do not."""
FREE = r"(?<![A-Za-z0-9_\u00aa-\u0dff\u1e00-\u1eff)\]}%])"
"""Where a sign is a sign, and not an operator or a hyphen: not after a letter of a script with spaces, or a bracket."""
_WORD = re.compile(f"[{_LETTER}]")
_DIGITS_LIMIT = 300
"""Most digits of a fraction, and places of an exponent. A plain number may have any number of digits."""
_GAP = 10
"""Most characters between two runs of digits that may belong to one number, as in `2 \\times 10`."""
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
_SCALES_CJK = {"万": 4, "萬": 4, "億": 8, "亿": 8}
_RUN = re.compile(r"(?s:.*[^0-9])?([0-9]+)")
_NUMBER = re.compile(
    rf"""
    (?P<digits> \.?[0-9]+ (?: [.,'_:·][0-9]+ | [ ][0-9]{{3}}(?![0-9]) )* )
    (?: (?P<times> [ ]?(?:[x*×·⋅]|\\times|\\cdot)[ ]?10 )? [ ]?(?:\^|\*\*)[ ]? [{{(]?(?P<power>[-+]?[0-9]+)[)}}]?
      | [eE](?P<exponent>[-+]?[0-9]+)
      | (?P<mixed>[ ]{{1,3}}(?:and[ ])?[0-9]+[ ]?/[ ]?[0-9]+)
      | [ ]?/[ ]?(?P<under>[0-9][0-9,]*)
    )?
    (?P<scale> (?:[ -]{{1,2}}(?:{"|".join(_SCALES)})(?![{_LETTER}]))+ | [ ]?[{"".join(_SCALES_CJK)}] )?
    (?P<percent> [ ]?\\?% | [ -]per[ ]?cent(?![{_LETTER}]) )?
    (?P<open> [ ]?[/:^±·][0-9] | [{_LETTER}]{{1,9}}[0-9] | [kKMBT](?![{_LETTER}]) | [ ]?[十百千万萬億亿兆‰π√]
      | [ ]?\\(?:pi|sqrt) | [ ]dozen | ,[0-9] )?
    """,
    re.VERBOSE,
)
_MONEY = r"(?:[A-Z]{0,3}\\?[$¢-¥\u20a0-\u20cf] ?)?"
_SIGN = re.compile(rf"(?:{FREE}([-+])|[=:(][ \t]{{0,3}}(-)[ \t]{{1,3}}){_MONEY}$")
_UNSURE = re.compile(r"(?:[/^√±·]|[0-9] :|\}\{|sqrt\{|[0-9][十百千万萬億亿兆]) ?[-+]?$")
_SPECIAL = frozenset("-+/^√±·:{十百千万萬億亿兆$¢£¤¥") | {chr(code) for code in range(0x20A0, 0x20D0)}
"""What stands before a number that has a sign, or whose value is unsure."""
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:([,'_ ])[0-9]{3}(?:\1[0-9]{3})*)(?:\.[0-9]+)?")
_INDIAN = re.compile(r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
_DOT_GROUPED = re.compile(
    r"[1-9][0-9]{0,2}(?:\.[0-9]{3}(?:(?:\.[0-9]{3})+(?:,[0-9]+)?|,[0-9]+)|(?:[ '][0-9]{3})+,[0-9]+)"
)
_PLAIN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
_LIST = re.compile(r"[0-9]{1,2}(?:,[0-9]{1,2}){2,}")
_UNIT_POWER = re.compile(r"(?<=[0-9 /{}])((?:[cdkmµ]?m|in|ft|yd|mi|s|units?)\}?)(?:\^\{?[23]\}?|[23])(?![0-9])")
_FRAC = re.compile(r"([0-9])?\\[dt]?frac *\{ *(-?)([0-9]+) *\} *\{ *([0-9]+) *\}")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\{([^{}]*)\}")
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_BRACE = re.compile(r"\\boxed\{|[{}]")


def number(text: str, stated: bool = False) -> str | None:
    """The last number, canonical. With a `\\boxed{...}` only the last box counts, and it must hold exactly one."""
    plain = text if text.isascii() else simplified(text)
    box = None
    if "\\" in plain:
        box = last_box(plain)
        plain = _without_latex(plain if box is None else box)
    if "^" in plain or "m2" in plain or "m3" in plain:
        plain = _UNIT_POWER.sub(r"\1", plain)
    found = _last(plain)
    if found is None or (box is not None and _last(plain[: found.start()]) is not None):
        return None
    return _value(found)


def _last(text: str) -> re.Match[str] | None:
    """The last number of the text. Reads from the end, because a text may be long."""
    run = _RUN.match(text)
    while run is not None:
        starts = [run.start(1)]
        while (run := _RUN.match(text, 0, starts[-1])) is not None and starts[-1] - run.end(1) <= _GAP:
            starts.append(run.start(1))
        found = None
        for start in reversed(starts):
            if found is None or start >= found.end():
                found = _at(text, start) or found
        if found is not None:
            return found
    return None


def _at(text: str, start: int) -> re.Match[str] | None:
    """The number that begins with the digit at `start`, or with a dot before it; None inside a word."""
    if start and text[start - 1] == ".":
        start -= 1
    before = text[start - 1] if start else " "
    if before in "._" or before.isdigit() or _WORD.match(before):
        return None
    return _NUMBER.match(text, start)


def last_box(text: str) -> str | None:
    """The content of the last complete `\\boxed{...}`."""
    opened: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace.end() if len(brace[0]) > 1 else -1)
        elif opened and (begin := opened.pop()) > (last[0] if last else -1):
            last = begin, brace.start()
    return text[last[0] : last[1]] if last else None


@lru_cache(10_000)
def canonical(digits: str) -> str:
    """`+01,200.50` -> `1200.5`. Works on the text, so that no number is too long and none is rounded."""
    whole, _, part = digits.lstrip("+-").replace(",", "").partition(".")
    part = part.rstrip("0")
    plain = (whole.lstrip("0") or "0") + (f".{part}" if part else "")
    return f"-{plain}" if digits.startswith("-") and plain != "0" else plain


def simplified(text: str) -> str:
    """With ASCII digits, letters, signs and spaces in the place of their other forms; superscripts become `^2`."""
    text = _SUPERSCRIPTS.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]).replace("\u2212", "-"), text)
    return "".join(char if char < "\x80" else _simple(char) for char in text)


@cache
def _simple(char: str) -> str:
    if ord(char) in DASHES:
        return DASHES[ord(char)]
    if "\uff01" <= char <= "\uff5e":
        return ":" if char == "，" else unicodedata.normalize("NFKC", char)
    match unicodedata.category(char), unicodedata.decomposition(char):
        case "Nd", _:
            return str(unicodedata.decimal(char))
        case "No", form if form.startswith("<fraction>"):
            return " " + unicodedata.normalize("NFKC", char).replace("\u2044", "/")
        case "No", form if form.startswith("<sub>"):
            return "_" + unicodedata.normalize("NFKC", char)
        case "Zs", _:
            return " "
        case "Cf", _:
            return ""
        case _:
            return _ASCII.get(char, char)


def _without_latex(text: str) -> str:
    for written, meant in (
        ("{,}", ","),
        (r"\,", ""),
        (r"\!", ""),
        (r"\ ", " "),
        ("~", " "),
        (r"\;", " "),
        (r"\left", ""),
        (r"\right", ""),
    ):
        text = text.replace(written, meant)
    text = _UNIT_POWER.sub(r"\1", _WRAPPED.sub(r"\1", text))
    return _FRAC.sub(lambda m: f"{m[1] + ' ' if m[1] else ''}{m[2]}{m[3]}/{m[4]}", text)


def _value(found: re.Match[str]) -> str | None:
    before, sign = found.string[max(0, found.start() - 16) : found.start()], ""
    if before.rstrip(" \t")[-1:] in _SPECIAL:
        if _UNSURE.search(before) or (found["under"] and re.search(r"[0-9]-$", before)):
            return None
        signed = _SIGN.search(before)
        sign = "-" if signed and "-" in signed.group(1, 2) else ""
    if found["open"] or (digits := _ungrouped(found["digits"])) is None:
        return None
    return canonical(sign + digits) if found.end("digits") == found.end() else _scaled(found, sign, digits)


def _ungrouped(digits: str) -> str | None:
    """Without the signs between groups, and with a decimal point."""
    if _PLAIN.fullmatch(digits):
        return digits
    if _GROUPED.fullmatch(digits) or _INDIAN.fullmatch(digits):
        return re.sub("[,'_ ]", "", digits)
    if _DOT_GROUPED.fullmatch(digits):
        return re.sub("[.' ]", "", digits).replace(",", ".")
    if _LIST.fullmatch(digits):
        return digits.rpartition(",")[2]
    return _ungrouped(digits.rpartition(" ")[2]) if " " in digits else None  # `2024 500`: two numbers


def _scaled(found: re.Match[str], sign: str, digits: str) -> str | None:
    """The value of a number with an exponent, a fraction, a scale or a percent sign."""
    power, times, exponent, mixed, under = found.group("power", "times", "exponent", "mixed", "under")
    if len(digits) > _DIGITS_LIMIT or (power is not None and times is None and digits != "10"):
        return None
    value, places = Fraction("0" + digits if digits.startswith(".") else digits), 0
    if power is not None or exponent is not None:
        places = int((power or exponent)[:6])
        value = Fraction(1) if power is not None and times is None else value
    elif mixed is not None:
        over, _, below = mixed.replace(" ", "").partition("/")
        if "and" in over or value.denominator != 1 or not 0 < int(over) < int(below):
            return None
        value += Fraction(int(over), int(below))
    elif under is not None:
        below = _ungrouped(under.rstrip(","))
        if below is None or len(below) > _DIGITS_LIMIT or not int(below):
            return None
        value /= int(below)
    for scale in (found["scale"] or "").replace("-", " ").split():
        places += _SCALES[scale] if scale in _SCALES else _SCALES_CJK[scale]
    places -= 2 if found["percent"] else 0
    return _written(value * Fraction(10) ** places, sign) if abs(places) <= _DIGITS_LIMIT else None


def _written(value: Fraction, sign: str) -> str:
    """As a decimal number where that is exact, else as a reduced fraction."""
    below = value.denominator
    twos = (below & -below).bit_length() - 1
    fives, rest = 0, below >> twos
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{sign}{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(value.numerator * 10**places // below).zfill(places + 1)
    return canonical(f"{sign}{digits[:-places]}.{digits[-places:]}" if places else sign + digits)
