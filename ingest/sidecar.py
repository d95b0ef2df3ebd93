"""The small files beside an image: ``a.txt`` (its caption), ``a.json`` (as img2dataset writes)."""

from __future__ import annotations

import json

from ingest.metadata import Metadata

__all__ = ["MAX_SIDECAR_BYTES", "SIDECAR_SUFFIXES", "parse_sidecar"]

SIDECAR_SUFFIXES = (".txt", ".json")
"""In order of precedence: a caption that someone wrote into a text file wins over the JSON's."""

MAX_SIDECAR_BYTES = 1024 * 1024


def parse_sidecar(suffix: str, data: bytes) -> Metadata:
    """The metadata in a sidecar's bytes. Never raises.

    A sidecar that cannot be read does not cost the image: `extra` then says so under
    ``metadata_error``.
    """
    if len(data) > MAX_SIDECAR_BYTES:
        return _unusable(suffix, f"larger than {MAX_SIDECAR_BYTES} bytes")
    text = data.decode("utf-8-sig", errors="replace")
    if suffix == ".txt":
        return Metadata(caption=" ".join(text.split()))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _unusable(suffix, "not valid JSON")
    if not isinstance(value, dict):
        return _unusable(suffix, "not a JSON object")
    return Metadata.from_row(value)


def _unusable(suffix: str, why: str) -> Metadata:
    return Metadata(extra={"metadata_error": f"{suffix} beside the image is {why}"})
