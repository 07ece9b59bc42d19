"""The replay buffer: an actor that leases places of the prompt source to collectors, accepts outcomes and votes, and
gives windows to the trainer.

    collectors   Exploration    leases and deliveries      actors.replay.exploration
    windows      Windows        draw, decided              actors.replay.windows
    people       Ballots        votes and asked prompts        actors.replay.ballots
    learning     Learning       pause, resume, status      actors.replay.learning

Memory holds only a view of the store. A delivery or a vote is acknowledged once the store has it on disk.

After an overdue write it is unknown whether the store has the records. So the buffer repeats the write until it is
acknowledged, and passes nothing on before that. If two outcomes arrive for one place, the one on disk counts.
"""

import asyncio

from actors.replay.ballots import Ballots
from actors.replay.exploration import Exploration
from actors.replay.learning import Learning
from actors.replay.recovery import recover
from actors.replay.state import RETRY_S, BufferState
from actors.replay.windows import Windows
from actors.runtime.ports import Part, StorePort
from core.clock import Clock
from core.config import LearningConfig, MethodConfig, VotesConfig
from core.metrics import Metrics

TOLD_S = 15.0
"""All votes within this time become one event."""
COUNTED = ("prompts_total", "candidates_total", "votes_total", "resettled_total", "windows_drawn_total")


class Buffer(Part):
    def __init__(
        self,
        run_dir: str,
        store: StorePort,
        learning: LearningConfig,
        windows_wanted: int | None,
        metrics: Metrics,
        votes: VotesConfig | None = None,
        clock: Clock | None = None,
        method: MethodConfig | None = None,
    ) -> None:
        """`method`: its tuner is asked at each draw; None: nothing is tuned."""
        state = self.state = BufferState(run_dir, store, learning, windows_wanted, metrics, votes, clock, method)
        self.collectors = Exploration(state)
        self.windows = Windows(state)
        self.people = Ballots(state)
        self.learning = Learning(state)

    async def start(self) -> None:
        """Rebuild the view from the store."""
        state = self.state
        found = await asyncio.to_thread(recover, state.run_dir, state.learning)
        state.restore(found)
        state.metrics.begin(*COUNTED)
        state.started = True
        await state.wake()
        await state.pause.restore(found.paused)

    async def run(self) -> None:
        """Expire leases, and repeat writes that the store has not acknowledged."""
        while True:
            await self.tick()
            longest = RETRY_S if self.state.outbox else TOLD_S
            left_s = self.state.leases.soonest - self.state.clock.monotonic()
            await asyncio.sleep(min(longest, max(0.5, left_s)))

    async def tick(self) -> None:
        state = self.state
        await self.collectors.expire()
        await state.outbox.write()
        if state.clock.monotonic() - state.told_at >= TOLD_S:
            for news in state.vote_news():
                await state.tell(news)

    async def stop(self) -> None:
        self.state.late_votes.close()

    async def quiet_s(self) -> float:
        """0: the answer itself shows that the event loop runs."""
        return 0.0
