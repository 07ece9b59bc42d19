from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.codec import pack_ids
from core.messages import Example, Outcome, PolicyRef
from tests.pure.examples import imitate, prefer, reinforce
from training.replay.interval_set import IntervalSet
from training.replay.replay import Replay, ReplayCounts, Withdrawn


def example(name: str, version: int = 0, tokens: int | None = None, group: str | None = None) -> Example:
    completion = pack_ids([crc32(name.encode()) % 10**6 if tokens is None else tokens, 2])
    ref = PolicyRef(version=version)
    return imitate(name, pack_ids([1]), completion, group_id=group or f"g-{name}", policy=ref)


def outcome(place: int, *examples: Example, failure: str | None = None) -> Outcome:
    return Outcome(lease_id="l", place=place, prompt_id=f"p{place}", examples=examples, failure=failure)


def full(place: int, version: int = 0) -> Outcome:
    return outcome(place, example(f"e{place}v{version}", version, tokens=1000 + place))


def filled(replay: Replay, places: int, draws: int) -> Replay:
    """With an outcome of each of so many places, and then so many windows drawn."""
    for place in range(places):
        replay.add(full(place))
    for _ in range(draws):
        replay.draw(0)
    return replay


def ids(window) -> list[str]:
    return [e.id for e in window.examples]


def test_a_window_holds_new_prompts_and_replays_the_newest_windows():
    replay = Replay(groups_per_window=2, replay_windows=2, max_lag=9)
    for place in range(6):
        assert replay.add(full(place)) == "accepted"
    first, second, third = replay.draw(0), replay.draw(0), replay.draw(0)
    assert [w.number for w in (first, second, third)] == [1, 2, 3]
    assert ids(first) == ["e0v0", "e1v0"]
    assert ids(third) == ["e4v0", "e5v0", "e2v0", "e3v0"]
    assert third.group_ids == ("g-e4v0", "g-e5v0")
    assert replay.draw(0) is None


def test_prompts_that_kept_no_example_count_towards_their_window():
    replay = Replay(2, 1, 0)
    assert replay.add(outcome(0)) == "filtered"
    assert replay.add(full(1)) == "accepted"
    assert ids(replay.draw(0)) == ["e1v0"]


def test_a_failed_prompt_is_not_held_and_its_place_may_come_again():
    replay = Replay(1, 1, 0)
    assert replay.add(outcome(0, failure="timeout")) == "failed"
    assert not replay.ready()
    assert replay.add(full(0)) == "accepted"


def test_a_delivery_is_held_once_even_after_it_was_drawn():
    replay = Replay(1, 1, 0)
    assert [replay.add(full(0)), replay.add(full(0))] == ["accepted", "duplicate"]
    replay.draw(0)
    assert replay.add(full(0)) == "duplicate"
    assert replay.add(outcome(7, example("e0v0"))) == "duplicate"


def test_an_example_too_far_behind_is_dropped_once_at_the_draw_and_counted():
    replay = Replay(2, 2, max_lag=1)
    for version in (1, 2, 3):
        replay.publish(version)
    replay.add(full(0, version=1))
    replay.add(full(1, version=2))
    assert ids(replay.draw(3)) == ["e1v2"]
    assert replay.counts().stale_examples == 1
    for place in (2, 3):
        replay.add(full(place, version=9))
    assert ids(replay.draw(9)) == ["e2v9", "e3v9", "e1v2"]


def test_lag_counts_published_versions_that_were_not_rejected():
    replay = Replay(1, 1, max_lag=1)
    for version in (4, 5, 6, 7):
        replay.publish(version)
    replay.quarantine(5)
    replay.quarantine(6)
    assert replay.lag(4, newest=7) == 1
    assert replay.lag(7, newest=4) == 0


def test_the_same_tokens_stand_once_in_a_window_but_rewards_are_never_merged():
    replay = Replay(2, 1, 0)
    replay.add(outcome(0, example("a", tokens=5), example("b", tokens=5), example("c", tokens=6)))
    rewarded = [reinforce(name, pack_ids([1]), pack_ids([5]), 1.0) for name in ("x", "y")]
    replay.add(Outcome(lease_id="l", place=1, prompt_id="p", examples=tuple(rewarded)))
    assert ids(replay.draw(0)) == ["a", "c", "x", "y"]


def test_a_late_vote_replaces_a_prompts_examples_for_the_windows_to_come():
    replay = Replay(1, 2, 0)
    replay.add(full(0))
    replay.draw(0)
    replay.add(full(1))
    again = outcome(0, example("late0", group="g-e0v0")).model_copy(update={"revision": 1})
    assert replay.replace(again)
    assert not replay.replace(again), "replaced without new votes"
    assert replay.replace(outcome(1).model_copy(update={"revision": 2}))
    assert ids(replay.draw(0)) == ["late0"]
    assert not replay.replace(outcome(9).model_copy(update={"revision": 1}))
    assert [(e.place, e.revision) for e in replay.held()] == [(0, 1), (1, 2)]


def test_what_was_too_old_at_its_draw_stays_out_when_it_is_settled_again():
    replay = Replay(1, 2, max_lag=0)
    for version in (1, 2):
        replay.publish(version)
    replay.add(outcome(0, example("old", 1), example("new", 2)))
    assert ids(replay.draw(2)) == ["new"]
    again = outcome(0, example("old", 1), example("new", 2), example("other", 2))
    replay.replace(again.model_copy(update={"revision": 1}))
    assert ids(replay.again(1)) == ["new", "other"]


def test_what_people_wrote_fills_no_more_than_its_share_of_a_window():
    def written(name):
        return example(name).model_copy(update={"by": "person"})

    replay = Replay(2, 1, 0, written_share=0.25)
    replay.add(outcome(0, *(example(f"own{i}") for i in range(7)), *(written(f"theirs{i}") for i in range(5))))
    replay.add(outcome(1, written("late")))
    assert ids(replay.draw(0)) == [*(f"own{i}" for i in range(7)), "theirs0", "theirs1"]
    nothing_else = Replay(1, 1, 0, written_share=0.25)
    nothing_else.add(outcome(0, written("alone")))
    assert ids(nothing_else.draw(0)) == []


def test_a_long_run_remembers_its_places_in_the_room_of_the_gaps_between_them():
    replay = Replay(4, 2, 1)
    for place in range(400):
        replay.add(full(place))
        if replay.ready():
            replay.draw(0)
    assert replay._places.runs == 1 and len(replay._places) == 400
    assert len(replay._group_ids) == (2 + 1 + 1) * 4 and len(replay._drawn) == len(replay._oldest) == 4
    assert replay.add(full(3)) == "duplicate"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=80))
def test_places_are_a_set_of_numbers(moves):
    places, model = IntervalSet.below(10, but=(3, 4, 20)), {*range(10)} - {3, 4}
    for adds, place in moves:
        (places.add if adds else places.discard)(place)
        (model.add if adds else model.discard)(place)
        assert [p for p in range(32) if p in places] == sorted(model) and len(places) == len(model)
        assert places.runs == sum(p - 1 not in model for p in model)


def test_a_rejected_versions_waiting_prompts_go_and_are_collected_anew():
    replay = Replay(2, 3, 9)
    replay.add(full(0, 1))
    replay.add(full(1, 2))
    assert replay.quarantine(2) == Withdrawn((1,), ("g-e1v2",))
    assert replay.quarantine(2) == Withdrawn()
    assert replay.add(full(5, 2)) == "stale"
    assert replay.add(full(1, 1)) == "accepted"
    assert ids(replay.draw(1)) == ["e0v1", "e1v1"]


def test_what_a_rejected_version_sampled_is_not_replayed_either():
    replay = Replay(1, 3, 9)
    replay.add(full(0, 1))
    replay.draw(1)
    replay.add(full(1, 2))
    replay.draw(2)
    replay.quarantine(2)
    replay.add(full(2, 1))
    assert ids(replay.draw(1)) == ["e2v1", "e0v1"]


def test_an_older_window_takes_the_part_of_a_quarantined_one():
    replay = filled(Replay(1, 2, max_lag=1), places=4, draws=3)
    replay.quarantine_window(3)
    assert ids(replay.draw(0)) == ["e3v0", "e1v0"]


def test_after_a_restart_a_prompt_collected_anew_stands_where_it_was_delivered_again():
    replay, kept = Replay(1, 1, 9), [full(0, 1), full(1, 0), full(0, 0)]
    for outcome in kept:
        replay.add(outcome)
        replay.quarantine(1)
    again = Replay(1, 1, 9)
    again.restore(kept, {}, quarantined=[1])
    assert ids(replay.draw(1)) == ids(again.draw(1)) == ["e1v0"]
    assert ids(replay.draw(1)) == ids(again.draw(1)) == ["e0v0"]


def test_the_base_cannot_be_quarantined():
    with pytest.raises(ValueError, match="base model"):
        Replay(1, 1, 0).quarantine(0)


def test_the_counts_say_what_waits_and_what_was_refused():
    replay = Replay(2, 1, max_lag=0)
    assert replay.counts() == ReplayCounts(0, 0, 0, 0, 0, 0)
    replay.publish(3)
    replay.add(outcome(0, example("a", 3), example("b", 3)))
    replay.add(outcome(0))
    replay.add(outcome(1))
    replay.add(full(2, 1))
    assert replay.counts() == ReplayCounts(3, 3, 0, 1, 0, 0) and replay.waiting_places() == (0, 1, 2)
    replay.quarantine(1)
    replay.add(full(3, 1))
    assert replay.counts() == ReplayCounts(2, 2, 0, 1, 0, 2)
    assert replay.ready() and ids(replay.draw(3)) == ["a", "b"] and not replay.ready()
    assert replay.counts() == ReplayCounts(0, 0, 1, 1, 0, 2) and replay.windows_drawn == 1
    replay.recount(stale_examples=7, quarantined_prompts=9)
    assert replay.counts() == ReplayCounts(0, 0, 1, 1, 7, 9)


def test_a_late_vote_keeps_the_count_of_examples_that_wait():
    replay = Replay(3, 1, 0)
    replay.add(full(0))
    replay.add(full(1))
    again = outcome(1, example("x"), example("y"), example("z")).model_copy(update={"revision": 1})
    assert replay.replace(again) and replay.counts().examples_waiting == 4
    assert replay.add(outcome(5, example("x"))) == "duplicate", "its new group is known too"
    replay.quarantine(9)
    assert replay.counts().examples_waiting == 4


def test_a_late_vote_on_a_drawn_prompt_changes_it_alone():
    replay = filled(Replay(3, 2, 0), places=3, draws=1)
    again = outcome(1, example("late")).model_copy(update={"revision": 1})
    assert replay.replace(again) and ids(replay.again(1)) == ["e0v0", "late", "e2v0"]
    assert replay.add(outcome(9, example("late"))) == "duplicate"


@pytest.mark.parametrize(("newest", "oldest"), [(0, 0), (2, 0), (3, 0), (4, 1), (5, 2), (7, 4)])
def test_the_oldest_fresh_version_is_so_many_published_ones_behind(newest, oldest):
    replay = Replay(1, 1, max_lag=2)
    for version in (1, 2, 3, 4, 6, 7):
        replay.publish(version)
    replay.quarantine(3)
    assert replay.oldest_fresh(newest) == oldest
    assert Replay(1, 1, max_lag=0).oldest_fresh(5) == 5


def test_lag_is_zero_for_the_newest_and_one_for_the_version_before():
    replay = Replay(1, 1, max_lag=1)
    for version in (1, 2, 3):
        replay.publish(version)
    assert [replay.lag(version, newest=3) for version in (0, 1, 2, 3, 4)] == [3, 2, 1, 0, 0]
    assert replay.lag(3, newest=9) == 1, "the newest counts, published or not"


def test_what_is_held_is_what_a_window_may_still_take():
    replay = filled(Replay(1, 1, max_lag=0), places=4, draws=3)
    assert [e.place for e in replay.held()] == [1, 2, 3]
    assert sorted(held.place for held in replay.held()) == [1, 2, 3]
    assert [replay.is_drawn(number) for number in range(5)] == [False, False, True, True, False]
    assert replay.again(1) is None and replay.again(4) is None
    assert replay.drawn_places(3) == (2,)
    with pytest.raises(LookupError, match=r"window 1 is not held; expected one of \[2, 3\]"):
        replay.drawn_places(1)


def test_a_window_drawn_again_takes_no_example_of_a_later_one():
    replay = Replay(1, 3, max_lag=9)
    for place in range(3):
        replay.add(full(place))
        replay.draw(0)
    assert ids(replay.again(2)) == ["e1v0", "e0v0"] and replay.again(2).group_ids == ("g-e1v0",)


def test_a_quarantined_window_is_held_while_it_is_the_newest():
    replay = filled(Replay(1, 1, max_lag=0), places=2, draws=1)
    replay.quarantine_window(1)
    replay.quarantine_window(2)
    replay.draw(0)
    assert replay.drawn_places(2) == (1,) and not replay.is_drawn(1)


def test_a_withdrawn_prompts_groups_may_come_again():
    replay = Replay(2, 1, 9)
    replay.add(full(0, 1))
    replay.quarantine(1)
    assert replay.counts().examples_waiting == 0
    assert replay.add(outcome(4, example("e0v1"))) == "accepted"


def test_preferences_are_merged_by_all_their_tokens():
    def pair(name, context=1, chosen=2, rejected=3, adapter="solver"):
        tokens = (pack_ids([number]) for number in (context, chosen, rejected))
        return prefer(name, *tokens, adapter=adapter)

    same = pair("a"), pair("b")
    others = pair("c", context=9), pair("d", chosen=9), pair("e", rejected=9), pair("f", adapter="policy")
    replay = Replay(1, 1, 0)
    replay.add(Outcome(lease_id="l", place=0, prompt_id="p", examples=(*same, *others)))
    assert ids(replay.draw(0)) == ["a", "c", "d", "e", "f"]


@pytest.mark.parametrize(("share", "own", "kept"), [(0.5, 3, 3), (0.5, 1, 1), (0.75, 1, 3), (0.0, 5, 0), (1.0, 0, 5)])
def test_a_share_of_what_people_wrote_is_kept_to_the_example(share, own, kept):
    texts = [example(f"theirs{i}").model_copy(update={"by": "person"}) for i in range(5)]
    replay = Replay(1, 1, 0, written_share=share)
    replay.add(outcome(0, *texts, *(example(f"own{i}") for i in range(own))))
    assert ids(replay.draw(0)) == [*(f"theirs{i}" for i in range(kept)), *(f"own{i}" for i in range(own))]
    assert Replay(1, 1, 0).written_share == 1.0


def test_examples_with_one_id_in_a_delivery_are_one():
    replay = Replay(1, 1, 0)
    replay.add(outcome(0, example("a"), example("a")))
    assert replay.counts().examples_waiting == 1
    assert replay.held()[0].prompt_id == "p0"


def test_a_restored_replay_knows_what_was_used_drawn_and_quarantined():
    kept = [full(place, version=1) for place in range(5)]
    again = Replay(2, 2, max_lag=0)
    again.restore(
        [*kept, outcome(9, failure="timeout")],
        {1: [0, 7], 2: [2]},
        quarantined=[4],
        versions=[1, 2, 3, 4],
        newest_at_draw={1: 1, 2: 3},
        used=IntervalSet.below(5, but=(3,)),
    )
    assert again.windows_drawn == 2 and again.waiting_places() == (1, 3, 4)
    assert again.counts() == ReplayCounts(3, 3, 2, 0, 1, 0)
    assert (again.drawn_places(1), again.drawn_places(2)) == ((0,), (2,))
    assert ids(again.again(1)) == ids(again.again(2)) == ["e0v1"], "window 2's own example was stale at its draw"
    assert again.add(full(4)) == again.add(full(3)) == again.add(outcome(8, example("e0v1"))) == "duplicate"
    assert again.add(full(9, version=4)) == "stale" and again.add(full(9)) == "accepted"
    with pytest.raises(ValueError, match="restore needs an empty replay, this one has 6 places"):
        again.restore([], {})


def test_the_oldest_version_stored_at_a_draw_is_believed_before_the_newest():
    again = Replay(1, 1, max_lag=0)
    again.restore([full(0, 1)], {1: [0]}, versions=[1, 2, 3], newest_at_draw={1: 3}, oldest_at_draw={1: 1})
    assert ids(again.again(1)) == ["e0v1"]
    unknown = Replay(1, 1, max_lag=0)
    unknown.restore([full(0, 0)], {1: [0]})
    assert ids(unknown.again(1)) == ["e0v0"] and unknown.windows_drawn == 1
    quarantined = Replay(1, 2, max_lag=0)
    quarantined.restore([full(0), full(1)], {1: [0], 2: [1]}, quarantined_windows=[1])
    assert ids(quarantined.again(2)) == ["e1v0"]
    drawn_only = Replay(1, 1, 0)
    drawn_only.restore([], {3: []})
    with pytest.raises(ValueError, match="restore needs an empty replay"):
        drawn_only.restore([], {})


@settings(max_examples=100, deadline=None)
@given(
    seed=st.randoms(use_true_random=False),
    groups=st.integers(1, 4),
    windows=st.integers(1, 4),
    steps=st.integers(1, 80),
)
def test_in_any_history_no_group_is_new_twice_and_a_restart_draws_the_same(seed, groups, windows, steps):
    replay = Replay(groups, windows, max_lag=1)
    kept, drawn, oldest_at_draw, new_groups = [], {}, {}, []
    bad: set[int] = set()
    version, published = 0, []
    for place in range(steps):
        delivered = full(place if seed.random() < 0.8 else seed.randrange(place + 1), version)
        if seed.random() < 0.2:
            delivered = delivered.model_copy(update={"examples": ()})
        if replay.add(delivered) in ("accepted", "filtered"):
            kept.append(delivered)
        oldest = replay.oldest_fresh(version)
        if seed.random() < 0.3 and (window := replay.draw(version)):
            assert all(e.policy.version not in bad for e in window.examples)
            drawn[window.number] = replay.drawn_places(window.number)
            oldest_at_draw[window.number] = oldest
            new_groups += window.group_ids
            version = window.number
            published.append(version)
            replay.publish(version)
        elif version and seed.random() < 0.1:
            bad.add(version)
            replay.quarantine(version)
            version = max((v for v in published if v not in bad), default=0)
    assert len(new_groups) == len(set(new_groups))
    assert all(len(places) == groups for places in drawn.values())
    again = Replay(groups, windows, max_lag=1)
    again.restore(kept, drawn, bad, versions=published, oldest_at_draw=oldest_at_draw)
    assert again.counts().prompts_waiting == replay.counts().prompts_waiting
    for each in (replay, again):
        waiting = [explored for explored in each.held() if explored.place in each.waiting_places()]
        assert each.counts().examples_waiting == sum(len(explored.examples) for explored in waiting)
    for extra in range(groups):
        assert replay.add(full(1000 + extra)) == again.add(full(1000 + extra)) == "accepted"
    one, two = replay.draw(version), again.draw(version)
    assert one is not None and two is not None and one.number == two.number
    assert sorted(ids(one)) == sorted(ids(two))


def test_examples_of_a_version_that_was_asked_for_by_name_never_grow_stale():
    replay = Replay(1, 1, max_lag=0)
    base = example("a", tokens=5).model_copy(update={"fixed": True})
    for version in range(1, 4):
        replay.publish(version)
    replay.add(outcome(0, base, example("b", tokens=6)))
    assert ids(replay.draw(3)) == ["a"] and replay.counts().stale_examples == 1
