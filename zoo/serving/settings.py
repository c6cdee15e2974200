"""The settings of a server: the flags of `zoo serve` and their bounds."""

from __future__ import annotations

from pydantic import ByteSize, Field

from zoo.validation import FrozenModel


class ServeConfig(FrozenModel):
    """How models are served."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port; 0 takes a free one.")
    workers: int = Field(
        1, ge=1, le=256, description="Processes that share the port, each with the models."
    )
    rows: int = Field(
        64, ge=1, le=4096, description="Texts that a model writes at a time, in one batch."
    )
    queue: int = Field(
        256, ge=0, le=10**6, description="Texts that may wait for a place; others are told 429."
    )
    max_body: ByteSize = Field(
        ByteSize(4_000_000), ge=1000, description="Largest body of a request."
    )
    max_prompt: int = Field(100_000, ge=1, le=10**8, description="Tokens of a prompt at most.")
    max_length: int = Field(
        10_000, ge=1, le=10**8, description="Tokens that one request may ask for."
    )
    max_streams: int = Field(
        10_000, ge=0, le=10**8, description="Streams that are kept, those on the disk included."
    )
    max_memory: ByteSize = Field(
        ByteSize(1_000_000_000),
        ge=0,
        description="Memory for the states of streams; the longest unused go to the disk.",
    )
    idle: float = Field(
        60.0, gt=0, le=10**9, description="Seconds after which an unused stream goes to the disk."
    )
    body_seconds: float = Field(
        10.0, gt=0, le=3600, description="Seconds in which the body of a request has to come."
    )
    drain: int = Field(
        30, ge=0, le=86_400, description="Seconds that requests have to end when the server stops."
    )
    state: str | None = Field(
        None,
        description="Folder in which streams outlive the server; without it they end with it.",
    )


API_KEY = "ZOO_API_KEY"  # the environment variable with the key that requests have to bring
