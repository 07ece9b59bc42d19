"""What one request may ask for, and how many find a place."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import AccessConfig
from serve.http.errors import Refusal
from serve.http.limits import Queue, check, read_body

ACCESS = AccessConfig(max_n=4, max_tokens=100, max_queue=2, retry_after_s=3)


def refused(fields: dict[str, Any], access: AccessConfig = ACCESS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(fields, access)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("param", ["n", "best_of"])
def test_more_answers_than_allowed_are_refused_by_name_value_and_limit(param: str) -> None:
    check({param: 4}, ACCESS)
    refusal = refused({param: 5})
    assert refusal.param == param
    assert refusal.message == f"{param}=5: one request may ask for 4 answers at most"


@pytest.mark.parametrize("param", ["max_tokens", "max_completion_tokens"])
def test_longer_answers_than_allowed_are_refused_by_name_value_and_limit(param: str) -> None:
    check({param: 100}, ACCESS)
    refusal = refused({param: 101})
    assert refusal.param == param
    assert refusal.message == f"{param}=101: an answer may have 100 tokens at most"


@pytest.mark.parametrize("value", ["8", 8.0, True, [1], {}, -1, "x" * 10_000, 10**3000, float("nan")])
@pytest.mark.parametrize("param", ["n", "best_of", "max_tokens", "max_completion_tokens"])
def test_what_is_no_number_is_refused_and_a_long_one_not_repeated(param: str, value: Any) -> None:
    refusal = refused({param: value})
    assert refusal.param == param and len(refusal.message) < 200


@pytest.mark.parametrize("param", ["structured_outputs", "response_format"])
def test_grammars_are_refused_because_some_never_end(param: str) -> None:
    for wanted in ({"grammar": 'root ::= root "a"'}, {"type": "grammar"}, {"structural_tag": "{}"}):
        refusal = refused({param: wanted})
        assert refusal.param == param and "use `json`, `regex` or `choice`" in refusal.message
    for wanted in ({"json": {}}, {"regex": "a", "grammar": None}, {"type": "json_object"}, None):
        assert check({param: wanted}, ACCESS)[param] == wanted


def test_none_of_an_answer_is_too_few_but_an_echo_has_no_tokens() -> None:
    assert refused({"n": 0}).message == "n=0: expected a whole number from 1, or null"
    assert check({"max_tokens": 0, "n": None}, ACCESS)["max_tokens"] == 0


def test_every_prompt_of_a_list_counts_and_token_ids_are_one_prompt() -> None:
    for prompt in ("text", [1, 2, 3, 4, 5], [[1, 2], [3]], ["a", "b"], [], None):
        check({"prompt": prompt, "n": 2}, ACCESS)
    assert refused({"prompt": ["a", "b", "c"], "n": 2}).message == (
        "n=2 for 3 prompts: one request may ask for 4 answers at most"
    )
    assert refused({"prompt": [[1]] * 5}).param == "n"


def test_an_answer_that_nobody_bounded_gets_the_limit() -> None:
    for unbounded in ({}, {"max_tokens": None}, {"max_completion_tokens": 7}):
        assert check({"messages": [], **unbounded}, ACCESS) == {"messages": [], **unbounded, "max_tokens": 100}
    assert check({"prompt": "a"}, ACCESS) == {"prompt": "a", "max_tokens": 16}
    assert check({"prompt": "a"}, AccessConfig(max_tokens=9))["max_tokens"] == 9
    assert check({"messages": []}, AccessConfig()) == {"messages": []}


def test_one_prompt_is_counted_as_one_and_the_limit_is_reached_by_number_times_prompts() -> None:
    assert refused({"prompt": ["a"], "n": 5}).message == "n=5: one request may ask for 4 answers at most"
    check({"prompt": ["a", "b", "c", "d"]}, ACCESS)
    assert refused({"prompt": ["a"] * 5}).message == "n=1 for 5 prompts: one request may ask for 4 answers at most"
    check({"n": 1, "best_of": None, "prompt": ["a", "b", "c", "d"]}, ACCESS)
    assert check({"n": 4, "max_tokens": 3}, ACCESS) == {"n": 4, "max_tokens": 3}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["n", "best_of", "max_tokens", "max_completion_tokens", "prompt", "messages"])


@given(st.dictionaries(names, json_values | st.integers(0, 8)))
def test_no_fields_do_more_than_be_refused_and_none_get_past_a_limit(fields: dict[str, Any]) -> None:
    try:
        passed = check(fields, ACCESS)
    except Refusal as refusal:
        assert refusal.status == 400 and refusal.param in fields | {"n": 0}
        assert refusal.response().body
    else:
        assert {**passed, **fields, "max_tokens": passed["max_tokens"]} == passed
        assert (passed.get("n") or 1) <= 4 and passed["max_tokens"] <= 100


# --- bodies ---


def read(*parts: bytes, most: int = 8) -> bytes:
    async def run() -> bytes:
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        given = iter([*messages, {"type": "http.request"}])

        async def receive() -> Any:
            return next(given)

        return await read_body(receive, most)

    return asyncio.run(run())


def test_a_body_is_read_whole_up_to_the_limit() -> None:
    assert read(b"1234", b"", b"5678") == b"12345678"


def test_a_body_over_the_limit_is_refused_before_it_is_whole() -> None:
    with pytest.raises(Refusal, match="over 8 bytes") as caught:
        read(b"12345678", b"9", b"never read")
    assert caught.value.status == 413


def test_a_body_whose_last_part_says_nothing_more_is_whole() -> None:
    async def once() -> Any:
        return {"type": "http.request", "body": b"12"}

    assert asyncio.run(read_body(once, 2)) == b"12"


def test_a_client_that_leaves_is_no_server_error() -> None:
    async def leave() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(Refusal, match="disconnected before") as caught:
        asyncio.run(read_body(leave, 8))
    assert caught.value.status == 400


# --- places ---


def test_who_finds_no_place_is_told_when_to_come_back_and_a_free_one_is_taken_again() -> None:
    queue = Queue(ACCESS)
    with queue.place():
        with queue.place():
            with pytest.raises(Refusal, match="try again in 3 s") as caught, queue.place():
                pass
            assert caught.value.status == 429
            assert caught.value.response().headers["retry-after"] == "3"
            assert queue.inside == 2
        with queue.place():
            assert queue.inside == 2
    assert queue.inside == 0


def test_a_failed_answer_gives_its_place_back() -> None:
    queue = Queue(ACCESS)
    with pytest.raises(RuntimeError), queue.place():
        raise RuntimeError
    assert queue.inside == 0
