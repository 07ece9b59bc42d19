"""Who may sit where, without waiting: the clock is moved by hand, the event loop only spun."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock, SystemClock
from core.errors import ConfigError
from serve.engine.admission import Admission
from tests.pure.waiting import spin, until


def seats_of(
    total: int = 8, reserve: int = 2, busy_share: float = 0.5, active_s: float = 5.0
) -> tuple[Admission, ManualClock]:
    clock = ManualClock(100.0)
    return Admission(total, reserve, busy_share, active_s, clock), clock


class Holder:
    """Background work that sits down when it may and stays until told to leave."""

    def __init__(self, seats: Admission, k: int) -> None:
        self.seated = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(seats, k))

    async def _hold(self, seats: Admission, k: int) -> None:
        async with seats.background(k):
            self.seated = True
            await self._leave.wait()

    async def leave(self) -> None:
        self._leave.set()
        await self.task


def test_background_fills_all_but_the_reserve_when_no_user_is_active() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        holders = [Holder(seats, 1) for _ in range(8)]
        await spin()
        assert [h.seated for h in holders] == [True] * 6 + [False] * 2
        assert (seats.background_held, seats.background_waiting) == (6, 2)
        await holders[0].leave()
        await spin()
        assert holders[6].seated and not holders[7].seated
        for holder in holders[1:]:
            await holder.leave()
        assert (seats.background_held, seats.background_waiting) == (0, 0)

    asyncio.run(run())


def test_an_active_user_halves_what_background_may_take_until_the_user_has_been_away() -> None:
    async def run() -> None:
        seats, clock = seats_of()
        assert seats.limit() == 6
        with seats.user():
            assert (seats.users, seats.limit()) == (1, 4)
            holders = [Holder(seats, 1) for _ in range(6)]
            await spin()
            assert sum(h.seated for h in holders) == 4
        clock.advance(4.9)
        seats.admit()
        await spin()
        assert sum(h.seated for h in holders) == 4
        clock.advance(0.2)
        seats.admit()
        await spin()
        assert sum(h.seated for h in holders) == 6
        for holder in holders:
            await holder.leave()

    asyncio.run(run())


def test_a_timer_seats_background_when_users_have_been_away_and_nothing_else_happens() -> None:
    async def run() -> None:
        seats = Admission(4, 1, 0.5, 0.02, SystemClock())
        with seats.user():
            pass
        holders = [Holder(seats, 1) for _ in range(3)]
        await until(lambda: all(h.seated for h in holders))
        for holder in holders:
            await holder.leave()

    asyncio.run(run())


def test_first_come_first_seated_so_small_work_does_not_starve_large() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        small = [Holder(seats, 1) for _ in range(3)]
        await spin()
        large = Holder(seats, 5)
        later = Holder(seats, 1)
        await spin()
        assert not large.seated and not later.seated, "one that comes later must not overtake"
        await small[0].leave()
        await small[1].leave()
        await spin()
        assert large.seated and not later.seated
        await small[2].leave()
        await spin()
        assert later.seated
        await large.leave()
        await later.leave()

    asyncio.run(run())


def test_a_group_larger_than_the_busy_share_is_seated_alone_while_users_are_active() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        with seats.user():
            first, large = Holder(seats, 1), Holder(seats, 6)
            await spin()
            assert first.seated and not large.seated
            await first.leave()
            await spin()
            assert large.seated and seats.background_held == 6
            await large.leave()

    asyncio.run(run())


def test_more_seats_than_background_may_ever_hold_is_refused_with_the_number() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        with pytest.raises(ConfigError, match="7 seats requested, background work may hold 1 to 6"):
            async with seats.background(7):
                pass

    asyncio.run(run())
    with pytest.raises(ConfigError, match="reserve=8 of 8"):
        Admission(8, 8, 0.5, 5.0, ManualClock())


def test_a_seat_handed_back_before_the_others_seats_who_waits_and_is_counted_once() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        async with seats.background(4) as leave:
            waiting = Holder(seats, 3)
            await spin()
            assert not waiting.seated
            leave()
            await spin()
            assert waiting.seated and seats.background_held == 6
            for _ in range(9):  # more often than there are seats
                leave()
            assert seats.background_held == 3
        assert seats.background_held == 3
        await waiting.leave()
        assert seats.background_held == 0

    asyncio.run(run())


def test_cancelled_work_gives_its_place_in_the_queue_or_its_seats_back() -> None:
    async def run() -> None:
        seats, _ = seats_of()
        first = Holder(seats, 6)
        await spin()
        waiting, behind = Holder(seats, 4), Holder(seats, 2)
        await spin()
        waiting.task.cancel()
        await spin()
        assert seats.background_waiting == 2
        await first.leave()
        behind.task.cancel()  # seated, but its task has not run since
        await spin()
        assert (seats.background_held, seats.background_waiting) == (0, 0)

    asyncio.run(run())


@given(st.integers(0, 2**32), st.integers(2, 12), st.floats(0.01, 1.0))
def test_the_laws_of_seats_hold_in_any_order_of_events(seed: int, total: int, busy_share: float) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        clock = ManualClock(100.0)
        reserve = chance.randrange(total)
        most = total - reserve
        seats = Admission(total, reserve, busy_share, 5.0, clock)
        holders: list[Holder] = []
        users: list[object] = []
        for _ in range(60):
            match chance.randrange(6):
                case 0 | 1:
                    holders.append(Holder(seats, chance.randint(1, most)))
                case 2 if holders:
                    holder = holders.pop(chance.randrange(len(holders)))
                    holder.task.cancel()
                case 3:
                    user = seats.user()
                    user.__enter__()
                    users.append(user)
                case 4 if users:
                    users.pop().__exit__(None, None, None)  # type: ignore[attr-defined]
                case _:
                    clock.advance(chance.random() * 6)
                    seats.admit()
            await spin()
            assert 0 <= seats.background_held <= most
            seated = [h.seated for h in holders]
            assert seated == sorted(seated, reverse=True), "first come, first seated"
            if seats.background_waiting:
                assert seats.background_held > 0, "nobody waits before empty seats"
        for user in users:
            user.__exit__(None, None, None)  # type: ignore[attr-defined]
        clock.advance(10)
        seats.admit()
        while holders:
            await spin()
            assert holders[0].seated
            await holders.pop(0).leave()
        assert (seats.background_held, seats.background_waiting) == (0, 0)

    asyncio.run(run())
