"""Measures versions on tasks that the run does not learn: whether what they gain on one is lost on others."""

import asyncio

from actors.evaluate.measuring import measured
from actors.inspect.task_changes import changes
from actors.runtime.ports import GatePort, StorePort
from core.clock import Clock
from core.config import Config
from core.errors import RatchetError
from core.messages import PolicyRef
from core.metrics import Metrics
from core.protocols import Policy
from core.store.facts import OtherMeasured
from core.store.records import event
from core.store.writer import RunReader
from methods.data.other_tasks import OtherTask, other_tasks
from training.gate.weighing import greedy_candidates


class OtherTasks:
    def __init__(
        self, config: Config, policy: Policy, versions: GatePort, store: StorePort, metrics: Metrics, clock: Clock
    ) -> None:
        self._config = config
        self._policy = policy
        self._versions = versions
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._tasks: list[OtherTask] = []
        self._found: dict[tuple[int, str], OtherMeasured] = {}
        """By version and task."""
        self._one_at_a_time = asyncio.Lock()

    async def start(self, reader: RunReader) -> None:
        """Read the tasks, and what was measured before a restart. Raises: ConfigError."""
        self._tasks = await asyncio.to_thread(other_tasks, self._config)
        self._found = {(found.version, found.task): found for found in reader.read_all(OtherMeasured).values()}

    async def look(self) -> None:
        """Measure the base and the version that is served now. What cannot be measured now is left out."""
        if not self._tasks:
            return
        version = 0
        try:
            served = (await self._versions.status())["slots"]["serve"]
            for version in (0, served):
                await self.measure(version)
        except (RatchetError, OSError) as error:
            await self._note("report_failed", version=version, why=str(error))

    async def measure(self, version: int) -> None:
        """Measure a loaded version, as far as it was not yet, and store what was found. Raises: the policy's error."""
        async with self._one_at_a_time:
            new = [
                await self._measured(task, version) for task in self._tasks if (version, task.name) not in self._found
            ]
            if new and version:
                await self._note("other_tasks", version=version, tasks=changes([*self._found.values()], version))

    async def _measured(self, task: OtherTask, version: int) -> OtherMeasured:
        ref = PolicyRef(version=version)
        said = await greedy_candidates(self._policy, task.questions, ref, task.max_tokens, purpose="report")
        found = OtherMeasured(**dict(measured(version, task.questions, said, task.answer)), task=task.name)
        await self._store.append([found.record(f"{version}:{task.name}")])
        self._metrics.set("other_task_ratio", found.accuracy, task=task.name)
        self._found[version, task.name] = found
        return found

    async def _note(self, kind: str, **detail: object) -> None:
        await self._store.append([event(self._clock.now(), "evaluator", kind, **detail)])
