"""One answer on its way: what says nothing goes with what comes next, and all of it arrives."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from core.messages import PolicyRef
from serve.http.response_tap import ResponseTap

ROLE = b'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
SAID = [
    b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % text
    for text in (b"", b"The", rb" \"choices\":[] are data: [DONE")
]
USAGE = b'data: {"id":"a","choices":[],"usage":{"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def sent(parts: Sequence[bytes], kind: bytes = b"text/event-stream", end: bytes = b"") -> tuple[ResponseTap, list[Any]]:
    """What leaves, for an app that says these parts, one message each, and then `end`."""
    left: list[Any] = []

    async def send(message: Any) -> None:
        left.append(message)

    async def answering() -> ResponseTap:
        answer = ResponseTap(send, PolicyRef(version=7), "r", lambda: False)
        await answer({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        assert left == [], "the gateway may still ask another replica"
        for part in parts:
            await answer({"type": "http.response.body", "body": part, "more_body": True})
        await answer({"type": "http.response.body", "body": end, "more_body": False})
        return answer

    return asyncio.run(answering()), left


def test_silent_events_go_with_the_next_and_each_token_goes_by_itself() -> None:
    answer, (start, *bodies) = sent([ROLE, *SAID, USAGE, DONE])
    assert (b"x-policy-version", b"7") in start["headers"]
    assert [message["body"] for message in bodies] == [ROLE + SAID[0], *SAID[1:], USAGE + DONE]
    assert [message.get("more_body", False) for message in bodies] == [True, True, True, False]
    assert answer.transcript.whole and answer.transcript.texts == {0: 'The "choices":[] are data: [DONE'}
    assert answer.first_token_s is not None


@pytest.mark.parametrize("parts", [[], [ROLE], [ROLE, ROLE, *SAID], [*SAID, DONE], [USAGE, DONE], [DONE]])
def test_whatever_is_said_arrives_once_and_in_order(parts: Sequence[bytes]) -> None:
    _, left = sent(parts)
    assert b"".join(message["body"] for message in left[1:]) == b"".join(parts)
    assert not left[-1]["more_body"]


def test_a_whole_answer_is_not_held_back() -> None:
    body = b'{"id":"a","choices":[],"usage":{"completion_tokens": 9}}'
    answer, left = sent([body], b"application/json")
    assert [message["body"] for message in left[1:]] == [body, b""] and answer.tokens == 9
