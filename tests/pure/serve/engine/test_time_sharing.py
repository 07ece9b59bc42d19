"""One version at a time, in turns, without waiting: the clock is moved by hand, the event loop only spun."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.errors import Unavailable
from core.messages import BASE, PolicyRef
from serve.engine.time_sharing import TimeSharing
from tests.pure.waiting import spin

V1, V2, V3 = (PolicyRef(version=n) for n in (1, 2, 3))


class House:
    """A residency over a switch that takes turns of the loop, records, and fails on request."""

    def __init__(self, quantum_s: float = 5.0) -> None:
        self.clock = ManualClock()
        self.switches: list[PolicyRef] = []
        self.failing: set[PolicyRef] = set()
        self.residency = TimeSharing(self._switch, BASE, quantum_s=quantum_s, clock=self.clock)

    async def _switch(self, ref: PolicyRef) -> None:
        assert self.residency.users == 0, "nobody may be inside during a switch"
        await asyncio.sleep(0)
        assert self.residency.users == 0, "nobody may enter during a switch"
        if ref in self.failing:
            raise ValueError(f"{ref} is damaged")
        self.switches.append(ref)


class Guest:
    def __init__(self, house: House, ref: PolicyRef) -> None:
        self.ref = ref
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(house))

    async def _stay(self, house: House) -> None:
        async with house.residency.using(self.ref):
            assert house.residency.resident == self.ref
            self.inside = True
            await self._leave.wait()
            assert house.residency.resident == self.ref, "nobody's version may change under them"

    async def leave(self) -> None:
        self._leave.set()
        await self.task


def test_users_of_the_resident_version_share_it_and_others_wait_until_it_is_drained() -> None:
    async def run() -> None:
        house = House()
        a, b, other = Guest(house, BASE), Guest(house, BASE), Guest(house, V1)
        await spin()
        assert a.inside and b.inside and not other.inside and house.residency.waiting == 1
        await a.leave()
        await spin()
        assert not other.inside
        await b.leave()
        await spin()
        assert other.inside and house.switches == [V1]
        await other.leave()

    asyncio.run(run())


def test_one_switch_serves_everybody_who_waits_for_that_version() -> None:
    async def run() -> None:
        house = House()
        holding = Guest(house, BASE)
        await spin()
        guests = [Guest(house, ref) for ref in (V1, V2, V1, V2)]
        await spin()
        await holding.leave()
        await spin()
        assert [g.inside for g in guests] == [True, False, True, False]
        await guests[0].leave()
        await guests[2].leave()
        await spin()
        assert [g.inside for g in guests[1::2]] == [True, True] and house.switches == [V1, V2]
        for guest in guests[1::2]:
            await guest.leave()

    asyncio.run(run())


def test_newcomers_enter_the_resident_version_for_a_quantum_and_then_queue_behind_the_waiter() -> None:
    async def run() -> None:
        house = House(quantum_s=5.0)
        first = Guest(house, BASE)
        await spin()
        waiter = Guest(house, V1)
        await spin()
        house.clock.advance(4.9)
        second = Guest(house, BASE)
        await spin()
        assert second.inside
        house.clock.advance(0.2)
        late = Guest(house, BASE)
        await spin()
        assert not late.inside
        await first.leave()
        await second.leave()
        await spin()
        assert waiter.inside and not late.inside
        await waiter.leave()
        await spin()
        assert late.inside and house.switches == [V1, BASE]
        await late.leave()

    asyncio.run(run())


def test_the_error_of_a_switch_reaches_its_waiters_and_the_resident_version_goes_on() -> None:
    async def run() -> None:
        house = House()
        house.failing.add(V1)
        holding = Guest(house, BASE)
        await spin()
        bad, also_bad, good, stays = (Guest(house, ref) for ref in (V1, V1, V2, BASE))
        await spin()
        await holding.leave()
        await stays.leave()
        await spin()
        for guest in (bad, also_bad):
            with pytest.raises(ValueError, match="policy@v1 is damaged"):
                await guest.task
        assert good.inside and house.switches == [V2]
        await good.leave()

    asyncio.run(run())


def test_a_cancelled_waiter_leaves_no_trace() -> None:
    async def run() -> None:
        house = House()
        holding = Guest(house, BASE)
        await spin()
        gone, stays = Guest(house, V1), Guest(house, V2)
        await spin()
        gone.task.cancel()
        await spin()
        await holding.leave()
        await spin()
        assert stays.inside and house.switches == [V2]
        await stays.leave()
        assert (house.residency.users, house.residency.waiting) == (0, 0)

    asyncio.run(run())


def test_closing_refuses_who_waits_and_who_comes() -> None:
    async def run() -> None:
        house = House()
        holding = Guest(house, BASE)
        await spin()
        waiter = Guest(house, V1)
        await spin()
        await house.residency.close()
        for guest in (waiter, Guest(house, BASE)):
            with pytest.raises(Unavailable, match="stopping"):
                await guest.task
        await holding.leave()
        assert house.switches == []

    asyncio.run(run())


@given(st.integers(0, 2**32))
def test_the_laws_of_residency_hold_in_any_order_of_events(seed: int) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        house = House(quantum_s=chance.choice((0.0, 2.0, 50.0)))
        guests: list[Guest] = []
        for _ in range(50):
            match chance.randrange(5):
                case 0 | 1:
                    guests.append(Guest(house, chance.choice((BASE, V1, V2, V3))))
                case 2 if guests:
                    guests.pop(chance.randrange(len(guests))).task.cancel()
                case 3 if any(g.inside for g in guests):
                    guest = next(g for g in guests if g.inside)
                    guests.remove(guest)
                    await guest.leave()
                case _:
                    house.clock.advance(chance.random() * 3)
            if chance.random() < 0.7:
                await spin()
            assert len({g.ref for g in guests if g.inside}) <= 1
        while guests:
            await spin()
            inside = [g for g in guests if g.inside]
            assert inside, "somebody always gets in"
            for guest in inside:
                guests.remove(guest)
                await guest.leave()
        await spin()
        assert (house.residency.users, house.residency.waiting) == (0, 0)

    asyncio.run(run())
