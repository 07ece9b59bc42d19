"""`ratchet up`: runs the whole system until it is stopped, or until `run.versions` candidates are decided."""

import asyncio
import json
import logging
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import cast

import httpx
import psutil
from rich.console import Console
from rich.markup import escape

from actors.cli import preflight
from actors.cli.progress import Progress, tokens_by_purpose, versions_table
from actors.cli.webhooks import SECRET, Webhooks, secret_of
from actors.inspect import report
from actors.runtime import local_cluster
from actors.runtime.ports import AdminPort, HasStatus, MeasurePort, StorePort
from actors.runtime.statuses import RunStatus
from actors.runtime.supervisor import Supervisor
from actors.storage.run_dir import RunDir
from actors.system import MEASURE_S, RaySystem
from core import gc_tuning
from core.clock import Clock, SystemClock
from core.config import Config
from core.errors import RatchetError
from core.metrics import JsonlSink, Sink, TensorBoardSink, WandbSink
from core.shipped import PROGRAM
from core.store.facts import FinalMeasured
from core.store.records import as_row, event
from core.store.writer import RunReader
from methods.data.samples import Turn, sample_chats
from serve.http import keys_file
from serve.replica.haproxy import free_ports

LOOK_S = 2.0
SIGN_OF_LIFE_S = 60.0
RESTLESS = frozenset({"store.free_bytes", "store.room_for_s"})
"""Values that change although the run does nothing."""
STATUS_S = 10.0
RAY_TRIES = 3
TIMED_OUT = re.compile("tim(ed|e) ?out", re.IGNORECASE)


def up(config: Config, console: Console, address: str | None = None) -> Path:
    """Run until `run.versions` candidates are decided, or forever. Returns the run directory.

    Raises: ConfigError before anything heavy starts; RatchetError with the error that ended the run."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the service outlives its terminal; all its processes inherit this
    if config.serve.port == 0:
        config = config.model_copy(update={"serve": config.serve.model_copy(update={"port": free_ports(1)[0]})})
    gc_tuning.pause()
    with local_cluster.forks(config) if address is None else nullcontext() as print_to:
        run = _opened(config, console, address)
        if print_to is not None:
            print_to(run.path / "logs" / "engines.log")
        try:
            asyncio.run(_run(config, run, console, address))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            run.close()
    return run.path


def _opened(config: Config, console: Console, address: str | None) -> RunDir:
    """Check everything that can be checked early, then open the run directory. Raises: ConfigError; RunInUse."""
    for note in preflight.check(config, joining=address is not None):
        console.print(f"[yellow]note[/] {escape(note)}", markup=True)
    if config.run.dir is not None:
        preflight.check_same_base(config, Path(config.run.dir))
    run = RunDir.open(config)
    _log_to(run.path / "logs" / "driver.log")
    return run


async def _run(config: Config, run: RunDir, console: Console, address: str | None) -> None:
    console.print(f"run directory {run.path}", soft_wrap=True)
    secret = secret_of(os.environ.pop(SECRET, None))
    keys, own = keys_file.read(config.serve.access, os.environ).with_own()
    os.environ.pop(keys_file.ENVIRONMENT, None)  # no child process needs them
    system = RaySystem(config, run.path, address, keys)
    supervisor = Supervisor(system, config.run.start_timeout_s, config.run.stop_timeout_s, config.run.hang_s)
    url = f"http://{config.serve.host}:{config.serve.port}"
    try:
        with console.status("starting Ray, the engine and the trainer"):
            await _connect(supervisor, console)
            _stop_on_signals()
            await supervisor.start()
        first_answer_s, _ = await asyncio.gather(_first_answer(url, config, console, own), supervisor.learn())
        gc_tuning.freeze()
        run.announce(url=url, namespace=system.namespace)
        async with Webhooks(config.run.webhooks, run.path, system.port(StorePort, "store"), secret).telling():
            status = await _until_done(config, run, supervisor, system, url, console)
            if config.run.versions is not None:
                await _finish(config, run, system, console, status, first_answer_s)
    finally:
        with console.status("stopping"):
            await supervisor.stop()


async def _connect(supervisor: Supervisor, console: Console) -> None:
    """Ray has fixed times for its own start, which a busy machine may exceed. Raises: RatchetError."""
    for left in range(RAY_TRIES - 1, -1, -1):
        try:
            return await supervisor.connect()
        except RatchetError as error:
            if not left or not TIMED_OUT.search(str(error)):
                raise
            console.print(f"[yellow]note[/] {escape(str(error))}; trying again", markup=True)


async def _first_answer(url: str, config: Config, console: Console, key: str) -> float:
    """Ask one question over HTTP as a user would. Returns seconds since this process started."""
    settings = {"model": "policy", "temperature": 0, "max_tokens": config.method.sampler.max_tokens}
    chat, reply = list[Turn](), httpx.Response(400)
    try:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers) as client:
            for chat in sample_chats(config):
                reply = await client.post(f"{url}/v1/chat/completions", json={**settings, "messages": chat})
                if reply.status_code != 400:  # else this question is too long for the engine, or refused
                    break
    except httpx.HTTPError as error:
        raise RatchetError(f"{url} did not answer its first question: {error!r}; see the run's logs/") from None
    if not reply.is_success:
        raise RatchetError(f"the service answered {reply.status_code} to its first question: {reply.text[:300]}")
    took_s = time.time() - psutil.Process().create_time()
    console.print(
        f"serving on {url} (OpenAI API, model `policy`; metrics at /metrics), up in {took_s:.0f} s", style="bold"
    )
    question = chat[-1]["content"]
    console.print(f"  asked     {question}" + (f" (after {len(chat) // 2} examples)" if len(chat) > 1 else ""))
    console.print(f"  answered  {reply.json()['choices'][0]['message']['content']}")
    console.print(f"  more      {PROGRAM} ask {json.dumps(question)}")
    return took_s


async def _until_done(
    config: Config, run: RunDir, supervisor: Supervisor, system: RaySystem, url: str, console: Console
) -> RunStatus:
    """Show progress until enough candidates are decided. Raises: the error that ended a part for good."""
    sinks = _sinks(config, run.path)
    flush = WhenChanged()
    failed = asyncio.create_task(supervisor.failed())
    admin = system.port(AdminPort, "admin", deadline_s=STATUS_S)
    names = [name for name in system.parts if name.startswith("collector")]
    collectors = {name: system.port(HasStatus, name, deadline_s=STATUS_S) for name in names}
    try:
        with Progress(run.path, url, console) as progress:
            while True:
                status = await _status(admin, collectors)
                progress.show(status)
                flush(sinks, _snapshot(status))
                decided = status.get("versions", {}).get("decided", 0)
                if config.run.versions is not None and (decided >= config.run.versions or progress.spent(config.run)):
                    progress.show(status)
                    return status
                if config.run.versions is not None:
                    _check_learning(status, config.run.versions, run.path)
                done, _ = await asyncio.wait({failed}, timeout=LOOK_S)
                if done:
                    failed.result()
    finally:
        failed.cancel()
        for sink in sinks:
            sink.close()


def _check_learning(status: RunStatus, versions: int, run_dir: Path) -> None:
    """Raises: RatchetError if learning is paused: in a run with an end, no person is there to resume it."""
    buffer, lineage = status.get("buffer", {}), status.get("versions", {})
    reason, phase = buffer.get("paused"), status.get("trainer", {}).get("phase")
    undecided = any(state in ("published", "proven") for state in lineage.get("states", {}).values())
    starved = buffer.get("paused_itself", False) and phase == "waiting for a window" and not undecided
    if reason is not None and (phase == "paused" or starved):
        decided = lineage.get("decided", 0)
        raise RatchetError(
            f"learning stopped after {decided} of {versions} versions: {reason}; "
            f"fix that, then resume the run with `{PROGRAM} up --dir {run_dir}`, and learning with `{PROGRAM} resume`"
        )


async def _finish(
    config: Config, run: RunDir, system: RaySystem, console: Console, status: RunStatus, first_answer_s: float
) -> None:
    """Measure the base and the served version on `report.final` questions, write the report, print the table."""
    versions = status.get("versions", {})
    wall_s, cpu_s = time.time() - psutil.Process().create_time(), _cpu_s()
    tokens = tokens_by_purpose(status)
    store = system.port(StorePort, "store")
    evaluator = system.port(MeasurePort, "evaluator", deadline_s=MEASURE_S)
    if report.has_questions(config):
        with console.status(f"asking the base and the served version {config.report.final} report questions"):
            served = versions.get("slots", {}).get("serve", 0)
            start, end = await asyncio.gather(
                *(evaluator.measure(version, config.report.final) for version in (0, served))
            )
            ends = [FinalMeasured(**dict(found)).record(at) for at, found in (("start", start), ("end", end))]
            await store.append([*map(as_row, ends)])
    if config.report.other_tasks:
        with console.status("asking them what the run does not learn"):
            for version in (0, versions.get("slots", {}).get("serve", 0)):
                await evaluator.measure_other_tasks(version)
    finished = event(time.time(), "driver", "finished", decided=versions.get("decided", 0))
    await store.append([as_row(finished)])
    timing = {"wall_s": wall_s, "first_answer_s": first_answer_s, "cpu_s": cpu_s}
    explored = status.get("buffer", {}).get("tokens", tokens["explore"])
    body = report.write(run.path, config, timing, explored, tokens["gate"])
    reader = RunReader(run.path)
    rows = report.version_rows(reader)
    reader.close()
    console.print(versions_table(rows))
    if body["accuracy_start"] is not None and body["accuracy_end"] is not None:
        console.print(
            f"accuracy {100 * body['accuracy_start']:.1f}% -> {100 * body['accuracy_end']:.1f}% "
            f"on {body['accuracy_n']} questions, {body['tokens_generated'] / 1e6:.2f}M collector tokens, {wall_s:.0f} s"
        )
    for change in body["other_tasks"]:
        console.print(report.change_sentence(change))
    if (held := report.held_sentence(rows, body)) is not None:
        console.print(held, style="yellow", soft_wrap=True)


def _cpu_s() -> float:
    """CPU-seconds of this process, of those below it, and of their children that ended."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):  # it ended just now
            total += sum(process.cpu_times()[:4])
    return total


async def _status(admin: AdminPort, collectors: Mapping[str, HasStatus]) -> RunStatus:
    try:
        status = dict(await admin.status())
        for name, collector in collectors.items():
            status[name] = await collector.status()
    except RatchetError as error:
        logging.getLogger("ratchet.driver").warning("no status: %s", error)
        return {}
    return cast(RunStatus, status)


def _sinks(config: Config, run_dir: Path) -> list[Sink]:
    """metrics.jsonl always; others as `run.sinks` says."""
    sinks: list[Sink] = [JsonlSink(run_dir / "metrics.jsonl", config.run.retention.metrics_bytes)]
    if "tensorboard" in config.run.sinks:
        sinks.append(TensorBoardSink(run_dir / "tensorboard"))
    if "wandb" in config.run.sinks:
        sinks.append(WandbSink(run_dir, config.model_dump(mode="json")))
    return sinks


class WhenChanged:
    """Sends numbers to the sinks when one has changed, and at least once a minute as a sign of life."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._last: dict[str, float] | None = None
        self._at = 0.0

    def __call__(self, sinks: list[Sink], values: dict[str, float]) -> None:
        now = self._clock.now()
        steady = {name: value for name, value in values.items() if name not in RESTLESS}
        if steady == self._last and now - self._at < SIGN_OF_LIFE_S:
            return
        self._last, self._at = steady, now
        for sink in sinks:
            sink.flush(now, values)


def _snapshot(status: RunStatus) -> dict[str, float]:
    """The status as flat numbers."""
    flat: dict[str, float] = {}
    for part, values in cast(Mapping[str, Mapping[str, object]], status).items():
        flat |= {f"{part}.{name}": v for name, v in values.items() if isinstance(v, int | float)}
    return flat | {f"tokens.{who}": total for who, total in tokens_by_purpose(status).items()}


def _log_to(file: Path) -> None:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.getLogger("ratchet").addHandler(handler)
    logging.getLogger("ratchet").setLevel(logging.INFO)


def _stop_on_signals() -> None:
    """SIGINT and SIGTERM cancel the run, which then stops everything cleanly."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
