"""The buffers of a run of several shards, asked as if they were one: who asks a run's buffer need not know how many
there are. A run of one shard has none of this: its one buffer and its one store are asked as they are."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from actors.replay.late_votes import check
from actors.runtime.rpc import Peer
from core.codec import decode, decode_batch, encode, encode_batch
from core.config import LearningConfig, VotesConfig
from core.errors import StoreError
from core.messages import Message, Outcome, Prompt, Vote, Window
from core.store.encoded import Parcel
from core.store.shards import Shard, shard_of

M = TypeVar("M", bound=Message)
BOOK = ("events", "feedback")
"""Tables of run.sqlite that a shard's buffer writes to."""
TURN_S = 2.0
"""Where no shard has anything to lease, one after the other is waited for, so long each."""


def part_of(learning: LearningConfig, votes: VotesConfig, shard: Shard) -> tuple[LearningConfig, VotesConfig]:
    """A buffer's part of what the run may: its windows, what a voter may say, and what may be asked."""
    if shard.of == 1:
        return learning, votes
    ballots, room = shard.share(votes.ballots_per_window), shard.share(votes.asked_room)
    return (
        learning.model_copy(update={"groups_per_window": learning.groups_per_window // shard.of}),
        votes.model_copy(update={"ballots_per_window": ballots, "asked_room": room}),
    )


def buffer_of(buffers: Sequence[Peer]) -> Peer:
    """What is asked as the run's buffer."""
    return buffers[0] if len(buffers) == 1 else Buffers(buffers)


def store_of(shard: Shard, stores: Sequence[Peer]) -> Peer:
    """What a shard's buffer writes to."""
    return stores[0] if shard.index == 0 else ShardStore(stores[shard.index], stores[0])


class Shards:
    """Peers that do the same, each for its own prompts."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.peers = list(peers)

    def of(self, prompt_id: str) -> int:
        return shard_of(prompt_id, len(self.peers))

    async def all(self, method: str, *arguments: Any) -> list[Any]:
        """Of each what it answers. Raises: what the first of them raised, when all are done."""
        return await together(peer.call(method, *arguments) for peer in self.peers)

    async def divided(
        self, method: str, bodies: Sequence[M], batch: bytes, shard_of_one: Callable[[M], int], *first: Any
    ) -> list[tuple[list[int], Any]]:
        """Each shard gets its own of a batch, which holds these bodies; what is of no prompt goes with the first part.
        Returns which of the batch each got, and what it answered."""
        mine = defaultdict[int, list[int]](list)
        for at, body in enumerate(bodies):
            mine[shard_of_one(body)].append(at)
        parts = [batch] if len(mine) == 1 else [encode_batch([bodies[at] for at in those]) for those in mine.values()]
        more = [first, *[()] * len(mine)]
        calls = (self.peers[k].call(method, part, *rest) for k, part, rest in zip(mine, parts, more, strict=False))
        answers = await together(calls)
        return list(zip(mine.values(), answers, strict=True))


class Buffers(Shards):
    """A Peer, as a run's one buffer is. See there what each method is for."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        super().__init__(peers)
        self._turns: dict[str, int] = {}

    async def call(self, method: str, *arguments: Any) -> Any:
        match method:
            case "lease":
                wanted, wait_s, token = arguments
                return await self._in_turn(method, wait_s, lambda peer, s: peer.call(method, wanted, s, token))
            case "resettle":
                return await self._in_turn(method, arguments[0], lambda peer, s: peer.call(method, s))
            case "deliver":
                parcels = decode_batch(Parcel, arguments[0])
                return in_order(await self.divided(method, parcels, arguments[0], self._at))
            case "resettled":
                outcomes = decode_batch(Outcome, arguments[0])
                return in_order(await self.divided(method, outcomes, arguments[0], self._at))
            case "vote":
                batch, *beside = arguments
                votes = decode_batch(Vote, batch)
                check(votes)  # before any shard keeps a part of it
                return in_order(await self.divided(method, votes, batch, lambda vote: self.of(vote.prompt_id), *beside))
            case "ask":
                prompts = decode_batch(Prompt, arguments[0])
                taken = await self.divided(method, prompts, arguments[0], lambda prompt: self.of(prompt.id))
                return sum(new for _, new in taken)
            case "votes_on":
                return await self.peers[self.of(arguments[0])].call(method, *arguments)
            case "draw":
                return window_of(await self.all(method, *arguments))
            case "forget":
                return forgotten(await self.all(method, *arguments))
            case "status":
                return buffer_status(await self.all(method))
            case "published" | "settle" | "pause" | "resume":
                await self.all(method, *arguments)
            case _:
                raise LookupError(f"no method {method!r} of a buffer in shards; add it here")

    def _at(self, delivered: Parcel | Outcome) -> int:
        return delivered.place % len(self.peers)

    async def _in_turn(
        self, method: str, wait_s: float, ask: Callable[[Peer, float], Awaitable[bytes | None]]
    ) -> bytes | None:
        """From the first that has some; where none has, the next in turn is waited for. One that raises is asked first
        the next time: what it gave is found again by its token."""
        for patience_s in [*([0.0] * len(self.peers)), min(wait_s, TURN_S)]:
            turn = self._turns.get(method, 0)
            found = await ask(self.peers[turn], patience_s)
            self._turns[method] = (turn + 1) % len(self.peers)
            if found is not None:
                return found
        return None


class ShardStore:
    """What a shard's buffer keeps stands in its own file, what it tells, and what people said, in the run's book."""

    def __init__(self, own: Peer, book: Peer) -> None:
        self._own = own
        self._book = book

    async def call(self, method: str, *arguments: Any) -> Any:
        if method != "append":
            return await self._own.call(method, *arguments)
        told = [record for record in arguments[0] if record[0] in BOOK]
        written = 0
        for peer, part in ((self._own, [r for r in arguments[0] if r[0] not in BOOK]), (self._book, told)):
            if part:
                written += await peer.call(method, part)
        return written


class Stores(Shards):
    """A Peer: the run's own store, with the others counted into its status."""

    async def call(self, method: str, *arguments: Any) -> Any:
        if method == "status":
            return store_status(await self.all(method))
        return await self.peers[0].call(method, *arguments)


async def together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """What all answer. Raises: what the first of them raised, when all are done."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def in_order(answers: Sequence[tuple[Sequence[int], Sequence[str]]]) -> list[str]:
    """Of each of a batch what became of it."""
    by_number = {at: result for those, results in answers for at, result in zip(those, results, strict=True)}
    return [by_number[at] for at in sorted(by_number)]


def window_of(parts: Sequence[bytes | None]) -> bytes | None:
    """A window is there when each shard has its part. Raises: StoreError."""
    windows = [decode(Window, part) for part in parts if part is not None]
    if len(windows) < len(parts):
        return None
    numbers = {window.number for window in windows}
    if len(numbers) > 1:
        found = ", ".join(str(window.number) for window in windows)
        raise StoreError(f"the shards drew the windows {found}, expected one number; restore all files of one backup")
    whole = Window(
        number=numbers.pop(),
        group_ids=tuple(id for window in windows for id in window.group_ids),
        imitate=tuple(example for window in windows for example in window.imitate),
        prefer=tuple(example for window in windows for example in window.prefer),
        reinforce=tuple(example for window in windows for example in window.reinforce),
    )
    return encode(whole, compress=False)


def forgotten(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    versions = sorted({version for part in parts for version in part["versions"]})
    return {name: sum(part[name] for part in parts) for name in ("votes", "rows")} | {"versions": versions}


def buffer_status(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One status: counts are added; a window is drawn when every shard drew it; who is paused first, speaks."""
    paused = next((part for part in parts if part["paused"] is not None), parts[0])
    shares = [part["vote_share"] for part in parts if part["vote_share"] is not None]
    special = {
        **{name: paused[name] for name in ("paused", "paused_at", "paused_before_start")},
        **{name: min(part[name] for part in parts) for name in ("windows_drawn", "windows_settled")},
        "lag": max(part["lag"] for part in parts),
        "vote_share": sum(shares) / len(shares) if shares else None,
    }
    return {name: special[name] if name in special else sum(part[name] for part in parts) for name in parts[0]}


def store_status(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts are added; the disk is full for all when it is for one."""
    rooms = [part["room_for_s"] for part in parts if part["room_for_s"] is not None]
    return {
        **{name: sum(part[name] for part in parts) for name in ("writes", "commits", "forgotten_groups")},
        "free_bytes": min(part["free_bytes"] for part in parts),
        "room_for_s": min(rooms, default=None),
        "full": next((part["full"] for part in parts if part["full"] is not None), None),
    }
