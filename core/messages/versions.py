"""Versions: what was published, what replicas are to reach and have reached, and how a candidate was decided."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from core.messages import Prompt
from core.messages.base import Message
from core.messages.model import BASE, PolicyRef

Pool = Literal["any", "serving", "shadow"]


"""What a replica may load. With LoRA every replica holds every version (`any`). With full weights `serving` replicas
hold the served version only, and `shadow` replicas any one at a time, never for users."""


class Published(Message):
    """A version on disk, whole: `path` holds safetensors and a manifest with the digest of every tensor."""

    ref: PolicyRef
    path: str
    parent: PolicyRef
    window: int
    """The window it was trained on; 0 for the base."""
    fingerprint: str
    """Digest over all tensor digests."""
    stats: dict[str, float] = Field(default_factory=dict)
    """What training reported: loss, steps, examples, tokens, seconds."""


class Slots(Message):
    """The state that every replica is to reach. `base` is version 0, always."""

    epoch: int
    serve: PolicyRef = BASE
    explore: PolicyRef = BASE
    champion: PolicyRef = BASE
    candidate: PolicyRef | None = None
    promoted: tuple[PolicyRef, ...] = (BASE,)
    """Versions that users may ask for by number."""
    loaded: tuple[Published, ...] = ()
    """Every version but the base that a replica must hold, newest last."""


class ReplicaReport(Message):
    """What a replica has proven, sent to the one owner of the versions."""

    replica: str
    pool: Pool = "any"
    epoch: int
    serving: PolicyRef = BASE
    """What it answers users with."""
    proven: tuple[PolicyRef, ...]
    failed: dict[str, str] = Field(default_factory=dict)
    """`policy@vN` -> why its proof failed."""
    counters: dict[str, float] = Field(default_factory=dict)
    """Since the replica started: tokens_user, swaps. Now: users, and of the seats background, background_waiting,
    background_limit."""


class Evidence(Message):
    """Paired greedy outcomes of candidate and champion on the same probes, in the order drawn."""

    candidate: PolicyRef
    champion: PolicyRef
    candidate_hits: tuple[bool, ...]
    champion_hits: tuple[bool, ...]
    certified: bool
    """True when outcomes were judged by answer keys; False when by agreement with anchors."""


class Decision(Message):
    verdict: Literal["promote", "reject", "hold"]
    candidate: PolicyRef
    champion: PolicyRef
    reason: str
    probes: int
    certified: bool
    new_champion: bool = False
    candidate_rate: float = 0.0
    champion_rate: float = 0.0
    saturated: bool = False
    """The champion agreed with as many anchors as are right: held to a fixed floor, see training.gate.gate."""
    by: Literal["gate", "hand", "nobody"] = "gate"
    """`hand`: a person decided. `nobody`: the gate was off."""

    @property
    def standing(self) -> Literal["certified", "guarded", "by hand", "unweighed"]:
        """What a verdict rests on: answer keys, anchors, a person's word, or nothing. Shown wherever it is shown."""
        if self.by != "gate":
            return "by hand" if self.by == "hand" else "unweighed"
        return "certified" if self.certified else "guarded"


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that counts as a hit: a key, or an anchor (the base's frozen majority answer)."""

    prompt: Prompt
    answer: str
