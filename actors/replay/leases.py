"""The leased places of the prompt source: which lease holds each, and until when.

A place stays leased until its outcome is stored. It is leased again only if its lease expires first. Backpressure
counts the result of each lease. No I/O; the clock is an argument.
"""

import heapq
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass

from actors.replay.prompt_queue import PromptQueue
from actors.replay.recovery import Recovered
from core.clock import Clock
from core.messages import Lease
from core.protocols import UNTUNED, Tuned
from core.store.encoded import EncodedOutcome
from training.replay.backpressure import Backpressure

TOKENS_KEPT = 256
"""Newest leases that a repeated request can still get."""


@dataclass(frozen=True)
class Leased:
    lease_id: str
    expires_at: float


class Leases:
    def __init__(self, throttle: Backpressure, lease_s: float, clock: Clock) -> None:
        self._throttle = throttle
        self._lease_s = lease_s
        self._clock = clock
        self.outstanding: dict[int, Leased] = {}
        self.returned: deque[int] = deque()
        """Places whose lease expired, to be leased again."""
        self.next_place = 0
        """No place from this one on has been leased."""
        self._arriving: dict[int, Leased] = {}
        """Places whose outcome is being stored."""
        self._deadlines: list[tuple[float, int, str]] = []
        self._granted: OrderedDict[str, Lease] = OrderedDict()
        self._second_hand: set[int] = set()
        self._leased_before = 0
        """Places below this number may have been leased before the last start, and their outcomes may still reach the
        disk."""

    @property
    def expires_at(self) -> float:
        """The end of a lease that starts now."""
        return self._clock.monotonic() + self._lease_s

    @property
    def soonest(self) -> float:
        """The earliest end of a lease."""
        return self._deadlines[0][0] if self._deadlines else self.expires_at

    # --- granting ---

    def granted(self, token: str) -> Lease | None:
        """The running lease that was granted for this token."""
        return self._granted.get(token)

    def grant(self, wanted: int, token: str, voted: bool, asked: PromptQueue, tuned: Tuned = UNTUNED) -> Lease | None:
        """Lease as many of the wanted places as backpressure allows. The first of them get prompts that people
        asked."""
        n = self._throttle.lease(wanted)
        if not n:
            return None
        leased = Leased(uuid.uuid4().hex, self.expires_at)
        places = tuple(self._take_places(n))
        lease = Lease(
            id=leased.lease_id,
            places=places,
            expires_at=leased.expires_at,
            voted=voted,
            asked=asked.bind(places),
            tuned=dict(tuned),
        )
        for place in places:
            self.outstanding[place] = leased
            self.watch(place, leased.lease_id, leased.expires_at)
        self._remember(token, lease)
        return lease

    def _remember(self, token: str, lease: Lease) -> None:
        if token:
            self._granted[token] = lease
        while len(self._granted) > TOKENS_KEPT:
            self._granted.popitem(last=False)

    def _take_places(self, n: int) -> list[int]:
        places = [self.returned.popleft() for _ in range(min(n, len(self.returned)))]
        fresh = range(self.next_place, self.next_place + n - len(places))
        places += fresh
        self.next_place = fresh.stop
        self._second_hand.update(place for place in places if place < self._leased_before)
        return places

    # --- delivery ---

    def claim(self, outcome: EncodedOutcome) -> Leased | None:
        """The lease that this outcome ends, if it still runs. Until `end` or `unclaim` no other outcome can claim it,
        and it cannot expire."""
        leased = self.outstanding.get(outcome.place)
        if leased is None or leased.lease_id != outcome.lease_id:
            return None
        self._arriving[outcome.place] = self.outstanding.pop(outcome.place)
        return leased

    def unclaim(self, place: int, leased: Leased) -> None:
        """Its outcome was not acknowledged: the lease stays valid."""
        del self._arriving[place]
        self.outstanding[place] = leased
        self._second_hand.add(place)
        self.watch(place, leased.lease_id, leased.expires_at)

    def is_second_hand(self, place: int) -> bool:
        """Whether the place was leased before, so that an earlier outcome may be in the store."""
        return place in self._second_hand

    def end(self, place: int, result: str) -> None:
        """The outcome that claimed the place is stored. A place is used once; later prompts replace withdrawn ones."""
        del self._arriving[place]
        self._second_hand.discard(place)
        match result:
            case "accepted":
                self._throttle.accept()
            case "filtered":
                self._throttle.filter()
            case "failed" | "duplicate":
                self._throttle.fail()
            case "stale":
                self._throttle.accept()
                self._throttle.quarantine(1)
            case _:
                raise ValueError(f"unknown result {result!r}; expected accepted, filtered, failed, duplicate or stale")

    # --- running out ---

    def watch(self, place: int, id: str, expires_at: float) -> None:
        """Make `overdue` report this at its end: a lease, or a place to settle again."""
        heapq.heappush(self._deadlines, (expires_at, place, id))

    def overdue(self) -> list[tuple[int, str]]:
        """Place and id of everything that ended since the last call, including what was delivered in time."""
        now, ended = self._clock.monotonic(), list[tuple[int, str]]()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, place, id = heapq.heappop(self._deadlines)
            ended.append((place, id))
        for token in [token for token, lease in self._granted.items() if lease.expires_at <= now]:
            del self._granted[token]
        return ended

    def expire(self, place: int, lease_id: str) -> bool:
        """Take the place back if this lease still holds it; returns whether it did."""
        leased = self.outstanding.get(place)
        if leased is None or leased.lease_id != lease_id:
            return False
        del self.outstanding[place]
        self._throttle.expire()
        self.returned.append(place)
        self._second_hand.add(place)
        return True

    # --- restart ---

    @property
    def open_places(self) -> list[int]:
        """Places that were leased and whose outcome is not known to be stored."""
        return sorted({*self.outstanding, *self._arriving, *self.returned})

    def restore(self, found: Recovered, held: int) -> None:
        """After a restart no lease is outstanding: open places are leased again. `held`: prompts that are drawn or wait
        to be drawn."""
        t = self._throttle
        self.next_place = found.next_place
        # backpressure allows at most this many leases in flight
        self._leased_before = found.next_place + (t.max_lag + 1) * t.groups_per_window
        self.returned.extend(found.open)
        self._second_hand.update(found.open)
        t.accepted, t.filtered = found.counts.accepted, found.counts.filtered
        t.failed, t.expired = found.counts.failed, found.counts.expired
        t.leased = t.accepted + t.filtered + t.failed + t.expired
        t.quarantined = t.accepted + t.filtered - held
