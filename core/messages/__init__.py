"""The messages that parts of the system exchange and store. Two narrow waists separate methods from all other parts:

    upstream, all data is a `Group`:        alternative continuations of one context by one role, from one version
    downstream, all data is an `Example`:   Imitate | Prefer | Reinforce

Messages are frozen and refuse unknown fields. Token ids and log-probabilities travel as packed little-endian bytes
(`core.codec`), never as lists. **Prompt has no field for a reference answer**: answer keys reach only the evaluator's
report, so the constructors show that learning is label-free. Only data lives here; no code that acts on it.
"""

from core.messages.base import KINDS, Message
from core.messages.event import Event
from core.messages.learning import (
    Example,
    Imitate,
    Lease,
    Outcome,
    Prefer,
    Reinforce,
    Resettle,
    Scored,
    Verdict,
    Window,
)
from core.messages.model import BASE, Candidate, ChatMessage, Finish, Group, Origin, PolicyRef, Prompt, Sampling
from core.messages.people import Feedback, Response, Vote
from core.messages.versions import Decision, Evidence, Pool, Published, ReplicaReport, Slots

__all__ = [
    "BASE",
    "KINDS",
    "Candidate",
    "ChatMessage",
    "Decision",
    "Event",
    "Evidence",
    "Example",
    "Feedback",
    "Finish",
    "Group",
    "Imitate",
    "Lease",
    "Message",
    "Origin",
    "Outcome",
    "PolicyRef",
    "Pool",
    "Prefer",
    "Prompt",
    "Published",
    "Reinforce",
    "ReplicaReport",
    "Resettle",
    "Response",
    "Sampling",
    "Scored",
    "Slots",
    "Verdict",
    "Vote",
    "Window",
]
