"""One replica and what is wanted of it: what it loads, keeps, gives up, and tries again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from core.errors import Overdue, ProofError, Unavailable, VersionError
from core.messages import BASE, PolicyRef, Pool, Published, Slots
from serve.replica.reconcile import Prover, Reconciler
from tests.pure.serve.replica.engines import FakeEngine, published

V1, V2 = PolicyRef(version=1), PolicyRef(version=2)


class Slow(FakeEngine):
    """Unloads after as many overdue answers as `overdue`; counts what it was asked."""

    def __init__(self, fault: str = "", overdue: int = 0) -> None:
        super().__init__(fault, broken=1)
        self.overdue = overdue
        self.calls: list[str] = []

    async def stage(self, published: Published) -> None:
        self.calls.append(f"stage {published.ref}")
        if self.fault == "no seat":
            raise Unavailable("no free place for an adapter")
        await super().stage(published)

    async def unload(self, ref: PolicyRef) -> None:
        self.calls.append(f"unload {ref}")
        await asyncio.sleep(0)
        if self.overdue:
            self.overdue -= 1
            raise Overdue("its last answer is not finished")
        await super().unload(ref)

    async def swap(self, target: PolicyRef) -> float:
        self.calls.append(f"swap {target}")
        self.staged = [target]
        return 0.0


class Base:
    def __init__(self, folder: Path) -> None:
        self.asked, self.published = 0, published(0, folder)

    async def __call__(self) -> Published:
        self.asked += 1
        return self.published


def replica(engine: Slow, folder: Path, pool: Pool = "any") -> tuple[Reconciler, list[Published]]:
    described: Callable[[], Awaitable[Published]] = Base(folder)
    return Reconciler("r", pool, engine, Prover(engine, described)), [published(v, folder) for v in (1, 2)]


async def drained() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_replica_for_users_holds_only_what_is_served_and_others_hold_all(tmp_path: Path) -> None:
    for pool, held in (("serving", [BASE, V1]), ("any", [BASE, V1, V2]), ("shadow", [BASE, V1, V2])):
        engine = Slow()
        one, both = replica(engine, tmp_path / pool, pool)  # type: ignore[arg-type]
        report = await one.apply(Slots(epoch=7, serve=V1, explore=V2, loaded=tuple(both)))
        assert engine.loaded() == held and report.proven == tuple(held)
        assert (report.replica, report.pool, report.epoch, report.serving) == ("r", pool, 7, V1)
        assert one.slots.explore == V2


async def test_before_its_first_look_a_replica_serves_the_base_under_no_epoch(tmp_path: Path) -> None:
    one, _ = replica(Slow(), tmp_path)
    report = one.report()
    assert (report.epoch, report.serving, report.proven, report.failed) == (-1, BASE, (BASE,), {})


async def test_what_is_not_wanted_is_unloaded_after_its_last_answer_and_the_rest_stays(tmp_path: Path) -> None:
    engine = Slow(overdue=2)
    one, (first, second) = replica(engine, tmp_path)
    await one.apply(Slots(epoch=1, loaded=(first, second)))
    report = await one.apply(Slots(epoch=2, loaded=(second,)))
    assert report.proven == (BASE, V2)
    await drained()
    assert engine.loaded() == [BASE, V2] and engine.calls.count("unload policy@v1") == 3
    assert not one._drains
    report = await one.apply(Slots(epoch=3, loaded=(first, second)))
    assert report.proven == (BASE, V1, V2), "wanted again, it is staged and proven again"


async def test_a_version_that_is_gone_already_needs_no_unloading(tmp_path: Path) -> None:
    class Gone(Slow):
        async def unload(self, ref: PolicyRef) -> None:
            self.staged.remove(ref)
            raise VersionError(f"{ref} is not loaded")

    engine = Gone()
    one, (first, _) = replica(engine, tmp_path)
    await one.apply(Slots(epoch=1, loaded=(first,)))
    await one.apply(Slots(epoch=2))
    (drain,) = one._drains
    await asyncio.wait_for(drain, 5)


async def test_a_version_that_cannot_be_served_here_leaves_the_one_before_in_place(tmp_path: Path) -> None:
    engine = Slow()
    one, (first, second) = replica(engine, tmp_path)
    await one.apply(Slots(epoch=1, serve=V1, loaded=(first,)))
    engine.fault = "failed proof"
    report = await one.apply(Slots(epoch=2, serve=V2, loaded=(second,)))
    await drained()
    assert report.serving == V1 and V1 in engine.loaded(), "users are answered by it, wanted or not"
    assert (report.epoch, list(report.failed)) == (2, ["policy@v2"])


async def test_what_another_node_wrote_is_staged_and_proven_from_where_it_lies_here(tmp_path: Path) -> None:
    class Paths(Slow):
        async def stage(self, published: Published) -> None:
            await super().stage(published)
            self.calls.append(published.path)

    async def here(published: Published) -> Published:
        return copy

    engine, copy = Paths(), published(1, tmp_path / "here")
    one = Reconciler("r", "any", engine, Prover(engine, Base(tmp_path)), here)
    report = await one.apply(Slots(epoch=1, loaded=(copy.model_copy(update={"path": "/elsewhere"}),)))
    assert engine.calls == ["stage policy@v1", copy.path] and report.proven == (BASE, V1)


async def test_what_failed_is_not_tried_again_until_it_was_unwanted_meanwhile(tmp_path: Path) -> None:
    engine = Slow("failed proof")
    one, (first, _) = replica(engine, tmp_path)
    for _ in range(3):
        report = await one.apply(Slots(epoch=1, loaded=(first,)))
        assert list(report.failed) == ["policy@v1"] and report.proven == (BASE,)
    assert engine.calls == ["stage policy@v1", "unload policy@v1"]
    assert not (await one.apply(Slots(epoch=2))).failed
    engine.fault = ""
    assert (await one.apply(Slots(epoch=3, loaded=(first,)))).proven == (BASE, V1)


async def test_without_a_free_place_a_version_waits_and_has_not_failed(tmp_path: Path) -> None:
    engine = Slow("no seat")
    one, (first, _) = replica(engine, tmp_path)
    for _ in range(2):
        report = await one.apply(Slots(epoch=1, loaded=(first,)))
        assert report.proven == (BASE,) and not report.failed
    assert engine.calls == ["stage policy@v1"] * 2


async def test_what_the_engine_lost_is_staged_again_and_a_lost_base_is_swapped_in(tmp_path: Path) -> None:
    engine = Slow()
    one, (first, _) = replica(engine, tmp_path)
    await one.apply(Slots(epoch=1, serve=V1, loaded=(first,)))
    engine.staged = [BASE]
    await one.apply(Slots(epoch=2, serve=V1, loaded=(first,)))
    assert engine.calls == ["stage policy@v1"] * 2
    engine.staged = [V1]  # a whole model takes the base's place
    await one.apply(Slots(epoch=3, serve=V1, loaded=(first,)))
    assert "swap policy@v0" not in engine.calls
    report = await one.apply(Slots(epoch=4))
    assert "swap policy@v0" in engine.calls and report.serving == BASE


async def test_stopping_ends_what_still_waits_to_be_unloaded(tmp_path: Path) -> None:
    engine = Slow(overdue=10**9)
    one, (first, _) = replica(engine, tmp_path)
    await one.apply(Slots(epoch=1, loaded=(first,)))
    await one.apply(Slots(epoch=2))
    (drain,) = one._drains
    await asyncio.wait_for(one.stop(), 5)
    assert drain.cancelled()


async def test_the_base_is_measured_once_and_before_anything_is_proven(tmp_path: Path) -> None:
    engine, base = Slow(), Base(tmp_path)
    prover = Prover(engine, base)
    one = Reconciler("r", "any", engine, prover)
    await one.apply(Slots(epoch=0))
    assert base.asked == 0, "nothing was staged"
    await one.apply(Slots(epoch=1, loaded=(published(1, tmp_path), published(2, tmp_path))))
    assert base.asked == 1


async def test_the_first_of_the_tensors_that_differ_is_named_with_their_number(tmp_path: Path) -> None:
    class Differing(Slow):
        async def verify_weights(self, published: Published) -> list[str]:
            return ["layers.0", "layers.1"]

    engine = Differing()
    prover = Prover(engine, Base(tmp_path))
    with pytest.raises(ProofError, match="2 tensors differ in the engine, first: layers"):
        await prover.prove(published(1, tmp_path))


async def test_each_vector_of_the_proof_is_compared_with_its_own(tmp_path: Path) -> None:
    """Version 2 against its parent 1: an engine that answers as the base is neither."""

    class Stuck(Slow):
        async def score(self, sequences: object, ref: PolicyRef) -> list[list[float]]:
            return await super().score(sequences, BASE)  # type: ignore[arg-type]

    engine = Stuck()
    one, (_, second) = replica(engine, tmp_path)
    report = await one.apply(Slots(epoch=1, loaded=(second,)))
    assert "coefficient -1.000" in report.failed["policy@v2"] and "distance 2.000" in report.failed["policy@v2"]


async def test_a_report_tells_which_part_of_a_step_the_engine_has_left(tmp_path: Path) -> None:
    class Rounding(Slow):
        """As an engine in half precision that loses a tenth of the step."""

        async def score(self, sequences: list[list[int]], ref: PolicyRef) -> list[list[float]]:
            exact = await super().score(sequences, ref)
            base = await super().score(sequences, BASE)
            return [[b + 0.9 * (e - b) for e, b in zip(*rows, strict=True)] for rows in zip(exact, base, strict=True)]

    one, (first, second) = replica(Rounding(), tmp_path)
    report = await one.apply(Slots(epoch=1, loaded=(first,)))
    assert report.arrived == {"policy@v1": pytest.approx(0.9)}
    report = await one.apply(Slots(epoch=2, loaded=(second,)))
    assert "policy@v1" not in report.arrived, "it is no longer held"
