"""The values that a method's tuner has set: handed out with leases, and decided anew at each draw."""

import math
from collections import defaultdict
from collections.abc import Iterable

from core.config import MethodConfig
from core.errors import ConfigError
from core.protocols import Facts, Tuned
from core.store.facts import TunedFact
from methods import recipes
from training.replay.replay import Explored


class Tuning:
    def __init__(self, config: MethodConfig | None) -> None:
        """None: nothing is tuned."""
        self._method = None if config is None else recipes.build(config)
        self.values: Tuned = {} if self._method is None else dict(self._method.tuned)

    def restore(self, found: TunedFact | None) -> None:
        if found is not None and found.values.keys() == self.values.keys():
            self.values = found.values

    def decide(self, window: int, new: Iterable[Explored]) -> TunedFact | None:
        """Tune by the prompts that are new in a window; None if the method has no tuner.

        Raises: ConfigError for values outside the method's bounds; the old ones stay."""
        method = self._method
        if method is None or method.tune is None:
            return None
        values = dict(method.tune(facts(window, list(new), self.values)))
        for name, value in values.items():
            low, high = method.bounds.get(name, (-math.inf, math.inf))
            if not low <= value <= high:
                raise ConfigError(
                    f"the tuner of {method.name} set {name}={value:g} after window {window}, expected {low:g} to "
                    f"{high:g}; {name} stays {self.values.get(name, math.nan):g}"
                )
        self.values = values
        return TunedFact(window=window, values=values)


def facts(window: int, new: list[Explored], tuned: Tuned) -> Facts:
    measured: defaultdict[str, list[float]] = defaultdict(list)
    for explored in new:
        for name, value in explored.measured.items():
            measured[name].append(value)
    return Facts(
        window=window,
        prompts=len(new),
        kept=sum(bool(explored.examples) for explored in new),
        measured={name: (math.fsum(values) / len(values), len(values)) for name, values in measured.items()},
        tuned=tuned,
    )
