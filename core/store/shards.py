"""A run of several shards: its prompts are divided by their ids, and each part has a buffer, a store and a file of its
own. A run of one shard is the whole."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The part of a run at the places that leave `index` when divided by `of`."""

    index: int = 0
    of: int = 1

    @property
    def file(self) -> str:
        """The first one's is also the run's own book."""
        return f"run-{self.index}.sqlite" if self.index else "run.sqlite"

    @property
    def told(self) -> dict[str, int]:
        """For a line of history; of a whole there is nothing to tell."""
        return {"shard": self.index, "shards": self.of} if self.of > 1 else {}

    def name(self, part: str) -> str:
        """Of the actor that is this part (`store`, `buffer`) of the shard."""
        return f"{part}-{self.index}" if self.index else part

    def places(self, first: int, n: int) -> range:
        """So many of its places, from one of them on."""
        return range(first, first + n * self.of, self.of)

    def share(self, whole: int) -> int:
        """Its part of what the run may have, rounded up."""
        return -(-whole // self.of)


WHOLE = Shard()


def shards_of(n: int) -> list[Shard]:
    return [Shard(index, n) for index in range(n)]


def shard_of(prompt_id: str, shards: int) -> int:
    """Which shard a prompt belongs to, whoever asks and however often."""
    if shards == 1:
        return 0
    digest = hashlib.blake2b(prompt_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards
