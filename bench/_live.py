"""A run under live load, for drills: its processes, clients that send questions and votes, and the replies they got."""

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
"""Learning never pauses, and leaves a part of two cores to users."""
CLIENTS = 6
LIKED = 5
"""Clients like every LIKED-th answer."""
ID = re.compile(r'"id": ?"([^"]+)"')
LIMIT_S = 180.0
BODY = {"model": "policy", "max_tokens": 60, "ignore_eos": True}
ROUTES = (
    ("/v1/completions", {**BODY, "prompt": "Tom has 5 apples.\n"}),
    ("/v1/chat/completions", {**BODY, "messages": [{"role": "user", "content": "Tom has 5 apples."}]}),
)


def drill_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder; an interrupted drill resumes")
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("--run", type=Path, help="directory of a running run to use; the drill does not stop it")


class LiveRun:
    """`ratchet up` as a child process in a session of its own. Started again on the same directory, it resumes. With
    `--run` the drill uses a run that it neither starts nor stops."""

    def __init__(self, options: argparse.Namespace, settings: Sequence[str] = SETTINGS, *, anew: bool = False) -> None:
        """`options`: those of `drill_arguments`; `--quick` uses a separate folder. `anew`: never resume a run."""
        self.folder = options.out / "quick" if options.quick else options.out
        if anew:
            self.folder /= f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dir = options.run or self.folder / "run"
        self._external = options.run is not None
        self._first = ["--config", options.config, "--port", "0", "--seed", str(options.seed), *settings]
        self._main: psutil.Process | None = None

    async def up(self) -> None:
        if self._external and self._main is None:
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
        """The run's URL; None until it is up. Raises: SystemExit when it ended."""
        if self._main is None or self._ended:
            raise SystemExit(f"the run ended; see {self.folder}/up.log")
        body = self._announced()
        return body.get("url") if body.get("pid") == self._main.pid else None

    async def stop(self) -> None:
        if self._main is not None and not self._ended and not self._external:
            self._main.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._main.wait, 90)

    async def kill(self) -> None:
        """SIGKILL for all processes at once."""
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

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes whose command line begins with `title`. Ray renames a worker when it hosts an actor."""
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
        """Pause learning, and wait until collectors and trainer have finished their current work."""
        (await client.post("/admin/pause", json={"argument": "bench"})).raise_for_status()
        await self.reach(client, "learning to rest", rests)

    async def learn(self, client: httpx.AsyncClient) -> None:
        """Resume learning, and wait until the trainer has drawn a window."""
        (await client.post("/admin/resume", json={})).raise_for_status()
        await self.reach(client, "a window to train on", lambda s: s.get("buffer", {}).get("windows_drawn", 0) > 0)

    async def reach(
        self, client: httpx.AsyncClient, what: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The first status that meets the condition. Raises: SystemExit after LIMIT_S."""
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
    """Times are Unix times."""

    asked_at: float
    at: float
    version: int


@dataclass
class ClientLog:
    """All replies that clients got; saved, so that a restarted drill has them."""

    folder: Path
    votes: set[str] = field(default_factory=set[str])
    feedback: set[str] = field(default_factory=set[str])
    outcomes: set[str] = field(default_factory=set[str])
    """Outcomes of explored prompts, read from the run's disk by this process."""
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
                raise SystemExit(f"{self.folder} is from another version of this drill; choose another --out")
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
    """Clients that send questions without end, half of them as streams, and like every LIKED-th answer; and one client
    that votes on explored prompts. No request is retried."""

    def __init__(self, run: LiveRun, client: httpx.AsyncClient) -> None:
        self._run = run
        self._client = client
        self.log = ClientLog(run.folder)
        self.log.load()
        self.answered_at: float | None = None
        """Time of the first answer after this was set to None."""
        self.answered_by: set[str] = set()
        """Names of replicas that have answered, so the gateway knows them."""
        self.down = False
        """Set while the drill keeps the whole run down; clients then send nothing."""
        self.killed = ""
        """The last victim, for the record of failed requests."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._ask_forever()) for _ in range(CLIENTS)]
        self._tasks.append(asyncio.create_task(self._vote_forever()))

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

    async def _ask_forever(self) -> None:
        for number in range(10**9):
            await asyncio.sleep(0.2 if self.down else 0.05)
            if not self.down:
                route, body = ROUTES[number // 2 % 2]
                id = await self._ask(route, {**body, "stream": number % 2 == 0})
                if id is not None and number % LIKED == 0 and not self.down:
                    await self._like(id)

    async def _ask(self, route: str, body: dict[str, Any]) -> str | None:
        """The answer's id, or None for a failed request."""
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
        self.log.answers.append(Answered(asked_at, at, version))
        self.answered_at = self.answered_at or time.monotonic()
        self.answered_by.add(replica)
        return id

    async def _like(self, response: str) -> None:
        body = {"id": uuid.uuid4().hex, "response_id": response, "binary": True}
        with suppress(httpx.HTTPError):
            reply = await self._client.post(f"{self._run.url()}/v1/feedback", json=body)
            if reply.is_success:
                self.log.feedback.add(body["id"])
                if reply.json()["results"][0]["result"] != "kept":
                    self.log.votes.add(body["id"])

    async def _fail(self, kind: str) -> None:
        if not self.down:
            self.log.failed[f"{kind}, {self.killed} killed" if self.killed else kind] += 1
        await asyncio.sleep(0.1)

    async def _vote_forever(self) -> None:
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
                self.log.votes.update(vote["id"] for vote in votes)

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


def whole(status: dict[str, Any] | None) -> bool:
    if status is None or any("away" in part for part in status.values()):
        return False
    replicas = reporting(status)
    serving = {replica["serving"] for replica in replicas.values()}
    return len(replicas) == REPLICAS and serving == {status["versions"]["slots"]["serve"]}


def reporting(status: dict[str, Any] | None) -> dict[str, Any]:
    """Replicas that are alive and have a recent report."""
    replicas = (status or {"versions": {"replicas": {}}})["versions"]["replicas"]
    return {name: replica for name, replica in replicas.items() if replica["age_s"] < 6 and is_alive(name)}


def is_alive(replica: str) -> bool:
    """Whether the process of the replica `TAG.PID` exists. The last report of a dead replica stays for seconds."""
    try:
        return psutil.Process(int(replica.rpartition(".")[2])).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
