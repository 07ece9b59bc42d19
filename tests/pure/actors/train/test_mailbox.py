import asyncio

from actors.train.mailbox import GroupProgress, Mailbox
from core.errors import ParentFell

SOON_S = 0.02


async def test_an_order_is_done_when_every_worker_has_carried_it_out_and_answered_by_the_first():
    mailbox = Mailbox(size=2)
    group = await mailbox.begin()
    number = await mailbox.place("train")
    assert await mailbox.next(group, 0, SOON_S) == (number, "train")
    await mailbox.answer(group, number, 1, "second")
    _, answer = await mailbox.heard(number, GroupProgress(group, 0), SOON_S)
    assert answer is None
    await mailbox.answer(group, number, 0, "first")
    _, answer = await mailbox.heard(number, GroupProgress(group, 0), SOON_S)
    assert answer == "first"
    assert await mailbox.next(group, number, SOON_S) is None


async def test_a_group_that_dies_leaves_what_it_did_not_finish_to_the_next_one():
    mailbox = Mailbox(size=2)
    old = await mailbox.begin()
    number = await mailbox.place("train")
    await mailbox.answer(old, number, 0, "of the old")
    new = await mailbox.begin()
    assert await mailbox.next(new, 0, SOON_S) == (number, "train")
    assert await mailbox.next(old, 0, SOON_S) is None
    await mailbox.answer(old, number, 1, "of the old")
    await mailbox.answer(new, number, 1, "of the new")
    assert (await mailbox.heard(number, GroupProgress(new, 0), SOON_S))[1] is None
    await mailbox.answer(new, number, 0, "of the new")
    assert (await mailbox.heard(number, GroupProgress(new, 0), SOON_S))[1] == "of the new"


async def test_what_is_done_is_not_done_again_by_the_next_group():
    mailbox = Mailbox(size=1)
    number = await mailbox.place("train")
    await mailbox.answer(await mailbox.begin(), number, 0, "done")
    again = await mailbox.begin()
    assert await mailbox.next(again, 0, SOON_S) is None
    assert (await mailbox.heard(number, GroupProgress(again, 0), SOON_S))[1] == "done"
    assert await mailbox.next(again, 0, SOON_S) is None
    second = await mailbox.place("train on")
    assert await mailbox.next(again, 0, SOON_S) == (second, "train on")


async def test_the_first_worker_takes_its_next_step_when_the_trainer_has_rested():
    mailbox = Mailbox(size=1)
    group = await mailbox.begin()
    number = await mailbox.place("train")
    stepping = asyncio.create_task(mailbox.step(group, 1, 9))
    progress, answer = await mailbox.heard(number, GroupProgress(group, 0), wait_s=5)
    assert (progress, answer) == (GroupProgress(group, 1, 1, 9), None)
    assert not stepping.done()
    await mailbox.rested(progress)
    await asyncio.wait_for(stepping, 5)


async def test_nobody_waits_for_a_group_that_is_gone():
    mailbox = Mailbox(size=1)
    group = await mailbox.begin()
    number = await mailbox.place("train")
    stepping = asyncio.create_task(mailbox.step(group, 1, 9))
    await mailbox.heard(number, GroupProgress(group, 0), wait_s=5)
    new = await mailbox.begin()
    await asyncio.wait_for(stepping, 5)
    progress, _ = await mailbox.heard(number, GroupProgress(group, 1), wait_s=5)
    assert progress == GroupProgress(new, 0)
    await mailbox.step(group, 1, 9)


async def test_the_trainer_may_stop_an_order_between_two_steps():
    mailbox = Mailbox(size=1)
    group = await mailbox.begin()
    number = await mailbox.place("train")
    for stop in (None, ParentFell("v1 fell"), None):
        stepping = asyncio.create_task(mailbox.step(group, 1, 9))
        known, _ = await mailbox.heard(number, GroupProgress(group, 0), wait_s=5)
        while known.done == 0 or known == mailbox._rested:
            known, _ = await mailbox.heard(number, known, wait_s=5)
        await mailbox.rested(known, stop)
        assert await asyncio.wait_for(stepping, 5) is stop


async def test_a_new_order_begins_without_steps():
    mailbox = Mailbox(size=1)
    group = await mailbox.begin()
    await mailbox.place("train")
    stepping = asyncio.create_task(mailbox.step(group, 4, 9))
    progress, _ = await mailbox.heard(1, GroupProgress(group, 0), wait_s=5)
    await mailbox.rested(progress)
    await stepping
    second = await mailbox.place("train on")
    progress, _ = await mailbox.heard(second, None, SOON_S)
    assert progress == GroupProgress(group, 1, 0, 0)
