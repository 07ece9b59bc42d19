"""Prompts that travel together, over a handle that is only a function."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.codec import decode_batch, encode_batch
from core.errors import PromptError, VersionError
from core.messages import BASE, Candidate, ChatMessage, PolicyRef, Prompt, Sampling
from serve.replica.client import ServedPolicy

Answer = Callable[[list[Prompt], str | None], list[bytes | PromptError]]


class Handle:
    """Answers as Serve's does: `handle.generate.remote(...)`."""

    def __init__(self, answer: Answer) -> None:
        self.calls: list[tuple[list[str], str | None]] = []
        self._answer = answer
        self.generate = self
        self.cancelled = 0
        self.slow = False

    def remote(self, prompts: bytes, sampling: bytes, ref: str | None) -> Awaitable[Any]:
        return self._remote(decode_batch(Prompt, prompts), ref)

    async def _remote(self, prompts: list[Prompt], ref: str | None) -> Any:
        self.calls.append(([prompt.id for prompt in prompts], ref))
        try:
            await asyncio.sleep(60 if self.slow else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(prompts, ref)


def prompt(name: str) -> Prompt:
    return Prompt(id=name, messages=(ChatMessage(role="user", content=name),))


def candidate(text: str) -> Candidate:
    ids = b"\0\0\0\0"
    return Candidate(
        id=text, start=BASE, end=BASE, context_ids=ids, completion_ids=ids, text=text, finish="stop", render_id="r"
    )


def echo(prompts: list[Prompt], ref: str | None) -> list[bytes | PromptError]:
    return [encode_batch([candidate(prompt.id)]) for prompt in prompts]


def policy_over(handle: Handle) -> ServedPolicy:
    return ServedPolicy(handle, patience_s=5.0)  # type: ignore[arg-type]


async def ask(policy: ServedPolicy, name: str, n: int = 1, ref: PolicyRef | None = None) -> str:
    (one,) = await policy.generate(prompt(name), Sampling(n=n), ref)
    return one.text


def test_prompts_asked_together_go_in_one_call_and_each_gets_its_own_answer() -> None:
    async def run() -> None:
        handle = Handle(echo)
        policy = policy_over(handle)
        names = [f"p{i}" for i in range(5)]
        assert await asyncio.gather(*(ask(policy, name) for name in names)) == names
        assert handle.calls == [(names, None)]
        assert policy.tokens["explore"] == 5

    asyncio.run(run())


def test_a_batch_holds_so_many_samples_and_one_kind_of_sampling_and_version() -> None:
    async def run() -> None:
        handle = Handle(echo)
        policy = policy_over(handle)
        v1 = PolicyRef(version=1)
        await asyncio.gather(
            *(ask(policy, f"a{i}", n=32) for i in range(3)), ask(policy, "b"), ask(policy, "c", ref=v1)
        )
        assert sorted(handle.calls, key=str) == sorted(
            [(["a0", "a1"], None), (["a2"], None), (["b"], None), (["c"], "policy@v1")], key=str
        )

    asyncio.run(run())


def test_a_prompt_that_cannot_be_asked_fails_alone() -> None:
    def refuses_b(prompts: list[Prompt], ref: str | None) -> list[bytes | PromptError]:
        return [PromptError("too long") if p.id == "b" else encode_batch([candidate(p.id)]) for p in prompts]

    async def run() -> None:
        policy = policy_over(Handle(refuses_b))
        said = await asyncio.gather(*(ask(policy, name) for name in "abc"), return_exceptions=True)
        assert said[0] == "a" and said[2] == "c"
        assert isinstance(said[1], PromptError)

    asyncio.run(run())


def test_a_version_that_is_not_there_yet_is_asked_for_again_by_all_of_the_batch() -> None:
    tries = 0

    def late(prompts: list[Prompt], ref: str | None) -> list[bytes | PromptError]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise VersionError("v1 is not loaded")
        return echo(prompts, ref)

    async def run() -> None:
        policy = policy_over(Handle(late))
        assert await asyncio.gather(*(ask(policy, name) for name in "ab")) == ["a", "b"]
        assert tries == 3

    asyncio.run(run())


def test_a_call_is_cancelled_when_the_last_who_waits_for_it_is_and_not_before() -> None:
    async def run() -> None:
        handle = Handle(echo)
        handle.slow = True
        policy = policy_over(handle)
        first, second = (asyncio.create_task(ask(policy, name)) for name in "ab")
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.01)
        assert handle.cancelled == 0 and not second.done()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.sleep(0.01)
        assert handle.cancelled == 1

    asyncio.run(run())
