"""The buffer's port for people that pauses and resumes learning, and reports its status."""

from actors.replay.state import BufferState
from actors.runtime.ports import LearningPort
from actors.runtime.statuses import BufferStatus


class Learning(LearningPort):
    def __init__(self, state: BufferState) -> None:
        self._state = state

    async def pause(self, reason: str) -> None:
        self._state.check_started()
        await self._state.pause.begin(reason, lasting=True)

    async def resume(self) -> None:
        self._state.check_started()
        await self._state.pause.end(self._state.wake)

    async def status(self) -> BufferStatus:
        """Works before the start too; all counts are 0 then."""
        state, counts, throttle = self._state, self._state.replay.counts(), self._state.throttle
        return {
            **state.pause.status(),
            "waiting": counts.prompts_waiting,
            "examples": counts.examples_waiting,
            "windows_drawn": counts.windows_drawn,
            "windows_decided": throttle.windows_decided,
            "capacity": throttle.capacity,
            "leased": throttle.leased,
            "outstanding": throttle.outstanding,
            "accepted": throttle.accepted,
            "filtered": throttle.filtered,
            "failed": throttle.failed,
            "expired": throttle.expired,
            "quarantined": counts.quarantined_prompts,
            "stale_examples": counts.stale_examples,
            "lag": state.lag,
            "vote_share": sum(state.shares) / len(state.shares) if state.shares else None,
            "tokens": state.tokens,
            **state.late_votes.counts(),
            "asked": len(state.asked),
            "owed": len(state.outbox) + len(state.unsaved),
        }
