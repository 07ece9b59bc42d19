"""The feedback actor: records the answers that users get, and turns feedback on them into votes.

Feedback is acknowledged once it and its votes are on disk. Sending it again changes nothing, because feedback and votes
have ids. The buffer decides what to learn from votes.
"""

import asyncio
import logging
import random
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

from actors.replay.erasure import asker, is_of
from actors.runtime.ports import BallotPort, FeedbackPort, Part, StorePort
from actors.runtime.statuses import FeedbackStatus
from core.aio import Batcher
from core.answers import extractor
from core.clock import Clock, SystemClock
from core.config import Config
from core.errors import ArtifactError, Missing, PromptError, RatchetError
from core.messages import Compared, Feedback, Response, Vote
from core.metrics import Metrics
from core.redact import redacted, redactor
from core.store.records import Record, as_row, message
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from serve.http.feedback import LATE_S, Results, Submission

log = logging.getLogger("ratchet.feedback")
REMEMBERED = 4096
"""Newest responses that are kept in memory."""
ASK_AGAIN_S = 60.0
"""A prompt is queued for exploration at most once in this time, however many people vote on it."""
PAGE = 256
MOST_COMPARED = 2**16
"""Characters of a text, as in `Compared`."""


class FeedbackDesk(Part, FeedbackPort):
    def __init__(
        self,
        run_dir: str,
        store: StorePort,
        ballot: BallotPort,
        config: Config,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._store = store
        self._ballot = ballot
        self._votes = config.method.votes
        self._live = config.prompts.live
        self._redact = redactor(config.prompts.live.redact)
        self._extract = extractor(config.method.answer)
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._recent: OrderedDict[str, Response] = OrderedDict()
        self._came = asyncio.Condition()
        self._kept = Batcher(self._keep)
        self._asked: OrderedDict[str, float] = OrderedDict()
        """Prompt -> when it was last queued for exploration."""
        self._chance = random.Random()

    async def start(self) -> None:
        self._metrics.begin("responses_total", "feedback_total")

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """0: the answer itself shows that the event loop runs."""
        return 0.0

    async def status(self) -> FeedbackStatus:
        return {"responses": len(self._recent)}

    # --- answers ---

    async def answered(self, bodies: Sequence[Mapping[str, object]]) -> None:
        """Record answers that users got: fields of a Response, with `messages` in place of its prompt."""
        responses, records = list[Response](), list[Record]()
        for body in bodies:
            try:
                response = self._response(body)
                records.append(message("responses", response.id, _prompt_id(response), response))
            except ValueError as error:  # an invalid answer must not block the others
                log.error("an answer was not recorded: %s", error)
                continue
            responses.append(response)
        await self._store.append(records)
        self._metrics.count("responses_total", len(responses))
        for response in responses:
            self._recent[response.id] = response
            while len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
        async with self._came:
            self._came.notify_all()
        await self._learn_from(responses)

    def _response(self, body: Mapping[str, object]) -> Response:
        fields = dict[str, object](body)
        messages = redacted(fields.pop("messages"), self._redact)
        fields["texts"] = [self._redact(text) for text in cast(Sequence[str], fields["texts"])]
        try:
            prompt = as_prompt(messages, origin="asked") if messages is not None else None
        except PromptError:  # tools or pictures: a text model cannot learn from them
            prompt = None
        return Response.model_validate({**fields, "prompt": prompt, "at": fields.get("at") or self._clock.now()})

    async def _learn_from(self, responses: Sequence[Response]) -> None:
        """Queue a sample of the traffic for exploration, if that is turned on and the client has not opted out."""
        if not self._live.ratio:
            return
        drawn = [r.prompt for r in responses if r.learn and r.prompt and self._chance.random() < self._live.ratio]
        if drawn:
            live = [prompt.model_copy(update={"origin": "live"}) for prompt in drawn]
            await self._ballot.ask(live)

    # --- feedback ---

    async def feedback(self, requests: Sequence[Submission], wait_s: float = LATE_S) -> list[Results | RatchetError]:
        """Accept feedback; it is on disk when this returns. Each request succeeds or fails as a whole. Returns a result
        for each feedback, as `BallotPort.vote` does, or `kept` if it casts no vote; or the error of its request:
        Missing if the response does not exist or belongs to another key, ArtifactError if the response has no such
        choice. Waits up to `wait_s` for responses that have not arrived yet."""
        now = self._clock.now()
        said = [[_feedback(body, key, now) for body in bodies] for bodies, key, _ in requests]
        about = await self._responses([each for one in said for each in one], wait_s)
        refused = [_refusal(one, about, key, admin) for one, (_, key, admin) in zip(said, requests, strict=True)]
        taken = [each for one, why in zip(said, refused, strict=True) if why is None for each in one]
        cast = [self._vote(each, about) for each in taken]
        votes = [vote for vote in cast if vote is not None]
        results = await self._kept((taken, votes)) if taken else []
        await self._explore([about[each.response_id] for each in taken], votes, results)
        self._metrics.count("feedback_total", len(taken))
        counted = iter(results)
        given = iter(["kept" if vote is None else next(counted) for vote in cast])
        return [
            why or [{"id": _own_id(each), "result": next(given)} for each in one]
            for one, why in zip(said, refused, strict=True)
        ]

    async def _keep(self, said: Sequence[tuple[Sequence[Feedback], Sequence[Vote]]]) -> list[list[str]]:
        """Write everything that arrived during the last write in one transaction; returns the results of each request's
        votes once it is on disk."""
        records = [message("feedback", each.id, each.key, each) for taken, _ in said for each in taken]
        votes = [vote for _, cast in said for vote in cast]
        results = iter(list[str]())
        if votes:
            results = iter(await self._ballot.vote(votes, [*map(as_row, records)]))
        elif records:
            await self._store.append(records)
        return [[next(results) for _ in cast] for _, cast in said]

    async def page(self, key: str, after: int, limit: int) -> dict[str, object]:
        """A key's own feedback, oldest first; `next` is the `after` of the next page, or None."""

        def read() -> list[tuple[int, Feedback]]:
            with closing(RunReader(self._run_dir)) as reader:
                return reader.page("feedback", Feedback, key, after, min(limit, PAGE))

        rows = await asyncio.to_thread(read)
        data = [feedback.model_dump(mode="json", exclude={"key"}, exclude_none=True) for _, feedback in rows]
        for each, (_, feedback) in zip(data, rows, strict=True):
            each["id"] = _own_id(feedback)
        return {"data": data, "next": rows[-1][0] if len(rows) == min(limit, PAGE) else None}

    async def forget(self, name: str) -> None:
        """Drop the answers to a voter, or to a key with all its users, from memory. The buffer removes them from the
        store."""
        for response in [r for r in self._recent.values() if is_of(asker(r), name)]:
            del self._recent[response.id]

    async def _responses(self, said: Sequence[Feedback], wait_s: float) -> dict[str, Response]:
        """The responses that this feedback refers to. Waits for responses that have not arrived yet."""
        wanted = {each.response_id for each in said} | {each.better_than[0] for each in said if each.better_than}
        found: dict[str, Response] = {}
        deadline = self._clock.monotonic() + wait_s
        while wanted - found.keys():
            found |= {id: self._recent[id] for id in wanted - found.keys() if id in self._recent}
            if missing := wanted - found.keys():
                found |= await asyncio.to_thread(self._stored, missing)
            left = deadline - self._clock.monotonic()
            if not wanted - found.keys() or left <= 0:
                break
            async with self._came:
                try:
                    await asyncio.wait_for(self._came.wait(), left)
                except TimeoutError:
                    break
        return found

    def _stored(self, ids: set[str]) -> dict[str, Response]:
        with closing(RunReader(self._run_dir)) as reader:
            found = {id: reader.get("responses", Response, id) for id in ids}
        return {id: response for id, response in found.items() if response is not None}

    def _vote(self, feedback: Feedback, about: Mapping[str, Response]) -> Vote | None:
        """The vote that the feedback casts: for or against an answer, or a text to imitate. A comparison is a vote for
        the better response, and keeps both texts. If no answer can be read from the text, a liked text becomes one to
        imitate, and a disliked text casts no vote. Nor does a text that was cut off or forced, which is not the model's
        answer."""
        response = about[feedback.response_id]
        if feedback.correction is not None:
            return _cast(feedback, response, correction=feedback.correction)
        if (feedback.binary is None and feedback.better_than is None) or feedback.choice in response.fragments:
            return None
        weight, text = -1.0 if feedback.binary is False else 1.0, response.texts[feedback.choice]
        answer, pair = self._extract(text), _pair(feedback, about)
        if answer is not None:
            return _cast(feedback, response, answer=answer, weight=weight, pair=pair)
        return _cast(feedback, response, correction=text, pair=pair) if weight > 0 and text.strip() else None

    async def _explore(self, responses: Sequence[Response], votes: Sequence[Vote], results: Sequence[str]) -> None:
        """Queue prompts with votes that were never explored."""
        if not self._votes.explore:
            return
        waiting = {vote.prompt_id for vote, result in zip(votes, results, strict=True) if result == "waiting"}
        prompts = {r.prompt.id: r.prompt for r in responses if r.prompt and r.prompt.id in waiting and r.learn}
        new = [prompt for id, prompt in prompts.items() if self._may_ask(id)]
        if new:
            await self._ballot.ask(new)
            now = self._clock.monotonic()
            for prompt in new:
                self._asked[prompt.id] = now
                self._asked.move_to_end(prompt.id)
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)

    def _may_ask(self, prompt_id: str) -> bool:
        """Whether the last request for this prompt is long enough ago. Since then the buffer has queued or explored the
        prompt, or had no room."""
        asked_at = self._asked.get(prompt_id)
        return asked_at is None or self._clock.monotonic() - asked_at >= ASK_AGAIN_S


def _prompt_id(response: Response) -> str:
    return response.prompt.id if response.prompt is not None else ""


def _pair(feedback: Feedback, about: Mapping[str, Response]) -> tuple[Compared, Compared] | None:
    """The two texts that were compared, if one can be learned above the other: different whole texts of one prompt."""
    if feedback.better_than is None:
        return None
    better, (id, choice) = about[feedback.response_id], feedback.better_than
    worse, texts = about[id], (better.texts[feedback.choice], about[id].texts[choice])
    if better.prompt != worse.prompt or choice in worse.fragments or texts[0] == texts[1]:
        return None
    if max(map(len, texts)) > MOST_COMPARED:
        return None
    return Compared(text=texts[0], by=better.start), Compared(text=texts[1], by=worse.start)


def _cast(feedback: Feedback, response: Response, **content: object) -> Vote | None:
    if response.prompt is None:
        return None
    about = {"id": feedback.id, "prompt_id": response.prompt.id, "by": "person", "voter": feedback.voter}
    return Vote.model_validate({**about, "response_id": response.id, **content})


def _feedback(body: Mapping[str, object], key: str, at: float) -> Feedback:
    """Prefix the id with the key's name, so that ids of different keys cannot collide."""
    id = body.get("id") or uuid.uuid4().hex
    return Feedback.model_validate({**body, "id": f"{key}/{id}" if key else id, "key": key, "at": at})


def _own_id(feedback: Feedback) -> str:
    """The id that the client gave."""
    return feedback.id.removeprefix(f"{feedback.key}/") if feedback.key else feedback.id


def _refusal(said: Sequence[Feedback], about: Mapping[str, Response], key: str, admin: bool) -> RatchetError | None:
    for each in said:
        for id, choice in ((each.response_id, each.choice), *((each.better_than,) if each.better_than else ())):
            if id not in about or (about[id].key != key and not admin):
                return Missing(f"this key has no response {id!r}; give the `id` of an answer that this key received")
            if choice >= len(about[id].texts):
                return ArtifactError(
                    f"choice={choice} of {id}, which has {len(about[id].texts)} choices; choices count from 0"
                )
    return None
