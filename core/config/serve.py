import re

from pydantic import Field, model_validator

from core.config.part import Part

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*A-Z]+")


class EngineConfig(Part):
    max_seqs: int = Field(default=64, ge=2)
    """Seats: sequences decoded at once."""
    max_tokens: int = Field(default=512, ge=16)
    """Prompt and answer together."""
    kv_cache_bytes: int | None = Field(default=2**28, ge=2**20)
    """None lets vLLM take what it finds (on a GPU: `gpu_memory_ratio`)."""
    gpu_memory_ratio: float = Field(default=0.6, gt=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of one engine."""
    tensor_parallel: int = Field(default=1, ge=1)
    tool_parser: str | None = None
    """vLLM's name for how the model writes a call of a tool (`hermes`, `llama3_json` ...). None: requests that want one
    called are refused."""


class AccessConfig(Part):
    """Who may use the HTTP service, and how much one request may ask for."""

    keys: str | None = None
    """File of API keys, which `ratchet keys` makes. With None, and without RATCHET_KEYS in the environment, whoever
    reaches the port is an admin, and `serve.host` has to be a loopback address."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    max_n: int = Field(default=16, ge=1)
    """Answers that one request may ask for: `n` (or `best_of`) times its prompts."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of one answer; a chat request that names no bound gets this one. None: what the engine has room for."""
    max_queue: int = Field(default=512, ge=1)
    """Requests of users that one replica answers or keeps waiting at once; one more gets status 429."""
    retry_after_s: int = Field(default=1, ge=1)
    """When it is told to try again."""
    allow_origins: tuple[str, ...] = ()
    """Web pages that may call the service from a browser, as `https://app.example.org`. Others are refused."""

    @model_validator(mode="after")
    def _origins(self) -> "AccessConfig":
        for origin in self.allow_origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; expected scheme and host in lower case, without path and without `*`, "
                    "as https://app.example.org"
                )
        return self


class ServeConfig(Part):
    host: str = "127.0.0.1"
    """Anything but a loopback address needs keys (`serve.access.keys`)."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free one."""
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """Ray Serve adds replicas up to so many while more requests are under way than `requests_per_replica`, and removes
    them down to `replicas` when it is quiet. None: always `replicas`."""
    requests_per_replica: float = Field(default=32, gt=0)
    """Requests under way, of users and of learning, that one replica is to have on average when replicas scale."""
    engine: EngineConfig = EngineConfig()
    reserve_seats: int = Field(default=8, ge=0)
    """Seats that only users may take."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Part of the seats that background work may hold while users are active."""
    active_s: float = Field(default=5.0, ge=0)
    """Users count as active until so long after their last request."""
    swap_timeout_s: float = Field(default=120, gt=0)
    """A replica that has not reached a wanted state by then fails its health check and is replaced."""
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
                "which it starts with; raise it, or null for a fixed number"
            )
        return self
