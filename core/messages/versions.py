"""Versions: published files, the slots that replicas must reach, replica reports, and gate decisions."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from core.messages.base import Message
from core.messages.model import BASE, PolicyRef, Prompt

Pool = Literal["any", "serving", "shadow"]
"""The versions that a replica may load. With LoRA every replica holds every version (`any`). With full weights
`serving` replicas hold only the served version; `shadow` replicas hold any one version at a time and never serve users.
"""


class Published(Message):
    """A complete version on disk: `path` holds safetensors and a manifest with the digest of every tensor."""

    ref: PolicyRef
    path: str
    parent: PolicyRef
    window: int
    """The window that it was trained on; 0 for the base."""
    fingerprint: str
    """Digest over all tensor digests."""
    stats: dict[str, float] = Field(default_factory=dict)
    """Reported by training: loss, steps, examples, tokens, seconds."""


class Slots(Message):
    """The target state of every replica: the version in each slot. The base is always version 0."""

    epoch: int
    serve: PolicyRef = BASE
    explore: PolicyRef = BASE
    champion: PolicyRef = BASE
    candidate: PolicyRef | None = None
    promoted: tuple[PolicyRef, ...] = (BASE,)
    """Versions that users may request by number."""
    trial: tuple[PolicyRef, ...] = ()
    """Versions that only admins may request by number: proven, but undecided or held."""
    loaded: tuple[Published, ...] = ()
    """Versions that every replica must hold, without the base, newest last."""


class ReplicaReport(Message):
    """The versions that a replica has loaded and proven, reported to the versions actor."""

    replica: str
    pool: Pool = "any"
    epoch: int
    serving: PolicyRef = BASE
    """The version that answers its users."""
    proven: tuple[PolicyRef, ...]
    failed: dict[str, str] = Field(default_factory=dict)
    """`policy@vN` -> why its proof failed."""
    arrived: dict[str, float] = Field(default_factory=dict)
    """`policy@vN` -> the arrival coefficient of its proof, if that was conclusive: the part of its step from the parent
    that the engine's precision has left. 1: all of it."""
    counters: dict[str, float] = Field(default_factory=dict)
    """Totals since the replica started: tokens_user, swaps. Current values: users, and of its seats background,
    background_waiting, background_limit."""


class Evidence(Message):
    """Paired greedy hits of candidate and champion on the same probes, in the order drawn."""

    candidate: PolicyRef
    champion: PolicyRef
    candidate_hits: tuple[bool, ...]
    champion_hits: tuple[bool, ...]
    certified: bool
    """True if hits were judged by answer keys; False if by agreement with anchors."""
    slices: tuple[str, ...] = ()
    """The slice of each probe, "" for none; empty if no probe has one."""
    held_slices: tuple[str, ...] = ()
    """The slices on which a promoted version may not be worse either."""


class SliceFound(Message):
    """What a weighing found on one slice: a named kind of question."""

    probes: int
    candidate_rate: float
    champion_rate: float
    result: Literal["kept", "worse", "open"]
    """Shown to be at most gate.slices.delta worse than the champion; shown to be more than that worse; neither."""


class Decision(Message):
    """The gate's, or a person's, decision on a candidate."""

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
    """The champion has saturated the anchors, so the candidate had to reach a fixed floor; see training.gate.gate."""
    slices: dict[str, SliceFound] = Field(default_factory=dict)
    """By name, of those that are held."""
    by: Literal["gate", "hand", "nobody"] = "gate"
    """`hand`: a person decided. `nobody`: the gate was off."""

    @property
    def standing(self) -> Literal["certified", "guarded", "by hand", "unweighed"]:
        """The basis of the verdict: answer keys, anchors, a person, or nothing. Shown wherever the verdict is shown."""
        if self.by != "gate":
            return "by hand" if self.by == "hand" else "unweighed"
        return "certified" if self.certified else "guarded"


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that counts as a hit: a key, or an anchor (the base's frozen majority answer)."""

    prompt: Prompt
    answer: str
    slice: str = ""
    """The named kind of question that it belongs to, if any."""
