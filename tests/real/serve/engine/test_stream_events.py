"""The events of a streamed chat equal vLLM's, byte for byte."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.patches.stream_events import Chunk, Delta, makers

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SEEN = {"id": "v7-a", "object": "chat.completion.chunk", "created": 3, "model": "policy@v7"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with some of the fields; a value may be None."""
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in fields.items()})


@given(
    maybe(role=st.just("assistant"), content=TEXT),
    st.booleans(),
    maybe(finish_reason=TEXT, stop_reason=TEXT | st.integers(0, 9), token_ids=st.lists(st.integers(0, 9))),
    maybe(prompt_token_ids=st.lists(st.integers(0, 9)), prompt_text=TEXT),
    st.booleans(),
    maybe(system_fingerprint=TEXT),
)
def test_an_event_that_says_a_text_is_what_vllm_would_have_written(
    said: dict[str, Any], scored: bool, end: dict[str, Any], first: dict[str, Any], counted: bool, last: dict[str, Any]
) -> None:
    from vllm.entrypoints.generate.base.protocol import DeltaMessage
    from vllm.entrypoints.openai.chat_completion import protocol
    from vllm.entrypoints.serve.engine.protocol import UsageInfo

    token = protocol.ChatCompletionLogProbsContent(token="a", logprob=-0.1, bytes=[97], top_logprobs=[])
    logprobs = protocol.ChatCompletionLogProbs(content=[token]) if scored else None
    theirs = (protocol.ChatCompletionResponseStreamChoice, protocol.ChatCompletionStreamResponse)

    def written(delta: Any, choice: Any, chunk: Any) -> str:
        made = choice(index=1, delta=delta(**said), logprobs=logprobs, **end)
        event = chunk(**SEEN, choices=[made], **first)
        for name, value in last.items():
            setattr(event, name, value)
        if counted:
            event.usage = UsageInfo(prompt_tokens=3, completion_tokens=4, total_tokens=7)
        assert (type(event) is Chunk) == (delta is Delta)
        return event.model_dump_json(exclude_unset=True)

    assert written(Delta, *makers(*theirs)) == written(DeltaMessage, *theirs)


def test_events_with_tool_calls_or_usage_alone_are_made_by_vllm_itself() -> None:
    from vllm.entrypoints.generate.base.protocol import DeltaMessage, DeltaToolCall
    from vllm.entrypoints.openai.chat_completion import protocol

    theirs = (protocol.ChatCompletionResponseStreamChoice, protocol.ChatCompletionStreamResponse)
    choice, chunk = makers(*theirs)
    called = choice(index=0, delta=DeltaMessage(tool_calls=[DeltaToolCall(index=0)]))
    assert type(called) is theirs[0]
    assert type(chunk(**SEEN, choices=[called])) is type(chunk(**SEEN, choices=[])) is theirs[1]
