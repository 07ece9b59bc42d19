"""The buffer's port for the trainer and for versions: draw a window, and learn what was decided about it."""

import asyncio

from actors.replay.outbox import UNSURE
from actors.replay.state import RETRY_S, BufferState
from actors.runtime.ports import WindowPort
from core.errors import ConfigError
from core.messages import Window
from core.store.facts import BufferCounts, WindowDecided, WindowDrawn
from core.store.records import Record

EMPTY_WINDOWS = 3


class Windows(WindowPort):
    def __init__(self, state: BufferState) -> None:
        self._state = state
        self._empty = 0
        """Windows in a row, up to the newest decided one, without an example."""

    async def draw(self, after: int, newest: int, wait_s: float) -> Window | None:
        state = self._state
        state.check_started()
        if self._drawn_after(after) is None:
            await state.wait_until(lambda: state.replay.ready() and not state.pause, wait_s)
            # another call may have drawn it during the wait
            if self._drawn_after(after) is None and not state.pause:
                self._draw_next(newest)
                await self._pause_after_refusal()
        number = self._drawn_after(after)
        if number is not None and not await self._is_saved(number):
            await asyncio.sleep(min(wait_s, RETRY_S))
            return None
        return state.replay.again(number) if number is not None else None

    async def published(self, version: int) -> None:
        self._state.check_started()
        self._state.replay.publish(version)

    async def decided(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        state = self._state
        state.check_started()
        if rejected:
            self._quarantine(window, version)
        before = state.rejected.get(window)
        if before is None:
            (state.throttle.discard if discarded else state.throttle.decide)()
            await self._pause_after_empty(window, empty=discarded and version == 0)
        if before is None or (rejected and not before):
            state.rejected[window] = rejected
            state.outbox.add(WindowDecided(version=version, rejected=rejected, discarded=discarded).record(window))
            await state.outbox.write()
        await state.wake()

    async def _pause_after_empty(self, window: int, empty: bool) -> None:
        """In a run with an end, pause after EMPTY_WINDOWS in a row without an example. A service waits for more."""
        state = self._state
        self._empty = self._empty + 1 if empty else 0
        if self._empty == EMPTY_WINDOWS and state.throttle.windows_wanted is not None:
            self._empty = 0
            reason = (
                f"{EMPTY_WINDOWS} windows in a row, the last window {window}, had no example: the recipe keeps nothing "
                f"of their {state.learning.groups_per_window} prompts each; loosen its filters (method.options), take "
                "other prompts, or another recipe"
            )
            await state.pause.begin(reason, lasting=False)

    def _quarantine(self, window: int, version: int) -> None:
        withdrawn = self._state.replay.quarantine(version)
        self._state.throttle.quarantine(len(withdrawn.places))
        self._state.replay.quarantine_window(window)

    # --- drawing ---

    def _drawn_after(self, after: int) -> int | None:
        """The number of the already drawn window that follows `after`, if any."""
        return after + 1 if self._state.replay.is_drawn(after + 1) else next(iter(self._state.unsaved), None)

    def _draw_next(self, newest: int) -> None:
        state = self._state
        oldest = state.replay.oldest_fresh(newest)
        window = state.replay.draw(newest)
        if window is None:
            return
        state.unsaved[window.number] = [*self._records(window, newest, oldest), *self._tuned(window.number)]
        new = set(window.group_ids)
        versions = {example.policy.version for example in window.examples if example.group_id in new}
        state.lag = max((state.replay.lag(version, newest) for version in versions), default=0)
        state.late_votes.resettling.forget()

    def _tuned(self, number: int) -> list[Record]:
        """What the method's tuner decided; it is stored with the window, so that a restart goes on with it."""
        state = self._state
        try:
            fact = state.tuning.decide(number, state.replay.new_in(number))
        except ConfigError as error:
            state.refused_tuning = str(error)
            return []
        for name, value in state.tuning.values.items():
            state.metrics.set("tuned", value, setting=name)
        told = state.event("tuned", window=number, **state.tuning.values)
        return [] if fact is None else [fact.record(), told]

    async def _pause_after_refusal(self) -> None:
        refused, self._state.refused_tuning = self._state.refused_tuning, ""
        if refused:
            await self._state.pause.begin(refused, lasting=False)

    def _records(self, window: Window, newest: int, oldest: int) -> list[Record]:
        """The records of a newly drawn window."""
        number, state = window.number, self._state
        places = state.replay.drawn_places(number)
        return [
            WindowDrawn(places=places, newest=newest, oldest=oldest).record(number),
            self._counts(number).record(),
            state.event("drawn", window=number, prompts=len(places), examples=len(window.examples)),
            *state.vote_news(),
        ]

    def _counts(self, window: int) -> BufferCounts:
        state, counts = self._state, self._state.replay.counts()
        return BufferCounts(
            window=window,
            next_place=state.leases.next_place,
            open=tuple(state.leases.open_places),
            waiting=tuple(state.replay.waiting_places()),
            accepted=state.throttle.accepted,
            filtered=state.throttle.filtered,
            failed=state.throttle.failed,
            expired=state.throttle.expired,
            tokens=state.tokens,
            stale=counts.stale_examples,
            quarantined=counts.quarantined_prompts,
        )

    async def _is_saved(self, number: int) -> bool:
        """Whether the store has this window. Writes it again if that is unknown."""
        state = self._state
        records = state.unsaved.get(number)
        if records is None:
            return True
        try:
            await state.append(records)
        except UNSURE:
            return False
        if state.unsaved.pop(number, None) is not None:
            state.metrics.count("windows_drawn_total")
            state.metrics.set("lag_versions", state.lag)
        return True
