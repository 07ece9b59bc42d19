"""Input and output of the model: prompts, sampling parameters, candidates, and groups of candidates."""

from typing import Literal, Self

from pydantic import Field, model_validator

from core.messages.base import Message

Origin = Literal["dataset", "live", "asked", "generated"]
Finish = Literal["stop", "length", "stop_string"]
"""stop: the model ended its answer. stop_string: one of `Sampling.stop` did; the answer may go on."""


class PolicyRef(Message):
    """One version of one adapter. Version 0 is the base model; no number is used twice."""

    adapter: str = "policy"
    version: int = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.adapter}@v{self.version}"

    def __hash__(self) -> int:  # same as pydantic's for a frozen model, but visible to type checkers
        return hash((self.adapter, self.version))

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises: ValueError for anything but `adapter@vN`."""
        adapter, _, version = name.rpartition("@v")
        if not adapter or not (version.isascii() and version.isdecimal()):
            raise ValueError(f"{name!r} does not name a version; expected the form policy@v7")
        return cls(adapter=adapter, version=int(version))


BASE = PolicyRef(version=0)


JUDGE = "judge"
"""Role of a prompt that asks for a judgement of other candidates."""


class ChatMessage(Message):
    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Message):
    """A chat to be answered, without its answer."""

    id: str
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    role: str = "solver"
    origin: Origin = "dataset"
    sampled_ids: bytes = b""
    """Token ids, as sampled, of the chat up to the end of its last assistant message. The engine goes on from them and
    never tokenizes that part again; without a message after it, that answer itself goes on. Empty: the whole chat is
    rendered from its text."""
    root: str = ""
    """Id of the prompt that this chat goes on from; empty for a first question."""

    @model_validator(mode="after")
    def _goes_on_from_an_answer(self) -> "Prompt":
        if self.sampled_ids and not any(message.role == "assistant" for message in self.messages):
            raise ValueError(f"prompt {self.id} goes on from sampled tokens, but its chat has no assistant message")
        return self

    @property
    def new_messages(self) -> tuple[ChatMessage, ...]:
        """The messages after the last one of the assistant."""
        places = [place for place, message in enumerate(self.messages) if message.role == "assistant"]
        return self.messages[places[-1] + 1 :] if places else self.messages


class Sampling(Message):
    """How to draw continuations of one prompt. Temperature 0 is greedy."""

    n: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    logprobs: bool = False
    """Also return the log-probability (nats) of every sampled token, after temperature."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end a continuation; the text keeps the one that did."""
    purpose: Literal["explore", "judge", "gate", "report", "proof"] = "explore"
    """Label of the tokens in the metrics; does not change sampling."""


class Candidate(Message):
    """One continuation. Its token ids are kept as sampled, stop token included, and never tokenized again."""

    id: str
    start: PolicyRef
    end: PolicyRef
    """`start` and `end` made the first and the last token; they differ only after an in-place swap of full weights."""
    context_ids: bytes
    completion_ids: bytes
    text: str
    logprobs: bytes = b""
    finish: Finish
    render_id: str
    """Digest of tokenizer, chat template and its arguments; a trainer with another digest refuses the candidate."""


class Group(Message):
    """Alternative continuations of one context. `parent` is the id of the candidate that the context extends."""

    id: str
    prompt: Prompt
    candidates: tuple[Candidate, ...]
    parent: str | None = None
    by: Literal["sample", "person"] = "sample"
    """The author of the candidates: the policy, or people who corrected it."""
    fixed: bool = False
    """Sampled from a version that the method asked for by name, which does not count as stale."""

    @property
    def policy(self) -> PolicyRef:
        """The oldest version in the group, which determines its staleness."""
        return min((c.start for c in self.candidates), key=lambda ref: ref.version, default=BASE)
