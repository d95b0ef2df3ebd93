"""What requests may carry, for OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from search.index import INDEXED_FIELDS

__all__ = ["MAX_TEXT", "MAX_VALUES", "SETTINGS", "body_of"]

MAX_TEXT = 4096
"""Characters of a setting."""
MAX_VALUES = 10_000
"""Texts in a list of a takedown."""

_CONDITIONS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "string",
        "pattern": f"^({'|'.join(INDEXED_FIELDS)})=",
        "maxLength": MAX_TEXT,
        "example": "licence=CC0-1.0",
    },
}
SETTINGS: dict[str, Any] = {
    "k": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
    "mass": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "description": "The rows end where they carry this share of the influence, or at k.",
        "example": 0.99,
    },
    "where": {
        **_CONDITIONS,
        "description": "field=value; only such training images are rows. Shares stay shares of "
        "the whole training set.",
    },
    "without": {
        **_CONDITIONS,
        "description": "field=value; the answer is as if such training images were not in the "
        "collection. Nothing is changed.",
    },
    "group_by": {
        "type": "string",
        "maxLength": MAX_TEXT,
        "pattern": r"^(?![\[{])",
        "description": "Sum influence by a field.",
        "example": "creator",
    },
    "exact": {
        "type": "boolean",
        "default": False,
        "description": "Compare with every training image.",
    },
}
"""What may be asked of an answer, in the body or in the URL."""

_FILE = {"type": "string", "format": "binary"}
_ENCODING = {"image": {"contentType": "image/*"}}


def body_of(kind: Literal["one", "batch", "delete"]) -> dict[str, Any]:
    """`openapi_extra` of a route: its body, and the settings that its URL may carry, too."""
    content: dict[str, Any]
    if kind == "delete":
        texts = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_VALUES}
        values = {**texts, "minItems": 1}
        schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "keys": texts,
                "where": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": dict.fromkeys(INDEXED_FIELDS, values),
                },
                "dry_run": {"type": "boolean", "default": False},
            },
            "anyOf": [
                {"required": ["keys"], "properties": {"keys": {"minItems": 1}}},
                {"required": ["where"], "properties": {"where": {"minProperties": 1}}},
            ],
        }
        example = {"where": {"creator": ["someone"]}, "dry_run": True}
        content = {"application/json": {"schema": schema, "example": example}}
        return {"requestBody": {"required": True, "content": content}}
    if kind == "one":
        own: dict[str, Any] = {
            "image": {**_FILE, "description": "The generated image; or give url."},
            "url": {
                "type": "string",
                "minLength": 1,
                "description": "Instead of image: its address, of a public web server.",
            },
        }
        features = {
            "description": "L2-normalised, of the model's synth mapper, as many as it has.",
            "oneOf": [
                {"type": "array", "items": {"type": "number"}, "minItems": 1},
                {
                    "type": "string",
                    "contentEncoding": "base64",
                    "pattern": "^[A-Za-z0-9+/]+={0,2}$",
                    "description": "Little-endian float32 or float16; their length tells which.",
                },
            ],
        }
        content = {
            "multipart/form-data": {
                "schema": _object({**own, **SETTINGS}),
                "encoding": _ENCODING,
            },
            "application/json": {"schema": _object({"features": features, **SETTINGS}, "features")},
        }
    else:
        images = {"type": "array", "items": _FILE, "minItems": 1}
        schema = _object({"image": images, **SETTINGS}, "image")
        content = {"multipart/form-data": {"schema": schema, "encoding": _ENCODING}}
    parameters = [
        {"in": "query", "name": name, "required": False, "schema": schema}
        for name, schema in SETTINGS.items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }
