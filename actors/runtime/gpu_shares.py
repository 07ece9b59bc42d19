"""Which GPUs of a cluster go to whom."""

from core.config import Config, Full
from core.errors import ConfigError


def shares(config: Config, there: float) -> tuple[float, float]:
    """What each engine and each worker of the trainer ask of Ray: what `cluster` says, for machines that are yet to
    come; else by what is `there`. Untested on more GPUs than none.

    Raises: ConfigError when engines or a trainer that need several GPUs find too few."""
    engine, trainer = config.cluster.replica_gpus, config.cluster.trainer_gpus
    if engine is not None and trainer is not None:
        return engine, trainer
    found = _by_what_is(config, there)
    return found[0] if engine is None else engine, found[1] if trainer is None else trainer


def _by_what_is(config: Config, there: float) -> tuple[float, float]:
    """Whole GPUs where there are enough, parts of the only one otherwise (the engine takes no more of its memory than
    `gpu_memory_ratio`)."""
    if there == 0:
        return 0, 0
    each, devices = config.serve.engine.tensor_parallel, config.learning.devices
    engines = config.serve.replicas + isinstance(config.model.weights, Full)
    needed = each * engines + devices
    if there >= needed:
        return each, 1
    if each > 1 or devices > 1:
        raise ConfigError(
            f"{engines} engines of serve.engine.tensor_parallel={each} and learning.devices={devices} need {needed} "
            f"GPUs, the cluster has {there:g}; add some, or lower one of them"
        )
    return 0.7, 0.3
