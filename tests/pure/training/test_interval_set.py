from hypothesis import given
from hypothesis import strategies as st

from training.replay.interval_set import IntervalSet


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_it_holds_what_a_set_would_in_no_more_intervals_than_gaps(steps: list[tuple[bool, int]]) -> None:
    places, model = IntervalSet.below(10, but=(3,)), set(range(10)) - {3}
    for adds, place in steps:
        (places.add if adds else places.discard)(place)
        (model.add if adds else model.discard)(place)
        assert len(places) == len(model) and all((n in places) == (n in model) for n in range(32))
    assert places.runs <= 1 + sum(n not in model for n in range(31))
