"""What may be deleted: the rules alone."""

from hypothesis import given
from hypothesis import strategies as st

from core.config import LearningConfig, RetentionConfig
from core.store.retention import forgettable, prunable, windows_kept

LEARNING = LearningConfig(groups_per_window=2, replay_windows=2, max_lag=1)


def test_a_draw_never_misses_a_window_however_little_is_to_be_kept() -> None:
    assert windows_kept(RetentionConfig(windows=1), LEARNING) == 4
    assert windows_kept(RetentionConfig(windows=9), LEARNING) == 9
    assert windows_kept(RetentionConfig(windows=None), LEARNING) is None


def test_only_decided_windows_behind_the_kept_ones_are_forgotten() -> None:
    accepted = dict.fromkeys(range(1, 10), False)
    assert forgettable(range(1, 11), accepted, keep=4) == [1, 2, 3, 4, 5, 6]
    assert forgettable(range(1, 11), {n: False for n in (1, 3)}, keep=4) == [1, 3]
    assert forgettable([], {}, keep=4) == []


def test_rejected_windows_do_not_push_out_the_good_ones_that_replay_goes_back_to() -> None:
    rejected = {n: n > 3 for n in range(1, 11)}
    assert forgettable(range(1, 11), rejected, keep=4) == [4, 5, 6]


@given(st.dictionaries(st.integers(1, 40), st.booleans()), st.integers(1, 8))
def test_whatever_was_decided_the_newest_good_windows_and_the_undecided_stay(
    rejected: dict[int, bool], keep: int
) -> None:
    drawn = range(1, 41)
    gone = set(forgettable(drawn, rejected, keep))
    good = [n for n in reversed(drawn) if not rejected.get(n, False)]
    assert gone.isdisjoint(good[:keep]) and gone <= rejected.keys() and gone.isdisjoint(range(41 - keep, 41))


def test_newest_promoted_and_newest_others_keep_their_folders_and_so_does_what_is_needed() -> None:
    promoted = {n: n % 2 == 0 for n in range(1, 11)}
    assert prunable(promoted, needed=[1], keep=2) == [2, 3, 4, 5, 6]
    assert prunable({0: True, 1: True}, needed=[], keep=2) == []
