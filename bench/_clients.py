"""Clients of a live run, and what became of each of their requests.

Users never stop asking, not even while the whole run is down. They retry as the OpenAI SDK does by default: two retries
for a failed connection and for status 408, 409, 429 and 5xx, after `Retry-After` or a growing pause. A request ends as

    answered   whole
    cut        it broke after its first token; nothing retries that
    refused    no token came, with all retries: no connection, an error status, or a connection that broke before

Votes and likes are sent again with the same id until they are acknowledged. Some senders lose patience before the
acknowledgement comes, so that many arrive twice.
"""

import asyncio
import itertools
import json
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

from bench._live import LIMIT_S, LiveRun, reporting, whole
from core.errors import RatchetError
from core.store.writer import RunReader

CLIENTS = 6
LIKED = 5
"""Clients like every LIKED-th answer."""
RETRIES = 2
LONGEST_RETRY_AFTER_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
IMPATIENT_RATIO = 0.25
"""Share of votes and likes whose first sender hangs up after 3 ms to 1 s."""
PATIENCE_S = 60.0
TOKENS = 60
BODY = {"model": "policy", "max_tokens": TOKENS}
QUESTION = "Tom has 5 apples. He buys 3 apples. How many apples does Tom have now?"
ROUTES = (
    ("/v1/completions", {**BODY, "prompt": "Tom has 5 apples.\n", "ignore_eos": True}),
    ("/v1/chat/completions", {**BODY, "messages": [{"role": "user", "content": QUESTION}]}),  # a like of it is a vote
)
NOBODY = "none"
"""The victim of requests that ended before the first kill."""


class Answered(NamedTuple):
    """Times are Unix times: of the request, of the first part of the answer, and of its end."""

    asked_at: float
    at: float
    version: int
    ended_at: float


@dataclass(frozen=True)
class Attempt:
    """One HTTP request of a user."""

    end: Literal["answered", "cut", "refused"]
    why: str = ""
    """Why it failed."""
    pause_s: float | None = None
    """Seconds until the SDK would send it again; None: it would not."""
    id: str = ""
    answer: Answered | None = None
    replica: str = ""


@dataclass
class ClientLog:
    """All replies that clients got; saved, so that a restarted drill has them."""

    folder: Path
    votes: set[str] = field(default_factory=set[str])
    """Acknowledged ids, as are those of `feedback`."""
    feedback: set[str] = field(default_factory=set[str])
    outcomes: set[str] = field(default_factory=set[str])
    """Outcomes of explored prompts, read from the run's disk by this process."""
    sent_again: set[str] = field(default_factory=set[str])
    """Votes and likes that were sent more than once."""
    met_twice: set[str] = field(default_factory=set[str])
    """Those of them that the run had already stored when they came again."""
    answers: list[Answered] = field(default_factory=list[Answered])
    ends: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict[str, Counter[str]](Counter))
    """Last victim -> how its users' requests ended (`answered`, `cut`, `refused`), and how many were `retried`."""
    failed: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict[str, Counter[str]](Counter))
    """Last victim -> why attempts failed, those included that a retry made good."""

    SETS = ("votes", "feedback", "outcomes", "sent_again", "met_twice")

    @property
    def requests(self) -> int:
        return sum(self.ended(how) for how in ("answered", "cut", "refused"))

    @property
    def failed_attempts(self) -> Counter[str]:
        return sum(self.failed.values(), Counter[str]())

    def ended(self, how: str) -> int:
        return sum(ends[how] for ends in self.ends.values())

    def add(self, victim: str, attempts: Sequence[Attempt]) -> None:
        """The attempts of one request, of which the last one ended it."""
        last = attempts[-1]
        self.ends[victim].update([last.end, *(["retried"] if len(attempts) > 1 else [])])
        self.failed[victim].update(attempt.why for attempt in attempts if attempt.why)
        if last.answer is not None:
            self.answers.append(last.answer)

    @property
    def _file(self) -> Path:
        return self.folder / "told.json"

    def load(self) -> None:
        if self._file.is_file():
            body = json.loads(self._file.read_text())
            if "met_twice" not in body:
                raise SystemExit(f"{self.folder} is from another version of this drill; choose another --out")
            for name in self.SETS:
                setattr(self, name, set(body[name]))
            self.answers = [Answered(*answer) for answer in body["answers"]]
            for mine, saved in ((self.ends, body["ends"]), (self.failed, body["failed"])):
                mine.update({victim: Counter(counts) for victim, counts in saved.items()})

    def save(self) -> None:
        body = {name: sorted(getattr(self, name)) for name in self.SETS}
        body |= {"answers": self.answers, "ends": self.ends, "failed": self.failed}
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(body))
        aside.replace(self._file)


class Load:
    """Users that send questions without end, half of them as streams, and like every LIKED-th answer; and one client
    that votes on explored prompts."""

    def __init__(self, run: LiveRun, client: httpx.AsyncClient) -> None:
        self._run = run
        self._client = client
        self.log = ClientLog(run.folder)
        self.log.load()
        self.answered_by: set[str] = set()
        """Names of replicas that have answered, so the gateway knows them."""
        self.killed = NOBODY
        """The last victim."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._tasks = {asyncio.create_task(self._ask_forever()) for _ in range(CLIENTS)}
        self._tasks.add(asyncio.create_task(self._vote_forever()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.log.save()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def status(self) -> dict[str, Any] | None:
        try:
            reply = await self._client.get(f"{self._run.url()}/status", timeout=10)
            return reply.json() if reply.is_success else None
        except (httpx.HTTPError, ValueError):
            return None

    def ends_after(self, at: float) -> list[float]:
        """Unix times at which users had whole answers, after this one."""
        return sorted(answer.ended_at for answer in self.log.answers if answer.ended_at > at)

    # --- questions ---

    async def _ask_forever(self) -> None:
        for number in range(10**9):
            await asyncio.sleep(0.05)
            route, body = ROUTES[number // 2 % 2]
            last = await self._ask(route, {**body, "stream": number % 2 == 0})
            if last.end == "answered" and number % LIKED == 0:
                liking = asyncio.create_task(self._like(last.id))  # users ask on while they wait for it
                self._tasks.add(liking)

    async def _ask(self, route: str, body: dict[str, Any]) -> Attempt:
        """The last attempt, after all retries."""
        attempts: list[Attempt] = []
        for retry in range(RETRIES + 1):
            attempts.append(await attempt(self._client, f"{self._run.address}{route}", body, retry))
            pause_s = attempts[-1].pause_s
            if pause_s is None or retry == RETRIES:
                break
            await asyncio.sleep(pause_s)
        self.log.add(self.killed, attempts)
        self.answered_by.update(each.replica for each in attempts if each.end == "answered")
        return attempts[-1]

    # --- votes ---

    async def _like(self, response: str) -> None:
        body = {"id": uuid.uuid4().hex, "response_id": response, "binary": True}
        reply = await self._tell("/v1/feedback", body, [body["id"]])
        if reply is not None:
            results = [each["result"] for each in reply["results"]]
            self.log.feedback.add(body["id"])
            if results != ["kept"]:
                self.log.votes.add(body["id"])
            self._met([body["id"]], results)

    async def _vote_forever(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            prompts = await asyncio.to_thread(self._explored)
            if not prompts:
                continue
            votes = [
                {"id": uuid.uuid4().hex, "prompt_id": prompt, "answer": "7", "by": "person", "voter": f"user-{i % 5}"}
                for i, prompt in enumerate(random.sample(prompts, min(4, len(prompts))))
            ]
            ids = [vote["id"] for vote in votes]
            reply = await self._tell("/admin/vote", {"argument": votes}, ids)
            if reply is not None:
                self.log.votes.update(ids)
                self._met(ids, reply["votes"])

    async def _tell(self, route: str, body: dict[str, Any], ids: Sequence[str]) -> dict[str, Any] | None:
        """Send this until it is acknowledged; returns the acknowledgement. None: it was refused for good, for instance
        because the answer was lost with its replica."""
        for sent in itertools.count():
            impatient = sent == 0 and random.random() < IMPATIENT_RATIO
            if sent > 0:
                self.log.sent_again.update(ids)
            try:
                async with asyncio.timeout(10 ** random.uniform(-2.5, 0) if impatient else PATIENCE_S):
                    reply = await self._client.post(f"{self._run.address}{route}", json=body)
            except (httpx.HTTPError, TimeoutError):
                await asyncio.sleep(pause_s(sent, httpx.Headers()))
                continue
            if reply.is_success:
                return reply.json()
            if not retried(reply):
                return None
            await asyncio.sleep(pause_s(sent, reply.headers))

    def _met(self, ids: Sequence[str], results: Sequence[str]) -> None:
        self.log.met_twice.update(id for id, result in zip(ids, results, strict=True) if result == "duplicate")

    def _explored(self) -> list[str]:
        """Ids of recently explored prompts. Also records their outcomes."""
        try:
            reader = RunReader(self._run.dir)
            with closing(reader):
                lately = list(reader.briefs(after_place=reader.count("outcomes") - 50))
        except RatchetError:  # the run is being created, or was just killed
            return []
        self.log.outcomes.update(str(outcome.place) for outcome in lately)
        return [outcome.prompt_id for outcome in lately if outcome.prompt_id]


async def recovered(load: Load) -> None:
    """Wait until every part answers, and every replica serves the wanted version and has answered a user. Until the
    gateway knows a new replica, the other replica carries all load."""
    deadline = time.monotonic() + LIMIT_S
    while not whole(status := await load.status()) or not reporting(status).keys() <= load.answered_by:
        if time.monotonic() > deadline:
            raise SystemExit(f"no recovery within {LIMIT_S:.0f} s")
        await asyncio.sleep(0.2)


async def attempt(client: httpx.AsyncClient, url: str, body: dict[str, Any], retry: int) -> Attempt:
    """Send one question. `retry`: how often it was sent before, which sets the pause before it is sent again."""
    asked_at, began, replica = time.time(), False, ""
    try:
        async with client.stream("POST", url, json=body) as reply:
            if not reply.is_success:
                pause = pause_s(retry, reply.headers) if retried(reply) else None
                return Attempt("refused", f"status {reply.status_code}", pause)
            replica, version = reply.headers["x-policy-replica"], int(reply.headers["x-policy-version"])
            at, id, finish = time.time(), "", None
            async for event in _events(reply, body["stream"]):
                id = id or event.get("id", "")
                for choice in event.get("choices", ()):
                    began = began or bool(choice.get("text") or (choice.get("delta") or {}).get("content"))
                    finish = choice.get("finish_reason") or finish
    except (httpx.HTTPError, ValueError) as error:
        if began:
            return Attempt("cut", "cut after its first token")
        # the SDK has returned a stream to its caller by then, and retries no more
        gone = replica and body["stream"]
        where = "no token after the headers" if replica else "no connection"
        return Attempt("refused", f"{where}: {type(error).__name__}", None if gone else pause_s(retry, httpx.Headers()))
    if finish != "length":
        return Attempt("cut" if began else "refused", f"the answer ended with {finish}")
    return Attempt("answered", id=id, answer=Answered(asked_at, at, version, time.time()), replica=replica)


async def _events(reply: httpx.Response, stream: bool) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, or the whole body as one."""
    if not stream:
        yield json.loads(await reply.aread())
        return
    async for line in reply.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def retried(reply: httpx.Response) -> bool:
    """Whether the OpenAI SDK sends a request again after this reply."""
    return reply.status_code in (408, 409, 429) or reply.status_code >= 500


def pause_s(retry: int, headers: httpx.Headers) -> float:
    """Seconds that the OpenAI SDK waits before it sends a request again, after `retry` retries."""
    try:
        said = float(headers.get("retry-after", ""))
    except ValueError:
        said = 0.0
    if 0 < said <= LONGEST_RETRY_AFTER_S:
        return said
    return min(FIRST_PAUSE_S * 2.0**retry, LONGEST_PAUSE_S) * (1 - 0.25 * random.random())
