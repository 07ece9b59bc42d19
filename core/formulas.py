"""Reads the formula that answers a text, by math-verify, as a canonical string: equal formulas give equal strings.

A number is read as kind `number` reads it. Anything else is parsed by math-verify and expanded by sympy. They can limit
their time by signals only, which work in the main thread only. So a formula that could take long is no answer: before
it is parsed, its length, depth, numbers, powers and terms are bounded.
"""

import logging
import re
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from core.numbers import last_box, number, simplified

math_verify: Any = import_module("math_verify")  # no type stubs
sympy: Any = import_module("sympy")
_LENGTH, _DEPTH, _DIGITS = 100, 4, 30
"""Most characters, nested brackets, and digits of a number of a formula."""
_POWERS, _TERMS = 300, 600
"""Largest product of the powers of numbers, and most terms of a formula once its sums are expanded (an upper bound)."""
_MATH = re.compile(r"(?<!\\)\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_STATED = re.compile(r"(?i:answer|result)(?: is|:)?:?\s*\**\s*([^\n]+?)\s*\**\.?\s*$")
_COMMANDS = re.compile(
    r"[dt]?frac|sqrt|pi|infty|cdot|times|div|pm|left|right|cup|cap|in|leq?|geq?|lt|gt|neq?|sin|cos|tan|cot|sec|csc"
    r"|arc(sin|cos|tan)|log|ln|exp|alpha|beta|gamma|theta|lambda|mu|phi|omega|circ|degree|text|math(rm|bf|bb)|emptyset"
)
_DECIMAL = re.compile(r"(?<![0-9.])([0-9]+)\.([0-9]+)(?![0-9.])")
_POWER = re.compile(
    r"\^ ?(?:([0-9])(?![0-9])|\{(-?[0-9]{1,3}|[-0-9]{0,2}[a-z](?:[-+][0-9])?|[0-9]/[0-9]|\\frac\{[0-9]\}\{[0-9]\})\}"
    r"|[a-z]|\{?\\circ\}?)"
)
_WORD = re.compile(r"[\s({$]*(?:\\(?:text|mathrm|mathbf)\{)?[\s(]*([A-Za-z][A-Za-z ]*)[\s)}.$]*")
_CONFIG = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
logging.getLogger("math_verify.parser").addFilter(lambda record: "Timeout is disabled" not in record.msg)


def formula(text: str, stated: bool = False) -> str | None:
    """The last box, else the last formula in dollars or brackets, else what is stated as the answer."""
    box = last_box(text)
    if box is not None:
        return _read(box)
    inline = ["".join(found) for found in cast(list[tuple[str, ...]], _MATH.findall(text))]
    if inline:
        return _read(inline[-1])
    said = _STATED.search(text)
    bare = said[1] if said else text.rpartition("####")[2] if stated else ""
    is_formula = bare and not re.search(r"(?<!\\)\b[A-Za-z]{2,}", bare) and re.search(r"[A-Za-z\\(\[]", bare)
    return _read(bare) if is_formula else number(text)


def _read(source: str) -> str | None:
    source = simplified(source).strip().rstrip(".")
    if word := _WORD.fullmatch(source):  # not a product of its letters
        spoken = word[1].strip()
        form = rf"$\text{{{spoken.lower()}}}$" if spoken[1:] else f"${spoken}$"
        return None if spoken.casefold() in ("nan", "inf", "infinity") else form
    plain = re.sub(r"\\(?:text|mathrm|mbox)\{[^{}]*\}|(?<=[0-9])[eE](?=[-+]?[0-9])|[dt]?frac", "", source)
    if not re.search(r"[A-Za-z(\[√!]", plain) and (value := number(rf"\boxed{{{source}}}")) is not None:
        return value
    return _parsed(source) if _is_small(source) else None


def _is_small(source: str) -> bool:
    depth = deepest = 0
    for char in source:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    powers, only_numbers = 1, not re.search(r"[A-Za-z]", re.sub(r"\\(?:[dt]?frac|cdot|times|left|right)\b", "", source))
    for plain, braced in _POWER.findall(source):
        powers *= max(1, abs(int(plain or braced))) if (plain or braced).lstrip("-").isdigit() else 2
    return (
        0 < len(source) <= _LENGTH
        and deepest <= _DEPTH
        and powers <= _POWERS
        and (only_numbers or (1 + len(re.findall(r"[-+]|\\pm", source))) ** max(powers, source.count("(")) <= _TERMS)
        and source.count("[") + source.count("|") <= 2
        and source.count("^") == len(_POWER.findall(source)) <= 6
        and "!" not in source
        and "**" not in source
        and not re.search(rf"[0-9]{{{_DIGITS + 1}}}", source)
        and all(map(_COMMANDS.fullmatch, re.findall(r"\\([A-Za-z]+)", source)))
    )


@lru_cache(maxsize=4096)
def _parsed(source: str) -> str | None:
    """In LaTeX. None for a formula that reads differently once it is written so: keys and votes are read again."""
    written = _written(source)
    return written if written is None or written[0] != "$" or _written(written.strip("$")) == written else None


def _written(source: str) -> str | None:
    exact = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", source)
    try:
        found: Any = math_verify.parse(f"\\boxed{{{exact}}}", _CONFIG, "no_fallback", parsing_timeout=None)
        value: Any = found[0].rhs if isinstance(found[0], sympy.Eq) and found[0].lhs.is_Symbol else found[0]
        value = value.doit()
        value = sympy.expand(value) if isinstance(value, sympy.Expr) else value
        if value.has(sympy.nan, sympy.zoo):
            return None
        return number(f"{value.p}/{value.q}") if value.is_Rational else f"${sympy.latex(value)}$"
    except Exception:  # math-verify and sympy raise anything for what is no formula
        return None
