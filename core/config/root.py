"""The whole config of a run, and the checks between its parts."""

from pydantic import model_validator

from core.config.gate import GateConfig, ReportConfig
from core.config.learning import LearningConfig
from core.config.method import MethodConfig, PromptsConfig
from core.config.model import ModelConfig
from core.config.part import Part
from core.config.run import ClusterConfig, CollectConfig, RunConfig
from core.config.serve import ServeConfig


class Config(Part):
    model: ModelConfig = ModelConfig()
    prompts: PromptsConfig = PromptsConfig()
    method: MethodConfig = MethodConfig()
    learning: LearningConfig = LearningConfig()
    gate: GateConfig = GateConfig()
    report: ReportConfig = ReportConfig()
    serve: ServeConfig = ServeConfig()
    collect: CollectConfig = CollectConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _room_for_candidates(self) -> "Config":
        if self.method.sampler.max_tokens >= self.serve.engine.max_tokens:
            raise ValueError(
                f"method.sampler.max_tokens={self.method.sampler.max_tokens} leaves no room for a prompt; "
                f"keep it below serve.engine.max_tokens={self.serve.engine.max_tokens}"
            )
        free = self.serve.engine.max_seqs - self.serve.reserve_seats
        if self.method.sampler.n > free:
            raise ValueError(
                f"method.sampler.n={self.method.sampler.n} does not fit the {free} seats that learning may use; raise "
                f"serve.engine.max_seqs (now {self.serve.engine.max_seqs}) or lower serve.reserve_seats"
            )
        return self
