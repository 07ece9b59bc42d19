"""The state that all ports of the buffer share: the view of the run in memory, and writes to the store."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from actors.replay.late_votes import LateVotes
from actors.replay.leases import Leases
from actors.replay.outbox import UNSURE, Outbox
from actors.replay.pause import Pause
from actors.replay.prompt_queue import PromptQueue
from actors.replay.recovery import Recovered
from actors.replay.tuning import Tuning
from actors.runtime.ports import StorePort
from core.aio import comes_true
from core.clock import Clock, SystemClock
from core.config import LearningConfig, MethodConfig, VotesConfig
from core.errors import Unavailable
from core.metrics import Metrics
from core.store.reader import RunReader
from core.store.records import Record, Row, as_row, event
from training.replay.backpressure import Backpressure
from training.replay.interval_set import IntervalSet
from training.replay.replay import Replay

RETRY_S = 1.0
"""Between two attempts of a write."""


class BufferState:
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
        votes = votes or VotesConfig()
        self.run_dir = Path(run_dir)
        self.store = store
        self.learning = learning
        self.metrics = metrics
        self.clock = clock or SystemClock()
        size = learning.groups_per_window
        self.throttle = Backpressure(size, learning.max_lag, windows_wanted)
        self.leases = Leases(self.throttle, learning.lease_s, self.clock)
        self.replay = Replay(size, learning.replay_windows, learning.max_lag, votes.correction_share)
        self.late_votes = LateVotes(self.run_dir, self.append, self.replay, votes, metrics, self.clock)
        self.asked = PromptQueue(votes.asked_room)
        self.tuning = Tuning(method)
        self.refused_tuning = ""
        """Why the newest decision of the tuner was refused, until learning is paused for it."""
        self.outbox = Outbox(self.append)
        self.pause = Pause(self.outbox, self.tell, metrics, self.clock)
        self.rejected: dict[int, bool] = {}
        """Decided window -> whether its version was rejected."""
        self.unsaved: dict[int, list[Record]] = {}
        """Drawn windows that the store has not acknowledged; the trainer has not got them yet."""
        self.shares: deque[float] = deque(maxlen=size)
        """Vote shares of the winners of the newest groups."""
        self.tokens = 0
        self.lag = 0
        """Age of the newest window's oldest sample, in versions."""
        self.told_at = 0.0
        """Monotonic time of the last event about votes."""
        self.started = False
        self._changed = asyncio.Condition()

    def check_started(self) -> None:
        """Raises: Unavailable."""
        if not self.started:
            raise Unavailable("the buffer is not started yet; try again")

    async def wait_until(self, holds: Callable[[], bool], wait_s: float) -> None:
        """Wait until `holds()` is true, at most `wait_s`."""
        await comes_true(self._changed, holds, wait_s)

    async def wake(self) -> None:
        """Something changed: make waiting calls check again."""
        counts = self.replay.counts()
        self.metrics.set("buffer_groups", counts.prompts_waiting)
        self.metrics.set("buffer_examples", counts.examples_waiting)
        self.metrics.set("outstanding_leases", len(self.leases.outstanding))
        async with self._changed:
            self._changed.notify_all()

    # --- the store ---

    async def append(self, records: Sequence[Row]) -> None:
        """Returns when the records are on disk."""
        await self.store.append([*map(as_row, records)])

    async def tell(self, record: Record) -> None:
        """Write an event. If the store does not acknowledge it, it may be lost."""
        with suppress(*UNSURE):
            await self.append([record])

    def event(self, kind: str, **detail: object) -> Record:
        return event(self.clock.now(), "buffer", kind, **detail)

    def vote_news(self) -> list[Record]:
        """One event for all votes since the last such event; empty without new votes."""
        if not self.late_votes.tally:
            return []
        self.told_at = self.clock.monotonic()
        return [self.event("voted", **self.late_votes.take_news())]

    def reader(self) -> RunReader:
        return RunReader(self.run_dir)

    # --- restart ---

    def restore(self, found: Recovered) -> None:
        self._restore_replay(found)
        counts = self.replay.counts()
        held = counts.prompts_waiting + counts.windows_drawn * self.learning.groups_per_window
        self.leases.restore(found, held)
        self.throttle.windows_decided = len(found.decided)
        self.throttle.windows_discarded = sum(fact.discarded for fact in found.decided.values())
        self.tokens = found.counts.tokens
        self.rejected = {window: fact.rejected for window, fact in found.decided.items()}
        for window in found.unwritten:
            self.outbox.add(found.decided[window].record(window))
        self.late_votes.restore(found.voted, found.first_votes)
        self.asked.add(found.asked)
        self.tuning.restore(found.tuned)

    def _restore_replay(self, found: Recovered) -> None:
        windows = found.windows.items()
        self.replay.restore(
            found.outcomes,
            drawn={number: drawn.places for number, drawn in windows},
            quarantined=found.bad_versions,
            quarantined_windows=[window for window, fact in found.decided.items() if fact.rejected],
            versions=found.versions,
            newest_at_draw={number: drawn.newest for number, drawn in windows},
            oldest_at_draw={number: drawn.oldest for number, drawn in windows if drawn.oldest is not None},
            used=IntervalSet.below(found.next_place, but=found.open),
        )
        self.replay.recount(found.counts.stale, found.counts.quarantined)
