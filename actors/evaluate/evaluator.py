"""The evaluator: weighs candidates for the gate, and measures accuracy on report questions with answer keys. The gate
never sees the report."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import cast

from actors.evaluate.anchors import Anchoring
from actors.evaluate.answer_cache import AnswerCache
from actors.evaluate.measuring import measured, sampled
from actors.evaluate.other_tasks import OtherTasks
from actors.runtime.ports import GatePort, MeasurePort, Pairing, Part, StorePort
from actors.runtime.pulse_policy import PulsePolicy
from actors.runtime.statuses import EvaluatorStatus, MonitorsStatus, RatesStatus, WeighingStatus
from core.answers import extractor
from core.clock import Clock, SystemClock
from core.config import Config
from core.errors import ConfigError, PromptError, RatchetError
from core.messages import BASE, Candidate, Decision, PolicyRef
from core.messages.versions import Question
from core.metrics import Metrics
from core.protocols import Policy
from core.store.facts import MONITORS, GateLedger, Measured, Watched
from core.store.records import event
from core.store.writer import RunReader
from methods.data.held_out import UNFINISHED, anchors_of, lacks_anchors, probes_of, report_questions, unanswered
from methods.monitors import Interval, gap_gone
from methods.samplers.iid import sampling_of
from training.gate.gate import Gate
from training.gate.power import too_few
from training.gate.weighing import WatchResult, Weighing, greedy_candidates

CANDIDATE_WAIT_S = 20.0
RETRY_S = 1.0


class Evaluator(Part, MeasurePort):
    def __init__(
        self,
        run_dir: str,
        store: StorePort,
        versions: GatePort,
        config: Config,
        policy: Policy,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._config = config
        self._versions = versions
        self._store = store
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._policy = PulsePolicy(policy, self._clock)
        self._extract = extractor(config.method.answer)
        self._max_tokens = config.method.sampler.max_tokens
        self._probes: list[Question] = []
        self._report: list[Question] = []
        self._others = OtherTasks(config, self._policy, versions, store, metrics, self._clock)
        self._asked: set[PolicyRef] = set()
        self._known = AnswerCache()
        self._watched: Weighing | None = None
        """The weighing of the version promoted last, while its watch runs."""
        self._before: Weighing | None = None
        """The previous watch, until versions confirms the promotion."""
        self._weighing: WeighingStatus | None = None
        self._anchoring: Anchoring | None = None
        """The making of the anchors, while the run lacks them."""
        self._alerted = False
        self._idle_s = 0.0
        self._last: RatesStatus = {}
        self._monitors: MonitorsStatus = {}
        self._gaps: list[Interval] = []
        """Of the versions that were measured since the last start, oldest first."""

    async def start(self) -> None:
        """Read probes, report questions, and the measurements from before a restart."""
        await self._read_probes()
        self._anchoring = await asyncio.to_thread(_anchoring, self._config, self._run_dir)
        self._report = await asyncio.to_thread(report_questions, self._config)
        Random(self._config.run.seed).shuffle(self._report)
        reader = RunReader(self._run_dir)
        self._reported = {int(version) for version in reader.read_all(Measured)}
        await self._others.start(reader)
        self._known.restore(reader, self._probes)
        self._restore_watch(reader)
        reader.close()
        self._metrics.begin("probes_total")

    async def run(self) -> None:
        """Weigh one candidate after the other. A candidate's report runs beside the weighing of the next."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_on(BASE))
            for left in (await self._versions.status())["reporting"]:  # left over from before a restart
                tasks.create_task(self._report_on(PolicyRef(version=left)))
            tasks.create_task(self._others.look())
            await self._make_anchors()
            while True:
                asked = time.monotonic()
                work = await self._versions.next_candidate(0.0 if self._watched else CANDIDATE_WAIT_S)
                self._idle_s += time.monotonic() - asked
                if work is None:
                    await self._watch()
                else:
                    if work.candidate not in self._asked:
                        self._asked.add(work.candidate)
                        tasks.create_task(self._report_on(work.candidate))
                    await self._weigh_or_try_again(work)
                    tasks.create_task(self._others.look())

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """Seconds since its work last made progress; 0 while it has no work."""
        return self._policy.quiet_s

    async def status(self) -> EvaluatorStatus:
        return {
            "weighing": self._weighing,
            "anchors": self._anchoring.status() if self._anchoring else None,
            "idle_s": self._idle_s,
            "watching": self._watched.candidate.version if self._watched else None,
            "probes": len(self._probes),
            "tokens": dict(self._policy.tokens),
            **self._last,
            **self._monitors,
        }

    async def measure(self, version: int, questions: int) -> Measured:
        """Greedy accuracy of a loaded version on the first `questions` report questions, for `ratchet eval` and the
        final report.

        Raises: ConfigError if the run has no report questions."""
        if not self._report:
            raise ConfigError("this run has no report.questions; set it to a file of prompts and answers")
        ref = PolicyRef(version=version)
        asked = self._report[:questions]
        said = await greedy_candidates(self._policy, asked, ref, self._max_tokens, purpose="report")
        return measured(version, asked, said, self._config.method.answer)

    async def measure_other_tasks(self, version: int) -> None:
        """The same on the tasks that the run does not learn, stored as `OtherMeasured`."""
        await self._others.measure(version)

    async def _read_probes(self) -> None:
        self._probes, self._certified = await asyncio.to_thread(probes_of, self._config, self._run_dir)

    async def _make_anchors(self) -> None:
        """If the run lacks its anchors: ask the base for them, until they are made. What cannot be made with these
        held-out prompts is an alert, and all candidates are then held."""
        while self._anchoring is not None:
            try:
                await self._anchoring.ask(self._policy)
                made = await asyncio.to_thread(self._anchoring.write)
                await self._read_probes()
            except ConfigError as error:
                await self._alert(f"there are no anchors, so all candidates will be held: {error}")
            except (RatchetError, OSError) as error:
                await self._note("anchoring_failed", why=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            else:
                few = too_few(self._config.gate, len(self._probes))
                await self._note("anchored", questions=made.questions, anchors=made.anchors, few=few)
            self._anchoring = None

    async def _weigh_or_try_again(self, work: Pairing) -> None:
        """Weigh a candidate. If the policy is away, retry later: only one batch is lost, earlier answers are cached."""
        try:
            await self._weigh(work.candidate, work.champion, work.ledger)
        except (RatchetError, OSError) as error:
            await self._note("weighing_failed", version=work.candidate.version, why=str(error))
            await asyncio.sleep(RETRY_S)
        finally:
            self._weighing = None

    async def _weigh(self, candidate: PolicyRef, champion: PolicyRef, ledger: GateLedger) -> None:
        gate = Gate(self._config.gate, ledger)
        self._weighing = {"candidate": candidate.version, "champion": champion.version}
        await self._note("weighing", version=candidate.version, champion=champion.version)
        order = gate.ledger.weighed
        weighing = self._between(candidate, champion, gate, order)
        decision = await weighing.verdict()
        self._metrics.set("anchor_agreement", decision.candidate_rate, who="candidate")
        self._metrics.set("anchor_agreement", decision.champion_rate, who="champion")
        self._last = {
            "candidate_rate": decision.candidate_rate,
            "champion_rate": decision.champion_rate,
            "saturated": decision.saturated,
        }
        if decision.verdict == "hold" and decision.probes and weighing.sight().least <= self._config.gate.delta:
            await self._alert(f"v{candidate.version} is held, and so will be all others: {decision.reason}")
        to_watch = decision.verdict == "promote" and self._config.gate.enabled and not decision.new_champion
        if to_watch:  # set before the call, in case its answer is lost or a later step fails
            self._before, self._watched = self._before or self._watched, weighing
        watch = Watched(version=candidate.version, order=order) if to_watch else None
        taken = await self._versions.decide(decision, gate.ledger, watch)
        if to_watch and not taken:
            self._watched = self._before
        self._before = None
        if to_watch and taken:
            await self._follow(weighing, await weighing.crown())
        await self._versions.weighed()
        await self._note("weighed", version=candidate.version)
        self._metrics.count("probes_total", len(weighing.evidence.candidate_hits))
        watching = (self._watched.candidate,) if self._watched is not None else ()
        await self._store.append(self._known.keep_only({gate.ledger.champion, champion, BASE, *watching}))

    def _between(self, candidate: PolicyRef, champion: PolicyRef, gate: Gate, order: int) -> Weighing:
        """The weighing of the `order`-th candidate. Its probes have their own order, which training cannot know and
        which is the same after a restart."""
        return Weighing(
            policy=self._policy,
            gate=gate,
            probes=self._probes,
            rng=Random(f"{self._config.run.seed}:{candidate}:{order}"),
            candidate=candidate,
            champion=champion,
            extract=self._extract,
            max_tokens=self._max_tokens,
            certified=self._certified,
            cache=self._known,
            learned=self._keep,
        )

    async def _keep(self, refs: Sequence[PolicyRef]) -> None:
        await self._store.append(self._known.records(refs))

    def _restore_watch(self, reader: RunReader) -> None:
        """Continue the watch of a version that was promoted before a restart, if it had not ended."""
        watched = reader.read(Watched)
        decision = watched and reader.get("decisions", Decision, str(PolicyRef(version=watched.version)))
        if watched is None or decision is None or decision.verdict != "promote" or not self._config.gate.watch_probes:
            return
        gate = Gate(self._config.gate, reader.read(GateLedger) or GateLedger())
        weighing = self._between(decision.candidate, decision.champion, gate, watched.order)
        self._watched = weighing if weighing.take_up(decision) else None

    async def _watch(self) -> None:
        """While no candidate waits: ask the version promoted last one more batch of probes. The watch ends with a new
        champion, a rollback or no finding, or when the version is no longer served or its champion has changed."""
        weighing = self._watched
        if weighing is None:
            return
        status = await self._versions.status()
        version, slots = weighing.candidate.version, status["slots"]
        if status["waiting"] == version or status["states"].get(str(version)) in ("published", "proven"):
            return await asyncio.sleep(RETRY_S)  # it waits for a hold to end, or is weighed again
        if (slots["serve"], slots["champion"]) != (version, weighing.champion.version):
            self._watched, self._before = self._before, None
            if self._watched is not None:
                return
            await self._store.append([Watched.cleared()])
            return
        try:
            await self._follow(weighing, await weighing.watch())
        except (RatchetError, OSError) as error:
            await self._note("watch_failed", version=version, why=str(error))
            await asyncio.sleep(RETRY_S)

    async def _follow(self, weighing: Weighing, seen: WatchResult | None) -> None:
        """Act on the result of the probes since the promotion. None: no result yet, so the watch continues."""
        version = weighing.candidate.version
        if seen is None:
            self._watched = weighing if self._config.gate.watch_probes > 0 else None
            return
        match seen.result:
            case "crowned":
                await self._versions.crown(version, weighing.champion.version, weighing.gate.ledger)
            case "rollback":
                await self._versions.call_back(version, seen.reason)
            case "nothing":
                await self._note("watched", version=version, probes=seen.probes, why=seen.reason)
        self._watched = None  # only now: after a crash before this line the result is reported again
        await self._store.append([Watched.cleared()])

    async def _report_on(self, ref: PolicyRef) -> None:
        """Measure the accuracy of one version once; then replicas may unload it."""
        if self._report and ref.version not in self._reported and self._config.report.per_version > 0:
            try:
                found = await self.measure(ref.version, self._config.report.per_version)
                found = found.model_copy(update=await self._sampled(ref))
            except (RatchetError, OSError) as error:
                await self._note("report_failed", version=ref.version, why=str(error))
                return await self._versions.reported(ref.version)
            self._show(found)
            await self._store.append([found.record(ref.version)])
            await self._note("measured", **found.model_dump(exclude={"hits"}))
            self._reported.add(ref.version)
            await self._warn(found)
        await self._versions.reported(ref.version)

    async def _sampled(self, ref: PolicyRef) -> dict[str, float]:
        """Samples of the first `report.sampled` questions, as the collectors draw them."""
        asked = self._report[: self._config.report.sampled]
        sampling = sampling_of(self._config.method.sampler, purpose="report")

        async def drawn(question: Question) -> list[Candidate]:
            try:
                return await self._policy.generate(question.prompt, sampling, ref)
            except PromptError:
                return []

        samples = await asyncio.gather(*map(drawn, asked))
        return sampled(asked, samples, self._config.method.answer)

    async def _warn(self, found: Measured) -> None:
        """Pause learning when the vote has had nothing to teach for two versions in a row."""
        least = self._config.report.least_gap
        if least is None or found.gap is None or found.gap_low is None or found.gap_high is None:
            return
        self._gaps.append(Interval(found.gap, found.gap_low, found.gap_high))
        if found.version and gap_gone(self._gaps, least):
            await self._versions.pause(
                f"the vote has little to teach: its gap to a sample is at most {found.gap_high:.3f} for "
                f"v{found.version}, and was below report.least_gap={least} before; use harder prompts or another "
                "recipe, or lower it"
            )

    def _show(self, found: Measured) -> None:
        """In the metrics and in the status."""
        self._metrics.set("accuracy_ratio", found.accuracy)
        shown = found.model_dump(include=set(MONITORS), exclude_none=True)
        for name, value in shown.items():
            self._metrics.set(f"report_{name}", value)
        self._monitors = cast(MonitorsStatus, shown)

    async def _alert(self, reason: str) -> None:
        """Once in the life of this process: the next candidates' verdicts say the same."""
        if not self._alerted:
            await self._note("alert", reason=reason)
        self._alerted = True

    async def _note(self, kind: str, **detail: object) -> None:
        await self._store.append([event(self._clock.now(), "evaluator", kind, **detail)])


def _anchoring(config: Config, run_dir: Path) -> Anchoring | None:
    asked, to = unanswered(config), anchors_of(config, run_dir)
    gate = config.gate
    if asked is None or to is None or not gate.enabled or not lacks_anchors(config, run_dir):
        return None
    return Anchoring(asked, config, to, gate.anchor_samples, gate.anchor_share, run_dir / UNFINISHED, anew=True)
