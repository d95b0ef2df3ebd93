"""JSON of requests and answers: by orjson, and by Python's own where only that takes a value."""

from __future__ import annotations

import json
from typing import Any

import orjson

__all__ = ["parsed", "written"]


def parsed(data: bytes | bytearray) -> Any:  # noqa: ANN401 (any JSON value)
    """The value of a JSON text.

    NaN, endless numbers and halves of surrogate pairs are taken, as `json.loads` takes them: the
    reader of a value says better what is wrong with it than "not JSON".

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def written(value: object) -> bytes:
    """A value as JSON in UTF-8; what UTF-8 has no form for, half a surrogate pair say, escaped."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()
