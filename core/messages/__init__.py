"""The messages that parts of a run exchange and store: frozen data without behavior. Every method meets the rest of the
system in two of them: all sampling gives a `Group` (alternative continuations of one context by one role), and all
learning takes an `Example` (rows of tokens with weights). A Prompt has no field for a reference answer.
"""

from core.messages.base import KINDS, Message
from core.messages.event import Event
from core.messages.learning import (
    Example,
    Lease,
    Outcome,
    Resettle,
    Row,
    Scored,
    Span,
    Verdict,
    Window,
)
from core.messages.model import BASE, Candidate, ChatMessage, Finish, Group, Origin, PolicyRef, Prompt, Sampling
from core.messages.people import Compared, Feedback, Response, Vote
from core.messages.versions import Decision, Evidence, Pool, Published, ReplicaReport, Slots

__all__ = [
    "BASE",
    "KINDS",
    "Candidate",
    "ChatMessage",
    "Compared",
    "Decision",
    "Event",
    "Evidence",
    "Example",
    "Feedback",
    "Finish",
    "Group",
    "Lease",
    "Message",
    "Origin",
    "Outcome",
    "PolicyRef",
    "Pool",
    "Prompt",
    "Published",
    "ReplicaReport",
    "Resettle",
    "Response",
    "Row",
    "Sampling",
    "Scored",
    "Slots",
    "Span",
    "Verdict",
    "Vote",
    "Window",
]
