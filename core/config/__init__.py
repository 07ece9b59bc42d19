"""Every setting of a run: strict YAML, dotted overrides, and one readable error for settings that cannot work.

One file per part of the config; each component receives its own part. Defaults are the values that we run on the
embedded model with two cores. Only settings and their checks live here; no code that uses them.
"""

from core.config.gate import GateConfig, GuardsConfig, ReportConfig, SlicesConfig
from core.config.learning import BackoffConfig, LearningConfig, PlateauConfig
from core.config.load import dump, load
from core.config.method import (
    AnswerConfig,
    ChoiceAnswer,
    LiveConfig,
    MathAnswer,
    MethodConfig,
    NumberAnswer,
    PatternAnswer,
    PromptsConfig,
    SamplerConfig,
    SplitByHash,
    TextAnswer,
    VotesConfig,
)
from core.config.model import Full, Lora, ModelConfig
from core.config.part import Part
from core.config.root import Config
from core.config.run import ClusterConfig, CollectConfig, RetentionConfig, RunConfig, WebhooksConfig
from core.config.serve import ORIGIN, AccessConfig, EngineConfig, ModesConfig, ServeConfig

__all__ = [
    "ORIGIN",
    "AccessConfig",
    "AnswerConfig",
    "BackoffConfig",
    "ChoiceAnswer",
    "ClusterConfig",
    "CollectConfig",
    "Config",
    "EngineConfig",
    "Full",
    "GateConfig",
    "GuardsConfig",
    "LearningConfig",
    "LiveConfig",
    "Lora",
    "MathAnswer",
    "MethodConfig",
    "ModelConfig",
    "ModesConfig",
    "NumberAnswer",
    "Part",
    "PatternAnswer",
    "PlateauConfig",
    "PromptsConfig",
    "ReportConfig",
    "RetentionConfig",
    "RunConfig",
    "SamplerConfig",
    "ServeConfig",
    "SlicesConfig",
    "SplitByHash",
    "TextAnswer",
    "VotesConfig",
    "WebhooksConfig",
    "dump",
    "load",
]
