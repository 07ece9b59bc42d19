"""The buffer's port for people: their votes, the prompts that they asked, and the removal of both."""

import asyncio
from collections.abc import Sequence
from contextlib import closing

from actors.replay.erasure import Traces, traces
from actors.replay.late_votes import check
from actors.replay.state import BufferState
from actors.runtime.ports import BallotPort, Forgotten
from core.aio import Batcher
from core.messages import Prompt, Vote
from core.store.records import Row, message


class Ballots(BallotPort):
    def __init__(self, state: BufferState) -> None:
        self._state = state
        self._one_at_a_time = asyncio.Lock()
        self._batches = Batcher(self._cast)

    async def vote(self, votes: Sequence[Vote], beside: Sequence[Row] = ()) -> list[str]:
        self._state.check_started()
        check(votes)
        return await self._batches((votes, beside))

    async def _cast(self, batches: Sequence[tuple[Sequence[Vote], Sequence[Row]]]) -> list[list[str]]:
        """Write all votes that arrived during the last write in one transaction."""
        every = [vote for votes, _ in batches for vote in votes]
        beside = [row for _, rows in batches for row in rows]
        async with self._one_at_a_time:
            results = iter(await self._state.late_votes.cast(every, beside))
        await self._state.wake()
        return [[next(results) for _ in votes] for votes, _ in batches]

    async def ask(self, prompts: Sequence[Prompt]) -> int:
        state = self._state
        state.check_started()
        new = state.asked.missing(prompts)
        explored = await asyncio.to_thread(self._explored, new) if new else set[str]()
        new = [prompt for prompt in new if prompt.id not in explored]
        if new:
            await state.append([message("asked", prompt.id, prompt.origin, prompt) for prompt in new])
            state.asked.add(new)
            await state.wake()
        return len(new)

    def _explored(self, prompts: Sequence[Prompt]) -> set[str]:
        with closing(self._state.reader()) as reader:
            return {prompt.id for prompt in prompts if reader.ids("outcomes", prompt.id)}

    async def forget(self, name: str) -> Forgotten:
        state = self._state
        state.check_started()
        async with self._one_at_a_time:
            found = await asyncio.to_thread(self._traces, name)
            removed = await state.store.remove(found.ids)
            await state.late_votes.withdraw(name, found.prompts)
        about = Forgotten(votes=len(found.ids["votes"]), rows=removed, versions=found.versions)
        await state.tell(state.event("forgotten", **about))  # the event does not hold the name either
        await state.wake()
        return about

    def _traces(self, name: str) -> Traces:
        with closing(self._state.reader()) as reader:
            return traces(reader, name, self._state.late_votes.prompts)
