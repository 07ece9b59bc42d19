"""What one event does to the counters, the slots and the other versions, and what it leaves alone."""

from collections.abc import Callable

import pytest

from actors.versions.lineage import FELL, PARENT_REJECTED, PARENT_ROLLED_BACK, Lineage, WindowVerdict
from core.config import BackoffConfig
from core.errors import VersionError
from core.messages import BASE
from core.store.facts import DueRollback, Hold, LineageFact, Waiting
from tests.pure.actors.versions.lineages import decision, lineage, ref, restored, version

HELD = Hold(by="ann", why="an audit", at=0.0)
Event = Callable[[Lineage], object]


def settled(verdicts: list[WindowVerdict]) -> list[tuple[int, int, bool, bool]]:
    return [(each.window, each.version, each.rejected, each.discarded) for each in verdicts]


@pytest.mark.parametrize(
    ("event", "steps"),
    [
        (lambda made: made.propose(version(4, 3)), 1),
        (lambda made: made.proven(3), 1),
        (lambda made: made.proven(2), 0),
        (lambda made: made.proven(9), 0),
        (lambda made: made.failed(3, "differs"), 1),
        (lambda made: made.failed(1, "differs"), 0),
        (lambda made: made.failed(9, "differs"), 0),
        (lambda made: made.decide(decision(2, "hold")), 1),
        (lambda made: made.decide(decision(2, "promote")), 1),
        (lambda made: made.decide(decision(2, "reject")), 1),
        (lambda made: made.crown(1), 1),
        (lambda made: made.promote_by_hand(2, "now"), 1),
        (lambda made: made.roll_back(1), 1),
        (lambda made: made.hold(HELD), 0),
        (lambda made: made.reported(1), 1),
        (lambda made: made.reported(9), 0),
    ],
)
def test_replicas_look_again_after_every_event_that_changed_something_and_after_no_other(
    event: Event, steps: int
) -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "promote"))
    made.propose(version(3, 2))
    before = made.epoch
    event(made)
    assert made.epoch - before == steps


def test_a_new_lineage_has_used_no_number_and_serves_the_base() -> None:
    made = Lineage(base=version(0))
    assert made.snapshot() == LineageFact(activated=(), champions=(), withdrawn=())
    assert (made.take_ref(), made.take_ref(), made.next_version) == (ref(1), ref(2), 3)
    assert made.slots().loaded == () and made.undecided == [] and made.candidate is None and made.decided == 0


def test_the_next_number_is_above_every_proposed_one() -> None:
    made = lineage(version(5), version(2))
    assert made.take_ref() == ref(6)


def test_only_a_published_version_becomes_proven_and_only_a_proven_one_is_decided() -> None:
    made = lineage(version(1))
    made.propose(version(2))
    assert not made.proven(1) and not made.proven(7) and made.proven(2) and made.states[2] == "proven"
    assert settled(made.decide(decision(1, "hold"))) == [(1, 1, False, False)]
    with pytest.raises(VersionError, match="policy@v1 is held, expected proven"):
        made.decide(decision(1, "promote"))
    with pytest.raises(VersionError, match="policy@v9 is unknown, expected proven"):
        made.decide(decision(9, "promote"))


def test_the_gate_weighs_the_oldest_proven_version_and_learning_goes_on_from_the_newest() -> None:
    made = lineage(version(1), version(2, 1), version(3, 2))
    made.propose(version(4, 3))
    assert (made.candidate, made.explore, made.parent.ref, made.undecided) == (ref(1), ref(3), ref(4), [1, 2, 3, 4])
    made.decide(decision(1, "hold"))
    assert (made.candidate, made.explore) == (ref(2), ref(3))
    assert [p.ref.version for p in made.slots().loaded] == [1, 2, 3, 4] and made.slots().candidate == ref(2)


def test_a_rejection_takes_only_undecided_descendants_along() -> None:
    """1 -> 2 -> 3 falls, the held 4 and its child 5 stay, and so do 6, a child of the base, and its child 7."""
    made = lineage(version(1), version(2, 1), version(3, 2), version(4, 1), version(5, 4), version(6), version(7, 6))
    made.decide(decision(4, "hold"))
    fell = made.decide(decision(1, "reject"))
    assert settled(fell) == [(1, 1, True, False), (2, 2, True, True), (3, 3, True, True)]
    assert [made.states[v] for v in range(1, 8)] == ["rejected"] * 3 + ["held"] + ["proven"] * 3
    assert [made.decisions[v].reason for v in (1, 2, 3)] == ["because", PARENT_REJECTED, PARENT_REJECTED]
    assert made.withdrawn == {1, 2, 3} and (made.decided, made.without_gain, made.rejections) == (2, 2, 1)
    assert made.parent.ref == BASE and made.fallen == 7, "what came before the fall is not trained from"
    made.propose(version(8))
    assert made.parent.ref == ref(8)


def test_what_falls_with_its_parent_has_a_decision_without_evidence() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "reject"))
    fell = made.decisions[2]
    assert (fell.verdict, fell.candidate, fell.champion, fell.probes, fell.certified) == (
        "reject",
        ref(2),
        BASE,
        0,
        False,
    )
    assert fell.reason in FELL


def test_a_version_proposed_after_its_parent_fell_is_rejected_for_what_its_parent_was() -> None:
    made = lineage(version(1), version(2))
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "reject"))
    made.roll_back(1)
    before = (made.without_gain, made.rejections)
    assert settled(made.propose(version(3, 1))) == [(3, 3, True, True)]
    assert settled(made.propose(version(4, 2))) == [(4, 4, True, True)]
    assert (made.decisions[3].reason, made.decisions[4].reason) == (PARENT_ROLLED_BACK, PARENT_REJECTED)
    assert (made.without_gain, made.rejections) == before and made.fallen == 4
    assert not {3, 4} & made.reporting and made.propose(version(5)) == [] and 5 in made.reporting


def test_a_version_that_was_proven_may_still_fail_and_a_decided_one_may_not() -> None:
    made = lineage(version(1), version(2))
    assert settled(made.failed(1, "differs")) == [(1, 1, True, False)]
    assert made.decisions[1].reason == "not proven: differs" and made.slots().loaded[0].ref == ref(2)
    assert made.failed(1, "again") == [] and made.failed(8, "unknown") == []
    made.decide(decision(2, "promote"))
    assert made.failed(2, "late") == [] and made.states[2] == "promoted"


def test_a_gain_ends_the_row_of_versions_without_one_and_a_promotion_that_of_rejections() -> None:
    made = lineage(*(version(v) for v in range(1, 7)))
    rows: list[tuple[int, int]] = []
    for number, word in enumerate(("reject", "hold", "promote", "gain", "reject"), 1):
        made.decide(decision(number, word))
        rows.append((made.without_gain, made.rejections))
    assert rows == [(1, 1), (2, 1), (3, 0), (0, 0), (1, 1)]
    made.crown(3)
    assert made.without_gain == 0 and made.champion == ref(3) and made.champions == [0, 4]
    made.decide(decision(6, "reject"))
    made.promote_by_hand(6, "now")
    assert (made.rejections, made.without_gain) == (0, 1)


@pytest.mark.parametrize(("rejections", "scale"), [(0, 1.0), (1, 1.0), (2, 0.5), (3, 0.5), (4, 0.25)])
def test_the_learning_rate_halves_with_every_so_many_rejections(rejections: int, scale: float) -> None:
    made = lineage()
    made.rejections = rejections
    assert made.learning_rate_scale(BackoffConfig(after=2, factor=0.5)) == scale


def test_who_may_become_champion() -> None:
    made = lineage(version(1), version(2), version(3))
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "reject"))
    made.promote_by_hand(2, "now")
    with pytest.raises(VersionError, match="v2 was rejected or rolled back"):
        made.crown(2)
    with pytest.raises(VersionError, match="v3 is proven; only a promoted version can become champion"):
        made.crown(3)
    with pytest.raises(VersionError, match="v9 is unknown; only a promoted version can be rolled back"):
        made.roll_back(9)
    made.crown(1)
    assert (made.champion, made.serve) == (ref(1), ref(2)), "users keep what they have"


def test_the_base_and_the_unknown_are_not_promoted_by_hand_and_an_undecided_version_is_decided_so() -> None:
    made = lineage(version(1), version(2, 1))
    with pytest.raises(VersionError, match="the base cannot be promoted"):
        made.promote_by_hand(0, "now")
    with pytest.raises(VersionError, match="v9 is unknown"):
        made.promote_by_hand(9, "now")
    assert settled(made.promote_by_hand(1, "ann says so")) == [(1, 1, False, False)]
    made_so = made.decisions[1]
    assert (made_so.verdict, made_so.reason, made_so.by, made_so.certified) == ("promote", "ann says so", "hand", False)
    assert (made_so.probes, made_so.champion, made_so.candidate) == (0, BASE, ref(1))
    assert (made.serve, made.champion, made.activated, made.standing(1)) == (ref(1), BASE, {1}, "by hand")
    made.decide(decision(2, "hold"))
    assert made.promote_by_hand(2, "now") == [] and made.decisions[2].verdict == "hold"
    assert made.standing(2) == "by hand"
    made.roll_back(2)
    assert made.standing(2) != "by hand" and made.serve == BASE and 2 in made.withdrawn


def test_what_fell_with_its_parent_unproven_may_be_promoted_by_hand() -> None:
    made = lineage(version(1))
    made.propose(version(2, 1))
    made.decide(decision(1, "reject"))
    assert made.promote_by_hand(2, "now") == [] and made.serve == ref(2)


def test_a_rollback_of_what_is_not_served_leaves_users_where_they_are() -> None:
    made = lineage(version(1), version(2), version(3))
    for number in (1, 2):
        made.decide(decision(number, "gain"))
    made.decide(decision(3, "promote"))
    assert made.champions == [0, 1]
    assert settled(made.roll_back(1)) == [(1, 1, True, False)]
    assert (made.serve, made.champion, made.champions) == (ref(3), ref(2), [0])
    assert (made.rejections, made.without_gain, made.fallen) == (1, 2, 3)
    made.roll_back(2)
    assert (made.serve, made.champion, made.champions) == (ref(3), BASE, [])
    made.roll_back(3)
    assert made.serve == BASE and 0 not in made.activated


def test_users_who_are_rolled_back_to_a_champion_crowned_unserved_can_ask_for_it() -> None:
    made = lineage(version(1), version(2))
    made.hold(HELD)
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "promote"))
    made.release()
    assert made.activated == {2}
    made.crown(1)
    made.roll_back(2)
    assert made.serve == ref(1) and made.activated == {1, 2} and made.slots().promoted == (BASE, ref(1))


def test_a_rollback_during_a_hold_forgets_only_what_it_concerns() -> None:
    made = lineage(version(1), version(2), version(3))
    made.decide(decision(1, "gain"))
    made.hold(HELD)
    made.decide(decision(2, "promote"))
    made.decide(decision(3, "gain"))
    made.due = DueRollback(version=1, why="worse")
    assert made.waiting == Waiting(version=3, crowned=True)
    made.roll_back(2)
    assert made.waiting == Waiting(version=3, crowned=True) and made.due is not None
    made.roll_back(1)
    assert made.due is None and made.waiting == Waiting(version=3, crowned=False), "compared with what is gone"
    made.roll_back(3)
    assert made.waiting is None and made.serve == BASE
    assert made.release() == ([], None, None)


def test_while_held_a_better_version_waits_before_a_newer_one_and_a_newer_better_one_replaces_it() -> None:
    made = lineage(version(1), version(2), version(3), version(4))
    made.hold(HELD)
    with pytest.raises(VersionError, match="already held by ann"):
        made.hold(HELD)
    waited: list[Waiting | None] = []
    for number, word in enumerate(("promote", "promote", "gain", "promote"), 1):
        made.decide(decision(number, word))
        waited.append(made.waiting)
    assert waited == [Waiting(version=v, crowned=c) for v, c in ((1, False), (2, False), (3, True), (3, True))]
    assert made.activated == set() and made.champions == []
    before = made.epoch
    assert made.release() == ([], Waiting(version=3, crowned=True), None)
    assert made.held is None and made.epoch == before + 1 and (made.serve, made.champion) == (ref(3), ref(3))
    made.hold(HELD)
    made.crown(4)
    assert made.waiting == Waiting(version=4, crowned=True) and made.champion == ref(3)


def test_a_report_keeps_what_the_gate_rejected_loaded_but_not_what_no_replica_can_prove() -> None:
    made = lineage(version(1), version(2), version(3, 1))
    made.failed(2, "differs")
    made.decide(decision(1, "reject"))
    assert made.reporting == {1} and [p.ref for p in made.slots().loaded] == [ref(1)]
    made.reported(1)
    assert made.reporting == set()


def test_the_version_explored_is_never_older_than_the_champion_nor_withdrawn() -> None:
    made = lineage(version(1), version(2))
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "gain"))
    made.roll_back(1)
    assert made.explore == ref(2)
    made.promote_by_hand(1, "now")
    assert made.explore == ref(2) and made.slots().promoted == (BASE, ref(1), ref(2))


def test_an_unknown_version_is_refused_with_those_that_are_known() -> None:
    made = lineage(version(1), version(2))
    assert made.get(BASE) == version(0) and made.get(ref(2)) == version(2)
    with pytest.raises(VersionError, match=r"policy@v7 was never published \(known: v1, v2\)"):
        made.get(ref(7))
    with pytest.raises(VersionError, match=r"policy@v0 was never published \(known: none\)"):
        Lineage().get(BASE)


def test_after_a_restart_replicas_look_again_and_prove_again_what_has_no_verdict() -> None:
    made = lineage(version(1), version(2, 1), version(3, 2))
    made.decide(decision(1, "gain"))
    kept = made.snapshot()
    again = restored(kept, made)
    assert again.states == {1: "promoted", 2: "published", 3: "published"} and again.epoch == made.epoch + 1
    assert again.candidate is None and again.reporting == set()
    assert (again.next_version, again.champions, again.activated) == (4, [0], {1})
    lost = kept.model_copy(update={"next_version": 1, "states": {**kept.states, 9: "published"}})
    assert restored(lost, made).next_version == 4 and 9 not in restored(lost, made).states
    assert restored(kept.model_copy(update={"next_version": 12}), made).next_version == 12


def test_what_an_older_run_did_not_store_is_taken_from_the_states() -> None:
    made = lineage(version(1), version(2), version(3))
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "reject"))
    old = made.snapshot().model_copy(update={"activated": None, "champions": None, "withdrawn": None})
    again = restored(old, made)
    assert (again.activated, again.champions, again.withdrawn) == ({1}, [], {2})
    made.crown(1)
    old = made.snapshot().model_copy(update={"champions": None})
    assert restored(old, made).champions == [0]
