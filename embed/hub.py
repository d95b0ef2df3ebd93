"""Fetching weights from the Hugging Face hub: quietly, and failing fast where it is not reachable.

Left alone, the hub's client retries for most of a minute and logs every try; a person who is
offline should know at once which file to put where.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embed.weights import local_path
from ingest.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embed.backbones import Backbone

__all__ = ["could_not_fetch", "fetch"]

_PROBE_TIMEOUT_S = 3.0


def fetch(
    backbone: Backbone, repository: str, files: Sequence[str], revision: str | None = None
) -> Path:
    """The first of `files` that the hub's repository has, from its cache or downloaded.

    Raises:
        WeightsError: none could be had; the text says which file to put where.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason = "no such file there"
    with _quiet_hub() as offline:
        for file in files:
            try:
                return Path(
                    huggingface_hub.hf_hub_download(
                        repository, file, revision=revision, local_files_only=offline
                    )
                )
            except LocalEntryNotFoundError:
                reason = f"{_host()} is not reachable" if offline else "the download failed"
            except EntryNotFoundError:
                continue
            except Exception as exc:  # a vendor's many errors: no access, no space, cut off ...
                reason = _first_line(exc)
                break
    raise could_not_fetch(backbone, reason)


def could_not_fetch(backbone: Backbone, reason: str) -> WeightsError:
    """The error for weights that are nowhere: which file to put where."""
    source, file = backbone.weights_source, backbone.weights_file
    return WeightsError(
        f"weights of {backbone.name} could not be fetched ({reason}); "
        f"put {source}'s {file} at {local_path(backbone)}"
    )


@contextlib.contextmanager
def _quiet_hub() -> Iterator[bool]:
    """The hub's client without its log; yields whether the hub is out of reach."""
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield bool(constants.HF_HUB_OFFLINE) or not _reachable()
    finally:
        logger.setLevel(level)


def _reachable() -> bool:
    # Behind a proxy only the proxy can tell.
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True
    try:
        with socket.create_connection((_host(), _port()), timeout=_PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname or "huggingface.co"


def _port() -> int:
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parts.port or (80 if parts.scheme == "http" else 443)


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0].strip()[:160] if lines else type(exc).__name__
