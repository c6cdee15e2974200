"""The server on a Ray cluster: the same application in many replicas, behind Ray Serve's proxies.

Streams are files of one folder that all machines see, as they are for several processes of one
machine. A request locks the stream's file, goes on from it, and writes it back before it is
answered, so that any replica takes any request, and goes on from where the last one ended. Nothing
has to lead a stream's requests to the replica that has it: no replica has it. A replica that dies,
is replaced or is one too many takes no stream with it, and loads are spread by Ray alone. This is
affordable because the state of a recurrent network does not grow with the text: a few kilobytes are
read and written, where a second hop through a router costs as much. What a router by the stream's
id could save is the reading only, since what was not written dies with its replica.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from zoo.errors import RunError, UsageError
from zoo.files import write_atomically
from zoo.inference.ray_cluster import import_ray
from zoo.registry.registry import load_registry
from zoo.serving.settings import API_KEY, ServeConfig
from zoo.validation import FrozenModel

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REPLICA_HEADER = b"x-zoo-replica"  # of an answer: which replica it comes from
MARK = ".cluster"  # the file by which a replica knows that the folder of streams is the right one
SPARE = 64  # requests beyond those of texts: the server is to refuse with 429, not Ray to queue


class RayConfig(FrozenModel):
    """The arguments of `build`, as a configuration file of Ray Serve has them."""

    sources: tuple[str, ...] = Field(min_length=1)
    config: ServeConfig
    provider: str = "auto"
    num_replicas: int = Field(2, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


def build(args: Mapping[str, Any]) -> Application:
    """For `import_path: zoo.serving.ray_deployment:build` in a configuration file."""
    given = RayConfig.checked(**args)
    return app(
        given.sources,
        given.config,
        provider=given.provider,
        num_replicas=given.num_replicas,
        **given.options,
    )


def app(
    sources: Sequence[str],
    config: ServeConfig,
    *,
    provider: str = "auto",
    num_replicas: int = 2,
    **options: Any,
) -> Application:
    """What `ray.serve.run` serves: the models of `sources` (see `open_models`) in `num_replicas`
    replicas, with the API of `zoo serve`. `options` are further ones of `ray.serve.deployment`;
    with `autoscaling_config` it is that which says how many replicas.

    Every machine must find the sources, and the folder `config.state`, at the same paths, the one
    that calls this included. Of `config`, the address and `workers` are not used: Ray has proxies
    of its own. The key of the environment variable ZOO_API_KEY holds for all replicas.

    Raises UsageError without `config.state`, and where Ray is not installed.
    """
    if config.state is None:
        raise UsageError("replicas share their streams through a folder; name it as `state`.")
    serve = import_ray("ray.serve")
    config = config.model_copy(update={"state": str(Path(config.state).resolve())})
    given = [_absolute(source) for source in sources]
    mark = _mark(Path(config.state or ""))
    key = os.environ.get(API_KEY)

    def replica() -> ASGIApp:
        if key is not None:
            os.environ[API_KEY] = key
        return replica_app(given, config, provider, mark)

    chosen = {
        "name": "zoo",
        **({} if "autoscaling_config" in options else {"num_replicas": num_replicas}),
        "max_ongoing_requests": config.rows + config.queue + SPARE,
        "graceful_shutdown_timeout_s": config.drain,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": int(provider == "cuda")},
        **options,
    }
    served: Application = serve.deployment(**chosen)(serve.ingress(replica)()).bind()
    return served


def replica_app(sources: Sequence[str], config: ServeConfig, provider: str, mark: str) -> ASGIApp:
    """The application of one replica; its answers name it. RunError where the folder of streams is
    not that of the others."""
    from zoo.serving.app import create_app
    from zoo.serving.models import open_models

    _require_mark(Path(config.state or ""), mark)
    name = import_ray("ray.serve").get_replica_context().replica_tag.encode()
    whole = create_app(open_models(sources, config, load_registry(), provider), config, shared=True)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REPLICA_HEADER, name)]
            await send(message)

        await whole(scope, receive, named)

    return answer


def _absolute(given: str) -> str:
    """The source with the whole of its path; what is no path here stays as it is."""
    from zoo.serving.models import named_source

    _, source = named_source(given)
    path = Path(source)
    return given.removesuffix(source) + str(path.resolve()) if path.exists() else given


def _mark(folder: Path) -> str:
    """What the folder's mark says; a new one where it has none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARK).exists():
            write_atomically(folder / MARK, secrets.token_hex(16).encode())
        return (folder / MARK).read_text()
    except OSError as error:
        raise RunError(f"{folder} cannot be used for streams: {error.strerror}.") from None


def _require_mark(folder: Path, mark: str) -> None:
    try:
        found = (folder / MARK).read_text()
    except OSError:
        found = ""
    if found != mark:
        raise RunError(
            f"{folder} on {socket.gethostname()} is not the folder of the other machines; mount it "
            f"there."
        )
