"""Parses the JSON of a request. All that follows can encode what passes here: as UTF-8, JSON and MessagePack.

Python's own parser takes more than JSON allows: NaN, halves of surrogate pairs, the last of two equal keys. It also
takes numbers and depths that the engine's encoders fail on, which would be a 500.
"""

import json
import math
from collections import Counter
from typing import Any

from serve.http.errors import SHOWN_CHARS, Refusal

MAX_DEPTH = 100
"""Arrays and objects inside each other."""
INTEGERS = range(-(2**63), 2**64)
"""Those that MessagePack can hold."""


def parse_json(body: bytes) -> Any:
    """Raises: Refusal 400, which names the field that is at fault."""
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    _check(value, ())
    return value


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises: Refusal 400, also for anything but a JSON object."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise Refusal(400, f"the body is a JSON {type(fields).__name__}, expected an object")
    return fields


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(twin, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twin[:SHOWN_CHARS]!r} stands twice in one object; keep one")
    return fields


def _check(value: Any, where: tuple[str | int, ...]) -> None:
    if isinstance(value, str):
        _check_text(value, where)
    elif (isinstance(value, int) and value not in INTEGERS) or (isinstance(value, float) and not math.isfinite(value)):
        raise _refusal(where, "expected a finite number of at most 64 bits")
    elif isinstance(value, list | dict):
        if len(where) == MAX_DEPTH:
            raise _refusal(where[:1], f"expected at most {MAX_DEPTH} arrays and objects inside each other")
        for at, each in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(at, str):
                _check_text(at, (*where, at))
            if type(each) is not int or each not in INTEGERS:  # prompts of token ids are long lists
                _check(each, (*where, at))


def _check_text(text: str, where: tuple[str | int, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"the half {text[error.start]!a} of a surrogate pair, which is no character"
        raise _refusal(where, f"{half}; send the whole pair") from None


def _refusal(where: tuple[str | int, ...], why: str) -> Refusal:
    named = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in where).removeprefix(".")
    field = next((at for at in where if isinstance(at, str)), None)
    return Refusal(400, f"{named or 'the body'}: {why}", param=field)
