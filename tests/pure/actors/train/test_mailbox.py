import asyncio

from actors.train.mailbox import Orders, Progress

SOON_S = 0.02


async def test_an_order_is_done_when_every_worker_has_carried_it_out_and_answered_by_the_first():
    orders = Orders(size=2)
    group = await orders.begin()
    number = await orders.place("train")
    assert await orders.next(group, 0, SOON_S) == (number, "train")
    await orders.answer(group, number, 1, "second")
    _, answer = await orders.heard(number, Progress(group, 0), SOON_S)
    assert answer is None
    await orders.answer(group, number, 0, "first")
    _, answer = await orders.heard(number, Progress(group, 0), SOON_S)
    assert answer == "first"
    assert await orders.next(group, number, SOON_S) is None


async def test_a_group_that_dies_leaves_what_it_did_not_finish_to_the_next_one():
    orders = Orders(size=2)
    old = await orders.begin()
    number = await orders.place("train")
    await orders.answer(old, number, 0, "of the old")
    new = await orders.begin()
    assert await orders.next(new, 0, SOON_S) == (number, "train")
    assert await orders.next(old, 0, SOON_S) is None
    await orders.answer(old, number, 1, "of the old")
    await orders.answer(new, number, 1, "of the new")
    assert (await orders.heard(number, Progress(new, 0), SOON_S))[1] is None
    await orders.answer(new, number, 0, "of the new")
    assert (await orders.heard(number, Progress(new, 0), SOON_S))[1] == "of the new"


async def test_what_is_done_is_not_done_again_by_the_next_group():
    orders = Orders(size=1)
    number = await orders.place("train")
    await orders.answer(await orders.begin(), number, 0, "done")
    again = await orders.begin()
    assert await orders.next(again, 0, SOON_S) is None
    assert (await orders.heard(number, Progress(again, 0), SOON_S))[1] == "done"
    assert await orders.next(again, 0, SOON_S) is None
    second = await orders.place("train on")
    assert await orders.next(again, 0, SOON_S) == (second, "train on")


async def test_the_first_worker_takes_its_next_step_when_the_trainer_has_rested():
    orders = Orders(size=1)
    group = await orders.begin()
    number = await orders.place("train")
    stepping = asyncio.create_task(orders.step(group))
    progress, answer = await orders.heard(number, Progress(group, 0), wait_s=5)
    assert (progress, answer) == (Progress(group, 1), None)
    assert not stepping.done()
    await orders.rested(progress)
    await asyncio.wait_for(stepping, 5)


async def test_nobody_waits_for_a_group_that_is_gone():
    orders = Orders(size=1)
    group = await orders.begin()
    number = await orders.place("train")
    stepping = asyncio.create_task(orders.step(group))
    await orders.heard(number, Progress(group, 0), wait_s=5)
    new = await orders.begin()
    await asyncio.wait_for(stepping, 5)
    progress, _ = await orders.heard(number, Progress(group, 1), wait_s=5)
    assert progress == Progress(new, 0)
    await orders.step(group)
