"""``attrib serve``: the search service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attrib.ending import ends_in_one_line
from attrib.options import DataOption

__all__ = ["serve"]


@ends_in_one_line
def serve(
    data: DataOption = Path("attrib-data"),
    host: Annotated[
        str,
        typer.Option(
            envvar="ATTRIB_HOST", help="Address to listen on; 0.0.0.0 opens it to the network."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="ATTRIB_PORT", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8723,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Generated images that the page offers to try.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="ATTRIB_MODEL",
            help="Refuse to serve with another model than this. [default: the data folder's]",
            show_default=False,
        ),
    ] = None,
    max_in_flight: Annotated[
        int, typer.Option(min=1, help="Requests at once; more are told to come again (429).")
    ] = 64,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that an answer may take.")
    ] = 30.0,
    show_paths: Annotated[
        bool,
        typer.Option(
            "--show-paths",
            help="Tell everyone who may read the absolute paths of training images, not only those "
            "with a write key.",
        ),
    ] = False,
) -> None:
    """Answer over HTTP, with a page to drop images on, until stopped.

    Keys are taken from ATTRIB_READ_KEYS and ATTRIB_WRITE_KEYS, several separated by commas: without
    read keys anyone who reaches the port may ask, without write keys nobody can take images down.
    ATTRIB_CORS_ORIGINS names other origins whose pages may ask. The log is JSON, on stderr.
    """
    import gc
    import logging
    import os

    from embed.registry import find_model
    from search.service.frame import JsonLines
    from search.service.memory import give_back_memory
    from search.service.server import Service
    from search.service.settings import ServiceSettings, access_from

    give_back_memory()
    settings = ServiceSettings(
        host=host,
        port=port,
        examples=examples,
        access=access_from(os.environ),
        max_in_flight=max_in_flight,
        timeout_s=timeout,
        show_paths=show_paths,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in (("attrib.service", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [handler]

    def ready(port: int) -> None:
        # What was loaded stays. Looking through it for garbage took 0.1 s and more, in a request.
        gc.collect()
        gc.freeze()
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"attrib listens on http://{shown}:{port}")

    service = Service(data, settings, find_model(model) if model is not None else None)
    service.run(ready=ready)
