"""`core.protocols.Policy` over a Serve handle. All other parts use it to call the model."""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from core.codec import decode, decode_batch, encode, encode_batch
from core.errors import Overdue, PromptError, Unavailable, VersionError
from core.messages import Candidate, PolicyRef, Prompt, Sampling

RETRIED = (VersionError, Unavailable, RayActorError, DeploymentUnavailableError, BackPressureError)
GATHER_S = 0.005
BATCH_SAMPLES = 64
"""The number of sequences that an engine decodes at once by default. A batch returns when its last sample is done."""


class Batch:
    """Prompts that are sent in one call."""

    sent: "asyncio.Task[list[bytes | PromptError]]"

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.full = asyncio.Event()
        self.waiting = 0


class ServedPolicy:
    """Generates and scores on the replica that Serve picks. A call is retried for `patience_s` when its replica is away
    or has not loaded the version yet."""

    def __init__(self, handle: DeploymentHandle, patience_s: float = 60.0) -> None:
        self._handle = handle
        self._patience_s = patience_s
        self.tokens: Counter[str] = Counter()
        """Generated through this object, by purpose."""
        self._gathering: dict[tuple[Sampling, PolicyRef | None], Batch] = {}

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        reply = await self._together(prompt, sampling, ref)
        candidates = decode_batch(Candidate, reply)
        self.tokens[sampling.purpose] += sum(len(c.completion_ids) // 4 for c in candidates)
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        return await self._call("logprobs", encode(prompt), text, str(ref) if ref else None)

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return decode(Candidate, await self._call("render", encode(prompt), text))

    async def _together(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None) -> bytes:
        """Send prompts that arrive within GATHER_S in one call: a call through Ray costs as much as a short answer."""
        kind = (sampling, ref)
        batch = self._gathering.get(kind)
        if batch is None:
            batch = self._gathering[kind] = Batch()
            batch.sent = asyncio.create_task(self._send(kind, batch))
        place = len(batch.prompts)
        batch.prompts.append(prompt)
        if (place + 1) * sampling.n >= BATCH_SAMPLES:
            batch.full.set()
            del self._gathering[kind]
        batch.waiting += 1
        try:
            reply = (await asyncio.shield(batch.sent))[place]
        finally:
            batch.waiting -= 1
            if not batch.waiting and not batch.sent.done():
                batch.sent.cancel()  # all its callers were cancelled
        if isinstance(reply, PromptError):
            raise reply
        return reply

    async def _send(self, kind: tuple[Sampling, PolicyRef | None], batch: "Batch") -> list[bytes | PromptError]:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(batch.full.wait(), GATHER_S)
        if self._gathering.get(kind) is batch:
            del self._gathering[kind]
        sampling, ref = kind
        return await self._call("generate", encode_batch(batch.prompts), encode(sampling), str(ref) if ref else None)

    async def _call(self, method: str, *arguments: object) -> Any:
        """No time limit on an answer. `patience_s` bounds the retries of refused calls only."""
        stop_at = time.monotonic() + self._patience_s
        delay_s = 0.05
        while True:
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except RETRIED as error:
                if time.monotonic() > stop_at:
                    raise Overdue(
                        f"no replica answered {method} within {self._patience_s:.0f} s; last: {error}"
                    ) from None
            except OSError as error:
                raise Unavailable(f"the policy service is out of reach: {error}") from None
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 2.0)
