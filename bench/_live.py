"""A run under live load, for drills: its processes, users who ask it, people who vote, and what they were told."""

import argparse
import asyncio
import json
import random
import re
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from core.errors import RatchetError
from core.store.writer import RunReader

REPLICAS = 2
SETTINGS = (
    f"serve.replicas={REPLICAS}",
    "learning.groups_per_window=128",
    "learning.plateau=null",
    "report.questions=null",
    "run.cpu_share=0.8",
)
"""Learning that never rests, and leaves users some of two cores."""
CLIENTS = 6
LIKED = 5
"""Every so-manieth answer that a user gets."""
ID = re.compile(r'"id": ?"([^"]+)"')
LIMIT_S = 180.0
BODY = {"model": "policy", "max_tokens": 60, "ignore_eos": True}
ROUTES = (
    ("/v1/completions", {**BODY, "prompt": "Tom has 5 apples.\n"}),
    ("/v1/chat/completions", {**BODY, "messages": [{"role": "user", "content": "Tom has 5 apples."}]}),
)


def drill_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(out), help="a drill that was stopped goes on from here")
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("--run", type=Path, help="directory of a run that is up, and stays so, in place of an own one")


class LiveRun:
    """`ratchet up` as a child of its own session; started again on the same directory it resumes. With `--run` one that
    somebody else started and will end."""

    def __init__(self, options: argparse.Namespace, settings: Sequence[str] = SETTINGS, *, anew: bool = False) -> None:
        """By `drill_arguments`; with `--quick` in a folder of its own. `anew`: nothing of an earlier run is gone on
        with."""
        self.folder = options.out / "quick" if options.quick else options.out
        if anew:
            self.folder /= f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dir = options.run or self.folder / "run"
        self._others = options.run is not None
        self._first = ["--config", options.config, "--port", "0", "--seed", str(options.seed), *settings]
        self._main: psutil.Process | None = None

    async def up(self) -> None:
        if self._others and self._main is None:
            self._main = psutil.Process(self._announced()["pid"])
            return
        known = (self.dir / "config.yaml").is_file()
        command = [
            sys.executable,
            "-m",
            "actors.cli",
            "up",
            "--dir",
            str(self.dir),
            *([] if known else self._first),
        ]
        with (self.folder / "up.log").open("a") as log:
            self._main = psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)
        await self.until("the run to serve", lambda: self.url() is not None)

    @property
    def _ended(self) -> bool:
        return self._main is None or not self._main.is_running() or self._main.status() == psutil.STATUS_ZOMBIE

    def _announced(self) -> dict[str, Any]:
        live = self.dir / "live.json"
        return json.loads(live.read_text()) if live.is_file() else {}

    def url(self) -> str | None:
        """None while it is not up. Raises: SystemExit when it ended."""
        if self._main is None or self._ended:
            raise SystemExit(f"the run ended; see {self.folder}/up.log")
        body = self._announced()
        return body.get("url") if body.get("pid") == self._main.pid else None

    async def stop(self) -> None:
        if self._main is not None and not self._ended and not self._others:
            self._main.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._main.wait, 90)

    async def kill(self) -> None:
        """Every process at once."""
        for process in self.family():
            try:
                process.kill()
            except psutil.Error:
                continue
        if self._main is not None:
            await asyncio.to_thread(self._main.wait, 30)

    def family(self) -> list[psutil.Process]:
        if self._main is None or self._ended:
            return []
        return [self._main, *self._main.children(recursive=True)]

    def those(self, title: str) -> list[psutil.Process]:
        """By what their command lines say now: Ray renames a worker once it hosts an actor."""
        found: list[psutil.Process] = []
        for process in self.family():
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {LIMIT_S:.0f} s for {what}; see {self.folder}/up.log")
            await asyncio.sleep(0.1)

    async def rest(self, client: httpx.AsyncClient) -> None:
        """Learning is paused, and what collectors and trainer had under way is done, when this returns."""
        (await client.post("/admin/pause", json={"argument": "bench"})).raise_for_status()
        await self.reach(client, "learning to rest", rests)

    async def learn(self, client: httpx.AsyncClient) -> None:
        """Learning goes on, and the trainer has had a window, when this returns."""
        (await client.post("/admin/resume", json={})).raise_for_status()
        await self.reach(client, "a window to train on", lambda s: s.get("buffer", {}).get("windows_drawn", 0) > 0)

    async def reach(
        self, client: httpx.AsyncClient, what: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The first status that is so."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            status = (await client.get("/status")).raise_for_status().json()
            if condition(status):
                return status
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {LIMIT_S:.0f} s for {what}; see {self.folder}/up.log")
            await asyncio.sleep(0.2)


def rests(status: dict[str, Any]) -> bool:
    parts = status.get("buffer", {}), status.get("trainer", {})
    return parts[0].get("outstanding") == 0 and parts[1].get("phase") == "waiting for a window"


class Answered(NamedTuple):
    """Unix times."""

    asked_at: float
    at: float
    version: int


@dataclass
class Told:
    """What clients were told, kept over restarts of a drill."""

    folder: Path
    votes: set[str] = field(default_factory=set[str])
    feedback: set[str] = field(default_factory=set[str])
    outcomes: set[str] = field(default_factory=set[str])
    """Of prompts that were explored, seen on the run's disk by another process."""
    answers: list[Answered] = field(default_factory=list[Answered])
    failed: Counter[str] = field(default_factory=Counter[str])

    @property
    def requests(self) -> int:
        return len(self.answers) + sum(self.failed.values())

    @property
    def _file(self) -> Path:
        return self.folder / "told.json"

    def load(self) -> None:
        if self._file.is_file():
            body = json.loads(self._file.read_text())
            if "outcomes" not in body:
                raise SystemExit(f"{self.folder} was begun by another version of this drill; choose another --out")
            self.votes, self.feedback, self.outcomes = (set(body[name]) for name in ("votes", "feedback", "outcomes"))
            self.answers = [Answered(*answer) for answer in body["answers"]]
            self.failed = Counter(body["failed"])

    def save(self) -> None:
        sets = {"votes": self.votes, "feedback": self.feedback, "outcomes": self.outcomes}
        body = {name: sorted(ids) for name, ids in sets.items()} | {"answers": self.answers, "failed": self.failed}
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(body))
        aside.replace(self._file)


class Load:
    """Users who ask without end, half of them streaming, and like every so-manieth answer; people who vote on what was
    explored. No retries."""

    def __init__(self, run: LiveRun, client: httpx.AsyncClient) -> None:
        self._run = run
        self._client = client
        self.told = Told(run.folder)
        self.told.load()
        self.answered_at: float | None = None
        """The first answer since this was set to None."""
        self.answered_by: set[str] = set()
        """Replicas: who is in here, the gateway knows."""
        self.down = False
        """Nobody asks while the whole run is down on purpose."""
        self.killed = ""
        """The last victim, for those who fail."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._ask_for_ever()) for _ in range(CLIENTS)]
        self._tasks.append(asyncio.create_task(self._vote_for_ever()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.told.save()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def status(self) -> dict[str, Any] | None:
        try:
            reply = await self._client.get(f"{self._run.url()}/status", timeout=10)
            return reply.json() if reply.is_success else None
        except (httpx.HTTPError, ValueError):
            return None

    async def _ask_for_ever(self) -> None:
        for number in range(10**9):
            await asyncio.sleep(0.2 if self.down else 0.05)
            if not self.down:
                route, body = ROUTES[number // 2 % 2]
                id = await self._ask(route, {**body, "stream": number % 2 == 0})
                if id is not None and number % LIKED == 0 and not self.down:
                    await self._like(id)

    async def _ask(self, route: str, body: dict[str, Any]) -> str | None:
        """The answer's id, if there was one."""
        reached, began, asked_at, id = "no headers", False, time.time(), None
        try:
            async with self._client.stream("POST", f"{self._run.url()}{route}", json=body) as reply:
                if not reply.is_success:
                    return await self._fail(f"status {reply.status_code}")
                version, replica = int(reply.headers["x-policy-version"]), reply.headers["x-policy-replica"]
                at, ended = time.time(), not body["stream"]
                reached = "headers and no token"
                async for line in reply.aiter_lines():
                    began = began or bool(line)
                    ended = ended or line.startswith("data: [DONE]")
                    id = id or (found[1] if (found := ID.search(line)) else None)
        except httpx.HTTPError as error:
            return await self._fail("cut off while streaming" if began else f"{reached}: {error!r}")
        if not ended:
            return await self._fail("cut off while streaming")
        self.told.answers.append(Answered(asked_at, at, version))
        self.answered_at = self.answered_at or time.monotonic()
        self.answered_by.add(replica)
        return id

    async def _like(self, response: str) -> None:
        body = {"id": uuid.uuid4().hex, "response_id": response, "binary": True}
        with suppress(httpx.HTTPError):
            reply = await self._client.post(f"{self._run.url()}/v1/feedback", json=body)
            if reply.is_success:
                self.told.feedback.add(body["id"])
                if reply.json()["results"][0]["result"] != "kept":
                    self.told.votes.add(body["id"])

    async def _fail(self, kind: str) -> None:
        if not self.down:
            self.told.failed[f"{kind}, {self.killed} killed" if self.killed else kind] += 1
        await asyncio.sleep(0.1)

    async def _vote_for_ever(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            prompts = await asyncio.to_thread(self._explored)
            if self.down or not prompts:
                continue
            votes = [
                {"id": uuid.uuid4().hex, "prompt_id": prompt, "answer": "7", "by": "person", "voter": f"user-{i % 5}"}
                for i, prompt in enumerate(random.sample(prompts, min(4, len(prompts))))
            ]
            try:
                reply = await self._client.post(f"{self._run.url()}/admin/vote", json={"argument": votes})
            except httpx.HTTPError:
                continue
            if reply.is_success:
                self.told.votes.update(vote["id"] for vote in votes)

    def _explored(self) -> list[str]:
        """Prompts that were explored lately; their outcomes are noted."""
        try:
            reader = RunReader(self._run.dir)
            with closing(reader):
                lately = list(reader.briefs(after_place=reader.count("outcomes") - 50))
        except RatchetError:  # a run that is just being made, or that was just killed
            return []
        self.told.outcomes.update(str(outcome.place) for outcome in lately)
        return [outcome.prompt_id for outcome in lately if outcome.prompt_id]


async def recovered(load: Load) -> None:
    """Every part answers, every replica serves what is to be served, and has answered a user: before the gateway knows
    of a new one, the other stands alone."""
    deadline = time.monotonic() + LIMIT_S
    while not whole(status := await load.status()) or not reporting(status).keys() <= load.answered_by:
        if time.monotonic() > deadline:
            raise SystemExit(f"no recovery within {LIMIT_S:.0f} s")
        await asyncio.sleep(0.2)


def whole(status: dict[str, Any] | None) -> bool:
    if status is None or any("away" in part for part in status.values()):
        return False
    replicas = reporting(status)
    serving = {replica["serving"] for replica in replicas.values()}
    return len(replicas) == REPLICAS and serving == {status["versions"]["slots"]["serve"]}


def reporting(status: dict[str, Any] | None) -> dict[str, Any]:
    """Replicas that live and have reported lately."""
    replicas = (status or {"versions": {"replicas": {}}})["versions"]["replicas"]
    return {name: replica for name, replica in replicas.items() if replica["age_s"] < 6 and lives(name)}


def lives(replica: str) -> bool:
    """Whether the process of the replica of this name, `TAG.PID`, is there: for seconds its last report outlives it."""
    try:
        return psutil.Process(int(replica.rpartition(".")[2])).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
