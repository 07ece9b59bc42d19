import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.replay.backpressure import Backpressure


def test_at_the_start_one_window_and_its_lag_may_be_leased():
    throttle = Backpressure(groups_per_window=4, max_lag=1)
    assert throttle.capacity == 8
    assert [throttle.lease(5), throttle.lease(5), throttle.lease(5)] == [5, 3, 0]


def test_failed_and_expired_prompts_give_their_room_back_and_delivered_ones_do_not():
    throttle = Backpressure(groups_per_window=4, max_lag=0)
    throttle.lease(4)
    throttle.fail()
    throttle.expire()
    throttle.accept()
    throttle.filter()
    assert (throttle.capacity, throttle.counted, throttle.outstanding) == (2, 2, 0)


def test_a_decided_window_makes_room_for_another_whatever_the_verdict():
    throttle = Backpressure(groups_per_window=2, max_lag=0)
    for _ in range(2):
        throttle.lease(1)
        throttle.accept()
    assert throttle.capacity == 0
    throttle.decide()
    assert throttle.capacity == 2


def test_quarantined_prompts_are_collected_anew():
    throttle = Backpressure(groups_per_window=4, max_lag=0)
    throttle.lease(4)
    for _ in range(4):
        throttle.accept()
    throttle.quarantine(3)
    assert throttle.capacity == 3


def test_a_run_that_ends_leases_no_prompt_beyond_its_last_window():
    throttle = Backpressure(groups_per_window=4, max_lag=3, windows_wanted=2)
    assert throttle.lease(100) == 8
    for _ in range(8):
        throttle.accept()
    throttle.decide()
    assert throttle.capacity == 0


def test_a_discarded_window_of_a_run_that_ends_is_collected_anew():
    throttle = Backpressure(groups_per_window=4, max_lag=1, windows_wanted=2)
    throttle.lease(8)
    for _ in range(8):
        throttle.accept()
    throttle.decide()
    throttle.discard()
    assert throttle.capacity == 4


def test_what_was_not_leased_cannot_be_delivered():
    with pytest.raises(ValueError, match="no prompt is outstanding"):
        Backpressure(groups_per_window=4, max_lag=0).accept()


@pytest.mark.parametrize(
    "counts",
    [
        {"leased": 3, "accepted": 1},
        {"failed": 1, "outstanding": -1},
        {"leased": 1, "accepted": 1, "quarantined": 2},
    ],
)
def test_counts_that_break_the_law_are_refused(counts):
    with pytest.raises(ValueError, match="breaks leased"):
        Backpressure(groups_per_window=4, max_lag=0, **counts)


def test_a_window_has_a_prompt_at_least_and_no_lag_below_none():
    assert Backpressure(groups_per_window=1, max_lag=0).capacity == 1
    for groups, lag in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match=f"groups_per_window={groups}, max_lag={lag}: expected at least 1"):
            Backpressure(groups, lag)


def test_nothing_is_leased_where_nothing_is_wanted_and_every_count_says_what_became_of_a_prompt():
    throttle = Backpressure(groups_per_window=4, max_lag=0)
    assert throttle.lease(0) == throttle.lease(-3) == 0 and throttle == Backpressure(4, 0)
    throttle.lease(4)
    for ends in (throttle.accept, throttle.filter, throttle.fail, throttle.expire):
        ends()
    throttle.discard()
    throttle.decide()
    assert throttle == Backpressure(4, 0, None, 4, 1, 1, 1, 1, 0, 0, windows_decided=2, windows_discarded=1)


def test_as_many_prompts_are_withdrawn_as_count():
    throttle = Backpressure(groups_per_window=4, max_lag=0, leased=2, accepted=1, filtered=1)
    for prompts in (-1, 3):
        with pytest.raises(ValueError, match=f"cannot quarantine {prompts} prompts, expected 0 to 2"):
            throttle.quarantine(prompts)
    throttle.quarantine(0)
    throttle.quarantine(1)
    throttle.quarantine(1)
    assert (throttle.counted, throttle.quarantined) == (0, 2)


MOVES = ("lease", "accept", "filter", "fail", "expire", "draw", "promote", "reject")


class Run:
    """A producer and a consumer in any order. A move that is not possible now is skipped."""

    def __init__(self, groups: int, lag: int, wanted: int | None) -> None:
        self.throttle = Backpressure(groups, lag, wanted)
        self.groups = groups
        self.waiting = 0
        self.drawn = 0
        self.decided = 0

    def move(self, name: str, amount: int = 1) -> None:
        throttle = self.throttle
        if name == "lease":
            throttle.lease(amount)
        elif name in ("accept", "filter", "fail", "expire"):
            if throttle.outstanding:
                getattr(throttle, name)()
                self.waiting += name in ("accept", "filter")
        elif name == "draw":
            if self.waiting >= self.groups:
                self.waiting -= self.groups
                self.drawn += 1
        elif self.drawn:
            self.drawn -= 1
            self.decided += 1
            throttle.decide()
            if name == "reject":
                lost = min(amount, self.waiting)
                throttle.quarantine(lost)
                self.waiting -= lost
                while self.drawn:
                    throttle.discard()
                    self.drawn -= 1


@settings(max_examples=200, deadline=None)
@given(
    groups=st.integers(1, 5),
    lag=st.integers(0, 3),
    wanted=st.none() | st.integers(1, 12),
    moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(1, 7)), max_size=120),
)
def test_the_law_holds_and_no_history_stalls_the_run_or_lets_it_run_away(groups, lag, wanted, moves):
    run = Run(groups, lag, wanted)
    for name, amount in moves:
        run.move(name, amount)
        throttle = run.throttle
        assert throttle.lawful
        undecided = throttle.counted + throttle.outstanding - throttle.windows_decided * groups
        assert undecided == run.drawn * groups + run.waiting + throttle.outstanding
        assert undecided <= (lag + 1) * groups
    target = wanted if wanted is not None else run.decided + 11
    for _ in range(target * groups * 3 + 50):
        if run.decided >= target:
            break
        for name in ("lease", "accept", "draw", "promote"):
            run.move(name)
    assert run.decided >= target
    if wanted is not None:
        assert run.throttle.counted <= (wanted + run.throttle.windows_discarded) * groups


def test_ten_rejections_in_a_row_at_lag_zero_never_stall():
    run = Run(3, 0, 11)
    for verdict in ["reject"] * 10 + ["promote"]:
        for _ in range(3):
            run.move("lease")
            run.move("accept")
        run.move("draw")
        run.move(verdict, 3)
    assert run.decided == 11 and run.throttle.capacity == 0
