"""How many GPUs each engine and each worker of the trainer requests."""

from core.config import Config, Full
from core.errors import ConfigError


def shares(config: Config, there: float) -> tuple[float, float]:
    """GPUs that one engine and one worker of the trainer request from Ray. `cluster.*_gpus` decide where they are set
    (for nodes that join later), else the number of GPUs that are `there`. Tested without GPUs only.

    Raises: ConfigError when an engine or the trainer needs several GPUs and too few are there."""
    engine, trainer = config.cluster.replica_gpus, config.cluster.trainer_gpus
    if engine is not None and trainer is not None:
        return engine, trainer
    found = _by_count(config, there)
    return found[0] if engine is None else engine, found[1] if trainer is None else trainer


def _by_count(config: Config, there: float) -> tuple[float, float]:
    """Whole GPUs if there are enough, else fractions of one (the engine uses at most `gpu_memory_ratio` of its
    memory)."""
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
            f"GPUs, the cluster has {there:g}; add GPUs, or lower one of the two settings"
        )
    return 0.7, 0.3
