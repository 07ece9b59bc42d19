import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import VersionError
from core.messages import BASE
from tests.pure.actors.versions.lineages import decision, lineage, ref, restored, version


def test_users_are_answered_by_the_base_until_the_gate_has_spoken() -> None:
    made = lineage(version(1))
    assert made.slots().serve == BASE
    assert made.slots().explore == ref(1)
    assert made.candidate == ref(1)


def test_a_promotion_moves_serve_and_only_a_gain_moves_the_champion() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "gain"))
    made.decide(decision(2, "promote", champion=1))
    assert (made.serve, made.champion) == (ref(2), ref(1))
    assert (made.slots().serve, made.slots().champion) == (ref(2), ref(1)), "replicas are told so"
    assert made.without_gain == 1


def test_a_rejection_takes_undecided_descendants_along_and_training_returns_to_the_champion() -> None:
    made = lineage(version(1), version(2, 1), version(3, 2))
    settled = made.decide(decision(1, "reject"))
    assert [(s.version, s.rejected, s.discarded) for s in settled] == [
        (1, True, False),
        (2, True, True),
        (3, True, True),
    ]
    assert made.parent.ref == BASE
    assert made.explore == BASE
    assert made.decided == 1


def test_a_version_proposed_after_its_parent_fell_falls_at_once() -> None:
    made = lineage(version(1))
    made.decide(decision(1, "reject"))
    (settled,) = made.propose(version(2, 1))
    assert settled.discarded
    assert made.states[2] == "rejected"


def test_a_held_version_is_trained_on_but_never_serves() -> None:
    made = lineage(version(1))
    made.decide(decision(1, "hold"))
    assert made.serve == BASE
    assert made.parent.ref == ref(1)
    assert made.explore == ref(1)


def test_a_version_that_a_replica_could_not_prove_is_rejected_with_the_reason() -> None:
    made = lineage()
    made.propose(version(1))
    made.failed(1, "digest differs")
    assert made.decisions[1].reason == "not proven: digest differs"
    with pytest.raises(VersionError, match="expected proven"):
        made.decide(decision(1, "promote"))


def test_only_promoted_versions_may_be_asked_for_by_number() -> None:
    made = lineage(version(1), version(2, 1))
    made.decide(decision(1, "gain"))
    assert made.slots().promoted == (BASE, ref(1))


def test_a_version_under_report_stays_loaded_until_it_is_reported() -> None:
    made = lineage(version(1))
    made.decide(decision(1, "reject"))
    assert [p.ref for p in made.slots().loaded] == [ref(1)]
    made.reported(1)
    assert made.slots().loaded == ()


@given(st.lists(st.sampled_from(["promote", "gain", "reject", "hold", "fail"]), max_size=12))
def test_a_snapshot_brings_everything_back_and_numbers_are_never_used_twice(verdicts: list[str]) -> None:
    made = lineage()
    seen: set[int] = set()
    for verdict in verdicts:
        number = made.take_ref().version
        assert number not in seen
        seen.add(number)
        made.propose(version(number, made.parent.ref.version))
        if verdict == "fail":
            made.failed(number, "no")
            continue
        made.proven(number)
        made.decide(decision(number, verdict, made.champion.version))
    again = restored(made.snapshot(), made)
    assert (again.serve, again.champion, again.explore) == (made.serve, made.champion, made.explore)
    assert again.take_ref().version == made.next_version
    assert made.states.get(made.serve.version, "promoted") == "promoted"
    assert made.states.get(made.champion.version, "promoted") == "promoted"


def test_of_versions_held_against_todays_champion_the_best_stays_loaded_for_admins() -> None:
    made = lineage(*(version(number, number - 1) for number in range(1, 6)))
    rates = {1: 0.6, 2: 0.9, 3: 0.7, 4: 0.7}
    for number, rate in rates.items():
        made.decide(decision(number, "hold").model_copy(update={"candidate_rate": rate, "champion_rate": 0.5}))
        made.reported(number)
    assert made.slots().trial == (ref(2), ref(5)), "the best held one, and the one that is weighed"
    assert made.slots().promoted == (BASE,) and {p.ref for p in made.slots().loaded} >= {ref(2), ref(5)}
    made.decide(decision(5, "gain"))
    assert made.slots().trial == (), "they were held against another champion"
    assert [p.ref for p in made.slots().loaded if p.ref.version < 5] == []
