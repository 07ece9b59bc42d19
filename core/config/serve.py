"""Settings of serving: the engine, access limits, replicas."""

import re

from pydantic import Field, model_validator

from core.config.part import Part

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*A-Z]+")


class EngineConfig(Part):
    max_seqs: int = Field(default=64, ge=2)
    """Seats: sequences decoded at once."""
    max_tokens: int = Field(default=512, ge=16)
    """Limit on prompt and answer together."""
    kv_cache_bytes: int | None = Field(default=2**28, ge=2**20)
    """None: vLLM takes the memory it finds (on a GPU: `gpu_memory_ratio`)."""
    gpu_memory_ratio: float = Field(default=0.6, gt=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of one engine."""
    tensor_parallel: int = Field(default=1, ge=1)
    tool_parser: str | None = None
    """vLLM's name of the model's tool-call format (`hermes`, `llama3_json` ...). None: requests for tool calls
    are refused."""


class AccessConfig(Part):
    """API keys, request limits and allowed origins of the HTTP service."""

    keys: str | None = None
    """File of API keys, made by `ratchet keys`. With None, and without RATCHET_KEYS in the environment, every client is
    an admin, and `serve.host` must be a loopback address."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    max_n: int = Field(default=16, ge=1)
    """Maximum number of answers per request: `n` (or `best_of`) times its prompts."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens per answer, and the default of a chat request without a limit. None: the room in the engine."""
    max_queue: int = Field(default=512, ge=1)
    """Maximum number of user requests in one replica, running or waiting; further ones get status 429."""
    retry_after_s: int = Field(default=1, ge=1)
    """Seconds in the `Retry-After` header of such a response."""
    allow_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the service from a browser: `https://app.example.org`. Others are refused."""

    @model_validator(mode="after")
    def _origins(self) -> "AccessConfig":
        for origin in self.allow_origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; expected scheme and host in lower case, no path, no `*`, "
                    "as https://app.example.org"
                )
        return self


class ModesConfig(Part):
    """Serving modes, such as `policy:vote`."""

    off: tuple[str, ...] = ("self-refine",)
    """Modes that are not offered. self-refine is the control that others are measured against."""
    budget_tokens: int = Field(default=65536, ge=1)
    """The most tokens that one request may generate, hidden ones included. A call that could pass it is not made."""
    budget_samples: int = Field(default=64, ge=1)
    """The most continuations that one request may sample."""


class ServeConfig(Part):
    host: str = "127.0.0.1"
    """An address other than loopback needs keys (`serve.access.keys`)."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0: any free port."""
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """Ray Serve adds replicas up to this number while more requests are in flight than `requests_per_replica`, and
    removes them down to `replicas` when load falls. None: always `replicas`."""
    requests_per_replica: float = Field(default=32, gt=0)
    """Target number of requests in flight per replica, users and learning together, when replicas scale."""
    engine: EngineConfig = EngineConfig()
    reserve_seats: int = Field(default=8, ge=0)
    """Seats reserved for users."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the seats that background work may hold while users are active."""
    active_s: float = Field(default=5.0, ge=0)
    """Users count as active for this long after their last request."""
    modes: ModesConfig = ModesConfig()
    swap_timeout_s: float = Field(default=120, gt=0)
    """A replica that has not reached its target state by then fails its health check and is replaced."""
    access: AccessConfig = AccessConfig()

    @model_validator(mode="after")
    def _seats(self) -> "ServeConfig":
        if self.reserve_seats >= self.engine.max_seqs:
            raise ValueError(
                f"serve.reserve_seats={self.reserve_seats} leaves no seat for learning; "
                f"keep it below serve.engine.max_seqs={self.engine.max_seqs}"
            )
        return self

    @model_validator(mode="after")
    def _scales_up(self) -> "ServeConfig":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"serve.max_replicas={self.max_replicas} is less than serve.replicas={self.replicas}, "
                "the number at the start; raise it, or set it to null for a fixed number"
            )
        return self
