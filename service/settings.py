"""Every setting of the service, in one frozen class: built once at the entry point and passed down from there."""

from importlib.resources import files
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.defenses import DEFENSES
from service.processors import processors
from service.schemas import Output

MEBIBYTE = 1024 * 1024
MIN_SECRET_LENGTH = 32
QuotaFallback = Literal["local", "deny"]
ENVIRONMENT_PREFIX = "PURIGATE_"


def embedded_bundle() -> Path:
    """The bundle that a fresh checkout serves."""
    return Path(str(files("models"))) / "bundles" / "cifar10"


class NetworkSettings(BaseSettings):
    """What says which networks there are, and where they run."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        env_ignore_empty=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )

    bundle: Path = Field(default_factory=embedded_bundle, description="Folder of the bundle that is served.")
    defense: Literal[DEFENSES] = Field(  # type: ignore[valid-type]
        "puridefense", description="What stands before the classifier."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto` is CUDA if there is one, else the CPU."
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="Of the networks' arithmetic; `auto` is bfloat16 where the device computes it natively, else "
        "float32. `int8` is for classifiers on a CPU.",
    )
    max_batch: PositiveInt = Field(32, description="Most queries that go through the networks together.")
    drain_timeout_ms: PositiveInt = Field(
        20_000, description="How long a stop waits for accepted requests before it drops them."
    )


class HostSettings(NetworkSettings):
    """The settings of `purigate networks`: from arguments, else `PURIGATE_*`, else the defaults."""

    model_config = SettingsConfigDict(cli_prog_name="purigate networks")

    networks_socket: Path = Field(description="Socket that gateways ask through; made with rights for this user alone.")


class Settings(NetworkSettings):
    """The service's settings: from arguments, else `PURIGATE_*` in the environment, else the defaults below."""

    model_config = SettingsConfigDict(cli_prog_name="purigate serve")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the metrics alone; without one `/metrics` is on the port of all."
    )
    keys_file: Path | None = Field(None, description="File of API keys; without one nobody is asked for a key.")
    redis_url: SecretStr | None = Field(
        None, description="Redis that counts quotas for all replicas; without one each process counts for itself."
    )
    redis_password_file: Path | None = Field(
        None, description="File that holds the password of Redis; read at each connection, so that it can change."
    )
    redis_timeout_ms: PositiveInt = Field(250, description="Redis that answers later than this counts as gone.")
    quota_fallback: QuotaFallback = Field(
        "local", description="While Redis is gone: `local`, each process counts for itself, or `deny`, answers 503."
    )
    audit_file: Path | None = Field(None, description="File of the audit log, one JSON line a query; none by default.")
    audit_max_bytes: PositiveInt = Field(100 * MEBIBYTE, description="Size at which the audit file is rotated.")
    audit_backups: PositiveInt = Field(9, description="Rotated audit files that are kept.")
    insecure: bool = Field(False, description="Serve an address that is not loopback although no key is configured.")
    output: Output = Field(
        "scores", description="What of the scores clients are told where no keys are configured; a key says it itself."
    )
    randomness: Literal["fresh", "sticky"] = Field(
        "fresh", description="`fresh`: every query draws anew; `sticky`: the very same image always draws the same."
    )
    sticky_secret: SecretStr | None = Field(
        None, min_length=MIN_SECRET_LENGTH, description="Secret of `sticky`, the same for all replicas."
    )
    sticky_secret_file: Path | None = Field(None, description="File that holds the secret of `sticky` instead.")
    shadow: bool = Field(
        False, description="Answer undefended, run the defense beside it, and count how often it changes the label."
    )
    workers: PositiveInt | None = Field(
        None,
        description="Batches that go through the networks at once; by default one for each processor, at most 8, on a "
        "CPU, and one on a GPU.",
    )
    networks: Literal["threads", "processes", "shared"] = Field(
        "threads",
        description="Where batches go through the networks: in `threads` of the gateway; in `processes`, one for each "
        "worker, which need memory of their own and never wait for its interpreter; or in a process of `purigate "
        "networks` that is `shared` by several gateways.",
    )
    networks_socket: Path | None = Field(None, description="Socket of that process, if the networks are shared.")
    queue_capacity: PositiveInt = Field(512, description="Most queries that may wait for the device.")
    request_deadline_ms: PositiveInt = Field(
        10_000, description="From the last byte of a request to its answer; later it is answered 504."
    )
    response_time_quantum_ms: NonNegativeInt = Field(
        0,
        description="Answers are held until a multiple of this time, so that it tells less of the draw; 0 holds none.",
    )
    body_timeout_ms: PositiveInt = Field(
        15_000, description="From the head of a request to the last byte of its body; later it is answered 408."
    )
    head_timeout_ms: PositiveInt = Field(
        10_000,
        description="From a connection, or the first byte of its next request, to the end of the head.",
    )
    max_body_bytes: PositiveInt = Field(16 * MEBIBYTE, description="Largest body of a request.")
    max_waiting_bytes: PositiveInt = Field(
        256 * MEBIBYTE, description="Most bytes of all bodies that are read or await their answer; above is 503."
    )
    max_connections: PositiveInt = Field(
        2048, description="Most open connections; a new one takes the place of the longest idle one, else it is 503."
    )
    max_pixels: PositiveInt = Field(36_000_000, description="Most pixels of an image, width times height.")
    max_images_per_request: PositiveInt = Field(32, description="Most images of one `/classify/batch` request.")
    decode_threads: PositiveInt = Field(
        default_factory=lambda: min(8, processors()), description="Threads that decode images."
    )
    default_top_k: PositiveInt = Field(
        5, description="Scores in an answer where the client does not say; the most under `top_k` and `rounded`."
    )
    device_hour_price_dollars: NonNegativeFloat = Field(
        0.0, description="Price of one hour of the device, for the cost panels; 0 where unknown."
    )

    @model_validator(mode="after")
    def _shared_networks_are_somewhere_else(self) -> Self:
        if self.networks != "shared":
            if self.networks_socket:
                raise ValueError(
                    "networks_socket is for networks that are shared: say so with networks, or leave it out"
                )
            return self
        if self.networks_socket is None:
            raise ValueError("shared networks need networks_socket")
        if (self.device, self.precision) != ("auto", "auto"):
            raise ValueError("device and precision of shared networks are those of whoever holds them: leave them out")
        if self.workers not in {None, 1}:
            raise ValueError("shared networks take one batch of each gateway at a time: leave workers out")
        return self

    @model_validator(mode="after")
    def _largest_request_fits_the_queue(self) -> Self:
        if self.max_images_per_request > self.queue_capacity:
            raise ValueError("max_images_per_request is above queue_capacity: such a request could never be served")
        return self

    @model_validator(mode="after")
    def _largest_body_fits_the_memory(self) -> Self:
        if self.max_body_bytes > self.max_waiting_bytes:
            raise ValueError("max_body_bytes is above max_waiting_bytes: such a body could never be read")
        return self

    @model_validator(mode="after")
    def _metrics_have_their_own_port(self) -> Self:
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError("metrics_port is port: leave it out to have the metrics there")
        return self

    @model_validator(mode="after")
    def _redis_has_one_password(self) -> Self:
        if self.redis_password_file:
            if self.redis_url is None:
                raise ValueError("redis_password_file is the password of no Redis: redis_url is missing")
            if urlsplit(self.redis_url.get_secret_value()).password:
                raise ValueError("redis_url has a password, and so has redis_password_file: leave one of them out")
        return self

    @model_validator(mode="after")
    def _sticky_has_one_secret(self) -> Self:
        secrets = [secret for secret in (self.sticky_secret, self.sticky_secret_file) if secret is not None]
        if self.randomness == "sticky" and len(secrets) != 1:
            raise ValueError("sticky randomness needs either sticky_secret or sticky_secret_file")
        return self
