"""One trainer on several devices: a training session whose weights are sharded over a Ray Train group.

    actors.train.trainer -> TrainGroup -order-> Mailbox <-asks- every worker (training.session, training.learner.fsdp)

Only the trainer draws windows, numbers versions and proposes them. All workers carry out the same order in lock step,
and the first of them writes. When a worker dies, Ray Train restarts the group, which repeats the unfinished order. A
version that is complete on disk by then is used as it is.
"""

import logging
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import ray

from actors.runtime.niceness import give_way
from actors.train.mailbox import Answer, GroupProgress, Mailbox
from core.artifacts import MANIFEST
from core.codec import decode, encode
from core.errors import ConfigError, RatchetError, Unavailable
from core.messages import PolicyRef, Published, Window
from training.session import TrainingSession

if TYPE_CHECKING:  # the module imports torch
    from training.learner.parallel import Parallel

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("ratchet.trainer")

WAIT_S = 5.0
"""Longest wait in one call to `Mailbox`; the caller repeats the call."""
CALL_S = 60.0
"""Time limit for a call to `Mailbox`, beyond `WAIT_S`."""
DEATHS = 10
"""Groups that may fail before the trainer itself is restarted."""
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # else relative paths, such as the model's, would not be found
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}


class TrainGroup:
    """Implements `actors.train.trainer.Session` on `learning.devices` devices. `gpu`: whether they are GPUs."""

    def __init__(self, session: TrainingSession, environment: dict[str, str], gpu: bool) -> None:
        self._session = session
        self._environment = environment
        self._gpu = gpu
        self._ended: BaseException | None = None

    @property
    def run_dir(self) -> Path:
        return self._session.run_dir

    @run_dir.setter
    def run_dir(self, folder: Path) -> None:
        self._session.run_dir = folder

    def open(self) -> Published:
        """Start the group. Raises: errors of the workers' session; Unavailable if the group cannot run; ConfigError if
        its packages are not installed."""
        try:
            import ray.train.torch
        except ImportError as error:
            raise ConfigError(
                f"learning.devices={self._session.learning.devices} needs the extra `cluster` ({error}); install "
                "it, or set learning.devices=1"
            ) from None
        os.environ.update(ENVIRONMENT)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0).remote(self._session.learning.devices)
        self._training = threading.Thread(target=self._fit, name="train-group", daemon=True)
        self._training.start()
        return _made(self._do("open", (), _idle))

    def return_to(self, parent: Published) -> None:
        self._do("return_to", (encode(parent),), _idle)

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        return _made(self._do("make", (encode(window, compress=False), ref, encode(parent), lr_scale), rest))

    def _do(self, name: str, arguments: tuple[object, ...], rest: Callable[[int, int], None]) -> Published | None:
        number = _ask(self._mailbox, Mailbox.place, (name, arguments))
        known = None
        while True:
            progress, answer = _ask(self._mailbox, Mailbox.heard, number, known, WAIT_S)
            if answer is not None:
                published, error = answer
                if error is not None:
                    raise error
                return published
            if not self._training.is_alive():
                raise Unavailable(f"the group of training workers has ended ({self._ended}); see their logs")
            if known is not None and known.group not in ("", progress.group):
                log.warning("a new group of workers takes over and repeats the unfinished order")
            if progress != known:
                _ask(self._mailbox, Mailbox.rested, progress, _stopping(rest, progress))
                known = progress

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        per_worker = {"CPU": 0.1, "GPU": 1} if self._gpu else {"CPU": 0.1}
        try:
            TorchTrainer(
                work,
                train_loop_config={"session": self._session, "mailbox": self._mailbox},
                scaling_config=ScalingConfig(
                    num_workers=self._session.learning.devices,
                    use_gpu=self._gpu,
                    resources_per_worker=per_worker,
                    placement_strategy="PACK",
                ),
                run_config=RunConfig(
                    name="train",
                    storage_path=str(self._session.run_dir.absolute() / "logs"),
                    failure_config=FailureConfig(max_failures=DEATHS),
                    worker_runtime_env={"env_vars": self._environment},
                ),
            ).fit()
        except (Exception, SystemExit) as error:  # `_do` reports it; Ray raises SystemExit in threads at shutdown
            self._ended = error


def work(settings: dict[str, Any]) -> None:
    """The loop of every worker, until its group ends."""
    from ray.train import get_context

    from training.learner.fsdp import Sharded

    give_way()
    parallel, mailbox, rank = Sharded(), settings["mailbox"], get_context().get_world_rank()
    group: str = parallel.by_first(lambda: _ask(mailbox, Mailbox.begin))

    def rest(done: int, steps: int) -> None:
        """All workers wait for the first, and stop with it."""
        stop = parallel.by_first(lambda: _ask(mailbox, Mailbox.step, group, done, steps))
        if stop is not None:
            raise stop

    member = Member(replace(settings["session"], parallel=parallel), parallel, rest)
    member.open()
    number = 0
    while True:
        placed = _ask(mailbox, Mailbox.next, group, number, WAIT_S)
        if placed is not None:
            number, (name, arguments) = placed
            _ask(mailbox, Mailbox.answer, group, number, rank, member.carry_out(name, arguments))


@dataclass
class Member:
    """One worker's session and its state. A RatchetError is returned as an answer, because it occurs in all workers;
    any other error ends the group."""

    session: TrainingSession
    parallel: "Parallel"
    rest: Callable[[int, int], None]
    base: Published | None = None
    at: PolicyRef | None = None

    def open(self) -> None:
        self.base = self.session.open()

    def carry_out(self, name: str, arguments: tuple[object, ...]) -> Answer:
        try:
            return getattr(self, f"_{name}")(*arguments), None
        except RatchetError as error:
            return None, error

    def _open(self) -> Published | None:
        return self.base

    def _return_to(self, parent: bytes) -> None:
        published = decode(Published, parent)
        self.at = None
        self.session.return_to(published)
        self.at = published.ref

    def _make(self, window: bytes, ref: PolicyRef, parent: bytes, lr_scale: float) -> Published:
        from training.versions.publish import read_published, version_dir

        path = version_dir(self.session.run_dir, ref)
        if self.parallel.by_first((path / MANIFEST).is_file):  # written by a group that died before it answered
            published = read_published(path)
            self._return_to(encode(published))
            return published
        if self.at != (before := decode(Published, parent)).ref:
            self._return_to(parent)
        published = self.session.make(decode(Window, window), ref, before, self.rest, lr_scale)
        self.at = ref
        return published


def _idle(done: int, steps: int) -> None: ...


def _stopping(rest: Callable[[int, int], None], progress: GroupProgress) -> RatchetError | None:
    """Rests. Returns the error with which the group has to stop, if any; it comes back as the group's answer."""
    try:
        rest(progress.done, progress.steps)
    except RatchetError as error:
        return error
    return None


def _made(published: Published | None) -> Published:
    assert published is not None, "the order makes a version"
    return published


def _ask(
    mailbox: Any, method: Callable[Concatenate[Mailbox, P], Awaitable[T]], *arguments: P.args, **named: P.kwargs
) -> T:
    """Calls a method of the mailbox's actor. `step` may take as long as users want the processor."""
    timeout_s = None if method is Mailbox.step else WAIT_S + CALL_S
    return ray.get(getattr(mailbox, method.__name__).remote(*arguments, **named), timeout=timeout_s)
