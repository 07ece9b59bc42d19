"""One lease at a time: what is granted, who may end it, and what a restart makes of it."""

import pytest

from actors.replay.leases import TOKENS_KEPT, Leases
from actors.replay.prompt_queue import PromptQueue
from actors.replay.recovery import Recovered
from core.clock import ManualClock
from core.messages import Lease, Outcome
from core.store.encoded import EncodedOutcome, encode_outcome
from core.store.facts import BufferCounts
from methods.data.prompts import as_prompt
from training.replay.backpressure import Backpressure

LEASE_S = 100.0


def leases(groups: int = 4, lag: int = 1) -> tuple[Leases, Backpressure, ManualClock]:
    throttle, clock = Backpressure(groups, lag), ManualClock()
    return Leases(throttle, LEASE_S, clock), throttle, clock


def grant(made: Leases, wanted: int, token: str = "") -> Lease:
    lease = made.grant(wanted, token, False, PromptQueue(8))
    assert lease is not None
    return lease


def brought(lease_id: str, place: int) -> EncodedOutcome:
    return encode_outcome(Outcome(lease_id=lease_id, place=place, prompt_id="p"))


def test_places_are_leased_in_order_as_far_as_backpressure_allows() -> None:
    made, throttle, clock = leases()
    first, second = grant(made, 5), grant(made, 5)
    assert (first.places, second.places) == ((0, 1, 2, 3, 4), (5, 6, 7))
    assert made.grant(1, "t", True, PromptQueue(8)) is None and made.granted("t") is None
    assert first.id != second.id and first.expires_at == clock.monotonic() + LEASE_S == made.expires_at
    assert (made.next_place, throttle.outstanding, made.open_places) == (8, 8, list(range(8)))
    assert {place: leased.lease_id for place, leased in made.outstanding.items()} == {
        **dict.fromkeys(range(5), first.id),
        **dict.fromkeys(range(5, 8), second.id),
    }


def test_a_lease_carries_whether_votes_are_taken_and_what_people_asked() -> None:
    made, _, _ = leases()
    asked, prompt = PromptQueue(8), as_prompt("why?")
    asked.add([prompt])
    lease = made.grant(2, "t", True, asked)
    assert lease is not None and lease.voted and lease.asked == ((0, prompt),)
    assert not grant(made, 1).voted


def test_only_the_lease_that_holds_a_place_claims_it_and_only_once() -> None:
    made, throttle, _ = leases()
    lease = grant(made, 2)
    assert made.claim(brought("another", 0)) is None and made.claim(brought(lease.id, 7)) is None
    leased = made.claim(brought(lease.id, 0))
    assert leased is not None and leased.lease_id == lease.id and leased.expires_at == lease.expires_at
    assert made.claim(brought(lease.id, 0)) is None and 0 not in made.outstanding
    assert made.open_places == [0, 1] and not made.expire(0, lease.id), "it is being stored"
    made.end(0, "accepted")
    assert made.open_places == [1] and throttle.outstanding == 1


def test_what_was_not_acknowledged_can_be_claimed_again_and_may_be_in_the_store() -> None:
    made, throttle, clock = leases()
    lease = grant(made, 1)
    assert made.overdue() == []
    clock.advance(LEASE_S)
    assert made.overdue() == [(0, lease.id)]
    leased = made.claim(brought(lease.id, 0))
    assert leased is not None and not made.is_second_hand(0)
    made.unclaim(0, leased)
    assert made.is_second_hand(0) and made.open_places == [0] and throttle.outstanding == 1
    assert made.overdue() == [(0, lease.id)], "watched anew"
    assert made.claim(brought(lease.id, 0)) == leased
    made.end(0, "accepted")
    assert not made.is_second_hand(0)


@pytest.mark.parametrize(
    ("result", "counts"),
    [
        ("accepted", (1, 0, 0, 0)),
        ("filtered", (0, 1, 0, 0)),
        ("failed", (0, 0, 1, 0)),
        ("duplicate", (0, 0, 1, 0)),
        ("stale", (1, 0, 0, 1)),
    ],
)
def test_every_result_is_counted_as_what_it_is(result: str, counts: tuple[int, int, int, int]) -> None:
    made, throttle, _ = leases()
    lease = grant(made, 1)
    made.claim(brought(lease.id, 0))
    made.end(0, result)
    assert (throttle.accepted, throttle.filtered, throttle.failed, throttle.quarantined) == counts
    assert throttle.outstanding == 0 and throttle.lawful and made.open_places == []
    assert throttle.capacity == (7 if result in ("accepted", "filtered") else 8)


def test_a_result_without_a_name_is_an_error() -> None:
    made, _, _ = leases()
    made.claim(brought(grant(made, 1).id, 0))
    with pytest.raises(ValueError, match="unknown result 'lost'; expected accepted"):
        made.end(0, "lost")


def test_an_expired_place_is_leased_first_and_its_old_lease_ends_nothing_more() -> None:
    made, throttle, clock = leases()
    lease = grant(made, 2)
    clock.advance(LEASE_S - 1)
    later = grant(made, 1)
    assert made.soonest == lease.expires_at and made.overdue() == []
    clock.advance(1)
    assert made.overdue() == [(0, lease.id), (1, lease.id)] and made.soonest == later.expires_at
    assert not made.expire(0, later.id) and not made.expire(5, lease.id)
    assert made.expire(0, lease.id) and not made.expire(0, lease.id)
    assert (throttle.expired, throttle.outstanding, list(made.returned)) == (1, 2, [0])
    assert made.is_second_hand(0) and made.open_places == [0, 1, 2] and made.claim(brought(lease.id, 0)) is None
    assert grant(made, 2).places == (0, 3), "the returned place, then the next"
    assert made.is_second_hand(0) and not made.is_second_hand(3)


def test_without_a_deadline_the_soonest_end_is_that_of_a_lease_made_now() -> None:
    made, _, clock = leases()
    assert made.soonest == made.expires_at == clock.monotonic() + LEASE_S
    made.watch(9, "settle", clock.monotonic() + 1)
    assert made.soonest == clock.monotonic() + 1


def test_a_repeated_request_gets_its_running_lease_and_the_oldest_are_forgotten() -> None:
    made, _, clock = leases(groups=TOKENS_KEPT, lag=1)
    first = grant(made, 1, "first")
    assert made.granted("first") == first and made.granted("") is None
    nameless = grant(made, 1)
    assert made.granted("") is None and nameless.places == (1,)
    clock.advance(1)
    kept = [grant(made, 1, f"t{i}") for i in range(TOKENS_KEPT - 1)]
    assert made.granted("first") == first
    clock.advance(LEASE_S - 1)
    made.overdue()
    assert made.granted("first") is None, "it ran out"
    assert made.granted("t0") == kept[0]
    grant(made, 1, "one")
    grant(made, 1, "more")
    assert made.granted("t0") is None and made.granted("t1") == kept[1]


def test_after_a_restart_open_places_come_first_and_all_that_may_have_been_leased_is_second_hand() -> None:
    made, throttle, _ = leases(groups=4, lag=1)
    counts = BufferCounts(accepted=5, filtered=2, failed=3, expired=1)
    found = Recovered(counts, 20, [4, 6], {}, [], {}, [], set(), [], None, {}, [], [])
    made.restore(found, held=6)
    assert (throttle.leased, throttle.outstanding, throttle.counted, throttle.quarantined) == (11, 0, 6, 1)
    assert (throttle.accepted, throttle.filtered, throttle.failed, throttle.expired) == (5, 2, 3, 1)
    assert throttle.lawful and made.open_places == [4, 6] and made.next_place == 20
    assert made.is_second_hand(4) and made.is_second_hand(6) and not made.is_second_hand(5)
    throttle.windows_decided = 9  # room for more than were in flight
    assert grant(made, 12).places == (4, 6, *range(20, 30))
    assert [place for place in range(18, 30) if made.is_second_hand(place)] == list(range(20, 28))
