"""Bodies that the parts behind the door could not hold are refused by the name of the field, never a server error."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.body import MAX_DEPTH, parse_json, parse_object
from serve.http.errors import Refusal

LONG = b"1" + b"0" * 400


def refused(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_json(body)
    assert caught.value.status == 400
    assert json.loads(bytes(caught.value.response().body))["error"]["message"]
    return caught.value


@pytest.mark.parametrize(
    ("body", "field", "where"),
    [
        (b'{"metric": {"name": "helpful", "value": %s}}' % LONG, "metric", "metric.value: expected a finite number"),
        (b'{"top_k": 1180591620717411303424}', "top_k", "top_k: "),
        (b'{"seed": -9223372036854775809}', "seed", "seed: "),
        (b'{"temperature": NaN}', "temperature", "temperature: "),
        (b'{"temperature": -Infinity}', "temperature", "temperature: "),
        (b'{"temperature": 1e999}', "temperature", "temperature: "),
        (b'{"stop": ["a", "\\ud800"]}', "stop", "stop[1]: the half '\\ud800' of a surrogate pair"),
        (b'{"logit_bias": {"\\udfff": 1}}', "logit_bias", "logit_bias.\udfff: the half '\\udfff'"),
        (b'[{"a": 1}, {"metric": {"value": 1e400}}]', "metric", "[1].metric.value: "),
        (b'{"metadata": ' + b"[" * 150 + b"]" * 150 + b"}", "metadata", "metadata: expected at most 100 arrays"),
    ],
)
def test_a_value_that_nothing_behind_can_hold_is_named(body: bytes, field: str, where: str) -> None:
    refusal = refused(body)
    assert refusal.param == field and refusal.message.startswith(where)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "a": 1}}',
        b'{"a": "\xe9"}',
        b'{"a": "\xed\xa0\x80"}',
        '{"a": 1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        b"{'a': 1}",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refused(body).message.startswith("the body is not JSON: ")


def test_a_key_that_stands_twice_is_named() -> None:
    assert "the key 'binary' stands twice" in refused(b'{"binary": true, "binary": false}').message


def test_what_json_and_messagepack_can_hold_passes() -> None:
    body = b'{"a": [18446744073709551615, -9223372036854775808, 1.5e308, true, null], "b": "\\ud83d\\ude00"}'
    assert parse_object(body) == {"a": [2**64 - 1, -(2**63), 1.5e308, True, None], "b": "\U0001f600"}
    nested = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(b"\xef\xbb\xbf" + nested) == json.loads(nested)
    with pytest.raises(Refusal, match="the body is a JSON list, expected an object"):
        parse_object(b"[]")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(anything, st.booleans())
def test_whatever_passes_can_be_encoded_by_all_that_follows(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    try:
        parsed = parse_json(body)
    except Refusal:
        return
    assert parsed == value
    msgpack.packb(parsed)
    json.dumps(parsed, allow_nan=False, ensure_ascii=False).encode()
