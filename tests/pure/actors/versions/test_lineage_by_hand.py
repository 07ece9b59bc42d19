"""Rollbacks, holds and promotions by hand, and what no order of them may ever do."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.versions.lineage import PARENT_ROLLED_BACK
from core.config import BackoffConfig
from core.errors import VersionError
from core.messages import BASE
from core.store.facts import DueRollback, Hold, LineageFact
from tests.pure.actors.versions.lineages import decision, lineage, ref, restored, version

HELD = Hold(by="ann", why="an audit", at=0.0)


def test_a_rollback_returns_users_and_training_to_the_champion_and_withdraws_what_came_of_it() -> None:
    made = lineage(version(1), version(2, 1), version(3, 2), version(4, 3))
    made.decide(decision(1, "gain"))
    made.decide(decision(2, "promote", champion=1))
    made.decide(decision(3, "hold", champion=1))
    settled = made.roll_back(2)
    assert (made.serve, made.champion, made.explore, made.parent.ref) == (ref(1), ref(1), ref(1), ref(1))
    assert [made.states[v] for v in (1, 2, 3, 4)] == ["promoted", "rolled_back", "rolled_back", "rejected"]
    assert [(s.version, s.rejected, s.discarded) for s in settled] == [
        (2, True, False),
        (3, True, False),
        (4, True, True),
    ]
    assert made.decisions[4].reason == PARENT_ROLLED_BACK and made.decided == 3
    (late,) = made.propose(version(5, 2))
    assert late.discarded and made.states[5] == "rejected"


def test_rolling_back_the_champion_returns_to_the_one_before() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "gain"))
    made.decide(decision(2, "gain", champion=1))
    made.roll_back(2)
    assert (made.serve, made.champion) == (ref(1), ref(1))
    made.roll_back(1)
    assert (made.serve, made.champion) == (BASE, BASE)
    with pytest.raises(VersionError, match="v1 is rolled_back; only a promoted version"):
        made.roll_back(1)


def test_while_held_nothing_is_activated_and_at_the_release_the_better_one_is() -> None:
    made = lineage(version(1), version(2, 1), version(3, 2))
    made.hold(HELD)
    made.decide(decision(1, "promote"))
    made.decide(decision(2, "gain"))
    made.decide(decision(3, "promote"))
    assert (made.serve, made.champion, made.slots().promoted) == (BASE, BASE, (BASE,))
    with pytest.raises(VersionError, match=r"held by ann .*hold --off"):
        made.promote_by_hand(1, "now")
    made.release()
    assert (made.serve, made.champion) == (ref(2), ref(2))
    with pytest.raises(VersionError, match="not held"):
        made.release()


def test_what_was_rolled_back_during_a_hold_does_not_take_effect_after_it() -> None:
    made = lineage(version(1))
    made.hold(HELD)
    made.decide(decision(1, "promote"))
    made.roll_back(1)
    made.release()
    assert made.serve == BASE


def test_a_rollback_that_the_watch_asked_for_during_a_hold_comes_first_at_its_end() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "promote"))
    made.hold(HELD)
    made.due = DueRollback(version=1, why="it is worse")
    made.decide(decision(2, "promote"))
    assert made.serve == ref(1)
    settled, waiting, due = made.release()
    assert due == DueRollback(version=1, why="it is worse") and waiting is not None and waiting.version == 2
    assert [s.version for s in settled] == [1] and made.serve == ref(2) and made.states[1] == "rolled_back"


def test_a_rejected_version_is_served_again_only_by_hand_and_is_not_learned_from() -> None:
    made = lineage(version(1))
    made.decide(decision(1, "reject"))
    made.promote_by_hand(1, "ann says so")
    assert (made.serve, made.champion, made.explore, made.standing(1)) == (ref(1), BASE, BASE, "by hand")
    assert made.decisions[1].verdict == "reject"


def test_only_what_replicas_have_proven_is_promoted_by_hand() -> None:
    made = lineage()
    made.propose(version(1))
    with pytest.raises(VersionError, match="v1 is published"):
        made.promote_by_hand(1, "now")
    made.failed(1, "digest differs")
    with pytest.raises(VersionError, match="only a version that replicas have proven"):
        made.promote_by_hand(1, "now")


def test_rejections_in_a_row_halve_the_learning_rate_and_a_promotion_restores_it() -> None:
    made, backoff = lineage(), BackoffConfig(after=2, factor=0.5)
    scales = []
    for number in range(1, 6):
        made.propose(version(number))
        made.proven(number)
        made.decide(decision(number, "promote" if number == 5 else "reject"))
        scales.append(made.learning_rate_scale(backoff))
    assert scales == [1.0, 0.5, 0.5, 0.25, 1.0]


def test_a_snapshot_of_an_older_run_is_read() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "gain"))
    made.decide(decision(2, "reject", champion=1))
    new = ("rejections", "activated", "champions", "withdrawn", "by_hand", "held", "waiting", "due")
    old = {name: value for name, value in made.snapshot().model_dump(mode="json").items() if name not in new}
    again = restored(LineageFact.model_validate(old), made)
    assert (again.serve, again.champion, again.withdrawn) == (ref(1), ref(1), {2})
    assert again.slots().promoted == (BASE, ref(1))


class Histories(RuleBasedStateMachine):
    """Gate, watch, people and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.made = lineage()
        self.numbers: set[int] = set()
        self.condemned: set[int] = set()
        """Rejected or rolled back, and not promoted by hand since."""

    def state(self, *states: str) -> list[int]:
        return [v for v, state in self.made.states.items() if state in states]

    @rule(prove=st.booleans())
    def publish(self, prove: bool) -> None:
        number = self.made.take_ref().version
        assert number not in self.numbers
        self.numbers.add(number)
        self.note(self.made.propose(version(number, self.made.parent.ref.version)))
        if prove:
            self.made.proven(number)

    @precondition(lambda self: self.state("published"))
    @rule(arrives=st.booleans())
    def prove(self, arrives: bool) -> None:
        number = self.state("published")[0]
        self.note([] if self.made.proven(number) and arrives else self.made.failed(number, "differs"))

    @precondition(lambda self: self.made.candidate is not None)
    @rule(verdict=st.sampled_from(["promote", "gain", "reject", "hold"]))
    def decide(self, verdict: str) -> None:
        candidate = self.made.candidate
        assert candidate is not None
        before = self.made.serve, self.made.champion
        self.note(self.made.decide(decision(candidate.version, verdict, self.made.champion.version)))
        assert self.made.held is None or (self.made.serve, self.made.champion) == before

    @precondition(lambda self: set(self.state("promoted")) - self.made.withdrawn)
    @rule()
    def crown(self) -> None:
        before = self.made.serve, self.made.champion
        self.made.crown(max(set(self.state("promoted")) - self.made.withdrawn))
        assert self.made.serve == before[0]
        assert self.made.held is None or self.made.champion == before[1]

    @precondition(lambda self: self.made.held is None)
    @rule()
    def hold(self) -> None:
        self.made.hold(HELD)

    @precondition(lambda self: self.made.held is not None)
    @rule()
    def release(self) -> None:
        self.note(self.made.release()[0])
        assert self.made.waiting is None and self.made.due is None

    @precondition(lambda self: self.made.held is not None and self.made.serve != BASE)
    @rule()
    def call_back_while_held(self) -> None:
        self.made.due = DueRollback(version=self.made.serve.version, why="worse")

    @precondition(lambda self: self.made.states)
    @rule(which=st.integers(0, 30))
    def promote(self, which: int) -> None:
        number = list(self.made.states)[which % len(self.made.states)]
        before = self.made.serve
        try:
            self.made.promote_by_hand(number, "by hand")
        except VersionError:
            assert self.made.serve == before
            return
        assert self.made.held is None and self.made.serve == ref(number)
        self.condemned.discard(number)

    @precondition(lambda self: self.state("promoted"))
    @rule(which=st.integers(0, 30))
    def roll_back(self, which: int) -> None:
        promoted = self.state("promoted")
        self.note(self.made.roll_back(promoted[which % len(promoted)]))

    @rule()
    def restart(self) -> None:
        made = self.made
        again = restored(LineageFact.model_validate_json(made.snapshot().model_dump_json()), made)
        for name in ("serve", "champion", "held", "waiting", "due", "withdrawn", "activated", "champions", "by_hand"):
            assert getattr(again, name) == getattr(made, name), name
        assert (again.fallen, again.rejections, again.without_gain) == (
            made.fallen,
            made.rejections,
            made.without_gain,
        )
        assert again.next_version == made.next_version and again.parent == made.parent
        for number in [v for v, state in made.states.items() if state == "proven"]:
            again.proven(number)
        made.reporting.clear()  # what is measured is not kept loaded over a restart
        assert again.states == made.states and again.slots().promoted == made.slots().promoted
        self.made = again

    def note(self, settled: list) -> None:
        self.condemned |= {each.version for each in settled if each.rejected}

    @invariant()
    def only_what_is_promoted_is_served(self) -> None:
        for slot in (self.made.serve, self.made.champion):
            assert slot == BASE or self.made.states[slot.version] == "promoted"
        served = {self.made.serve.version, *(r.version for r in self.made.slots().promoted)}
        assert served <= {0, *self.made.activated} and not served & self.condemned

    @invariant()
    def nothing_withdrawn_is_explored_or_trained_from(self) -> None:
        for slot in (self.made.explore.version, self.made.parent.ref.version):
            assert slot not in self.made.withdrawn

    @invariant()
    def what_is_needed_is_loaded(self) -> None:
        loaded = {0, *(p.ref.version for p in self.made.slots().loaded)}
        assert {self.made.serve.version, self.made.champion.version, self.made.explore.version} <= loaded


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
