"""Collectors come while seats are free and go while what they ask has to wait; one at a time, and none loses work."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.collect.autoscale import LOOKS, Scaling, Seats, step
from actors.collect.collector import Collector
from actors.versions.replicas import GONE_S, Replicas
from core import config as configuration
from core.clock import ManualClock
from core.messages import BASE, PolicyRef, ReplicaReport

EACH, N = 24, 8
CONFIG = configuration.load(None, ["collect.collectors=1", "collect.max_collectors=3", "collect.in_flight=24"])


@pytest.mark.parametrize(
    ("seats", "in_flight", "by"),
    [
        (Seats(limit=112, held=56, waiting=0), [24], 1),  # half the seats of two replicas are free
        (Seats(limit=112, held=56, waiting=0), [12], 0),  # its collector is short of leases, another would be too
        (Seats(limit=112, held=100, waiting=0), [24], 0),  # too few free seats
        (Seats(limit=112, held=56, waiting=8), [24], 0),  # somebody waits: users have left just now
        (Seats(limit=56, held=56, waiting=136), [24], 0),  # one collector on one replica, as it should be
        (Seats(limit=56, held=56, waiting=328), [24, 24], -1),  # 192 of the waiting could stay away
        (Seats(limit=32, held=32, waiting=160), [24], 0),  # users are active, and the last one stays
        (Seats(limit=112, held=0, waiting=0), [24, 24, 24], 0),  # no more than that
        (Seats(limit=0, held=0, waiting=0), [24, 24], 0),  # no replica has said anything
        (Seats(limit=0, held=0, waiting=0), [], 1),
    ],
)
def test_a_collector_more_or_less(seats: Seats, in_flight: list[int], by: int) -> None:
    assert step(seats, in_flight, EACH, N, least=1, most=3) == by


@given(
    limit=st.integers(0, 300),
    held=st.integers(0, 300),
    waiting=st.integers(0, 2000),
    in_flight=st.lists(st.integers(0, EACH), max_size=6),
    least=st.integers(1, 3),
    more=st.integers(0, 3),
)
def test_their_number_stays_within_its_bounds(
    limit: int, held: int, waiting: int, in_flight: list[int], least: int, more: int
) -> None:
    by = step(Seats(limit, held, waiting), in_flight, EACH, N, least, least + more)
    count = len(in_flight)
    assert by in (-1, 0, 1)
    if least <= count <= least + more:
        assert least <= count + by <= least + more


class Parts:
    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.gate = asyncio.Event()

    async def add_collector(self, index: int) -> None:
        await self.gate.wait()
        self.done.append(("add", index))

    async def remove_collector(self, index: int, leave_s: float) -> None:
        self.done.append(("remove", index))


def told(limit: float, background: float, waiting: float, *in_flight: int) -> dict[str, Any]:
    replica = {"background_limit": limit, "background": background, "background_waiting": waiting}
    collectors = {f"collector-{index}": {"in_flight": count} for index, count in enumerate(in_flight)}
    return {"versions": {"replicas": {"a": replica}}} | collectors


async def test_one_comes_after_looks_that_agree_and_the_next_only_when_it_is_there() -> None:
    parts = Parts()
    scaling, spare = Scaling(CONFIG, parts), told(56, 8, 0, 24)
    for _ in range(LOOKS - 1):
        await scaling.look(spare)
    await scaling.look(told(56, 50, 0, 24))  # does not agree: counted anew
    for _ in range(LOOKS - 1):
        await scaling.look(spare)
    await asyncio.sleep(0)
    assert scaling._moving is None
    for _ in range(3 * LOOKS):
        await scaling.look(spare)
        await asyncio.sleep(0)
    assert parts.done == []
    parts.gate.set()
    await asyncio.sleep(0.01)
    assert parts.done == [("add", 1)]
    for _ in range(LOOKS):
        await scaling.look(told(56, 56, 328, 24, 24))
        await asyncio.sleep(0)
    assert parts.done == [("add", 1), ("remove", 1)]


async def test_a_fixed_number_is_left_alone_and_so_is_a_status_that_says_nothing() -> None:
    fixed, parts = Scaling(configuration.load(None), Parts()), Parts()
    scaling = Scaling(CONFIG, parts)
    for _ in range(2 * LOOKS):
        await fixed.look(told(56, 0, 0, 24))
        await scaling.look({})
    assert fixed._moving is None and scaling._moving is None


class Buffer:
    """Leases nothing until it is told to, and takes deliveries."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(self, method: str, *arguments: Any) -> None:
        if method == "lease":
            self.asked.set()
            await self.answer
        await asyncio.sleep(0.01)


async def test_a_collector_that_leaves_waits_for_the_lease_it_has_asked_for() -> None:
    buffer = Buffer()
    collector = Collector(buffer, CONFIG, policy=type("Silent", (), {"tokens": {}})())
    running = asyncio.create_task(collector.run())
    await buffer.asked.wait()
    assert not await collector.leave()
    buffer.answer.set_result(None)
    async with asyncio.timeout(5):
        while not await collector.leave():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_replica_that_was_removed_before_it_proved_a_version_does_not_hold_it_up_for_ever() -> None:
    clock = ManualClock(1.0)
    replicas, ref = Replicas(clock), PolicyRef(version=1)
    replicas.take(ReplicaReport(replica="removed", epoch=7, proven=(BASE,)))  # no place for v1 yet
    replicas.take(ReplicaReport(replica="stays", epoch=7, proven=(BASE, ref)))
    clock.advance(GONE_S - 1)
    replicas.take(ReplicaReport(replica="stays", epoch=7, proven=(BASE, ref)))
    assert not replicas.all_hold(ref, epoch=7)
    clock.advance(2)
    replicas.take(ReplicaReport(replica="stays", epoch=7, proven=(BASE, ref)))
    assert replicas.all_hold(ref, epoch=7)


def test_one_that_joins_does_not_hold_up_a_version_while_it_has_said_nothing() -> None:
    replicas, ref = Replicas(ManualClock(1.0)), PolicyRef(version=1)
    replicas.take(ReplicaReport(replica="a", epoch=7, proven=(BASE, ref)))
    assert replicas.all_hold(ref, epoch=7)
    replicas.take(ReplicaReport(replica="joined", epoch=7, proven=(BASE, ref)))
    assert replicas.all_hold(ref, epoch=7)
