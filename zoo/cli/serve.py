"""zoo serve"""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.console import note
from zoo.cli.settings import provider_option, settings_options
from zoo.errors import UsageError
from zoo.serving.settings import API_KEY, ServeConfig


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@settings_options(ServeConfig.model_fields)
@provider_option
def command(sources: tuple[str, ...], provider: str, **settings: Any) -> None:
    """Serve models over HTTP: OpenAI's interface, streams with a state, and a page to type into.

    SOURCE is a run folder, an exported file, or a folder of files exported from one run;
    NAME=SOURCE names the model. The environment variable ZOO_API_KEY asks clients for that key.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = ServeConfig.checked(**given)
    try:
        from zoo.serving.server import serve
    except ImportError as error:
        raise UsageError(
            f"a server needs the package {error.name}; pip install 'recurrent-zoo[serve]'."
        ) from None

    def ready(address: str) -> None:
        note(f"{address} (Ctrl-C stops; requests need {API_KEY} if it is set)")

    serve(sources, config, provider, ready)
