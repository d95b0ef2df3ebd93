"""The shapes of requests and responses, for OpenAPI: what is sent is not built from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from search.index import INDEXED_FIELDS
from search.service.problems import PROBLEM_JSON

__all__ = [
    "MAX_TEXT",
    "MAX_VALUES",
    "AnswerModel",
    "DeletedModel",
    "ExampleModel",
    "InfoModel",
    "body_of",
    "problem_schema",
    "problems",
]


class ProblemModel(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class OwnerModel(BaseModel):
    """One record of a training image."""

    id: str = Field(description="Of `/v1/images/{id}`.")
    key: str
    dataset: str
    creator: str
    licence: str
    url: str
    path: str
    caption: str


class RowModel(BaseModel):
    """A training image, equal ones folded into one, and its influence."""

    rank: int
    similarity: float
    influence: float = Field(description="Share of the whole training set's influence, 0 to 1.")
    interval: tuple[float, float] = Field(description="95 % interval of influence.")
    owners: list[OwnerModel]
    sha256: str
    width: int
    height: int
    thumbnail: str | None = Field(description="Path of its thumbnail; null where none was kept.")


class GroupModel(BaseModel):
    """Influence summed by a field."""

    value: str
    influence: float
    interval: tuple[float, float]
    images: int


class LinksModel(BaseModel):
    """Where this answer is, while the service keeps it."""

    self: str  # type: ignore[assignment, unused-ignore]
    page: str


class AnswerModel(BaseModel):
    """Which training images influenced a generated image, and by how much."""

    model_config = ConfigDict(json_schema_extra={"description": "An attribution."})

    id: str
    query: str
    rows: list[RowModel]
    remaining: float
    remaining_interval: tuple[float, float]
    method: Literal["exact", "complete", "estimated"]
    support: int | None
    population: int
    k: int
    mass: float | None
    model: str
    fingerprint: str
    calibrator: dict[str, Any]
    index: dict[str, Any]
    where: dict[str, list[str]]
    without: dict[str, list[str]]
    group_by: str
    groups: list[GroupModel]
    groups_remaining: float
    note: str
    links: LinksModel
    versions: dict[str, str]


class InfoModel(BaseModel):
    """What is served, and its limits."""

    model_config = ConfigDict(extra="allow")

    collection: str
    model: str
    backbone: str
    fingerprint: str
    feature_fingerprint: str
    tuned_on: str
    calibrator: dict[str, Any]
    images: int
    datasets: dict[str, int]
    index: dict[str, Any]
    limits: dict[str, int]
    versions: dict[str, str]


class ExampleModel(BaseModel):
    """An example of a generated image."""

    name: str
    url: str


class DeletedModel(BaseModel):
    """What a takedown did."""

    matching: int
    deleted: int


MAX_TEXT = 4096
"""Characters of a setting."""
MAX_VALUES = 10_000
"""Texts in a list of a takedown."""

_SAID = {
    400: "The body is broken.",
    401: "A key is needed.",
    403: "This key may not do that.",
    404: "There is none (any more).",
    413: "More bytes, or pixels, than the limit.",
    415: "Another media type than is taken.",
    422: "The call is wrong, or the image cannot be used.",
    429: "Busy: ask again after Retry-After seconds.",
    500: "A fault of the service.",
    503: "Not possible now: loading, too slow, or the index failed.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a route."""
    reference = {"$ref": "#/components/schemas/ProblemModel"}
    return {
        status: {"description": _SAID[status], "content": {PROBLEM_JSON: {"schema": reference}}}
        for status in (*statuses, 500)
    }


def problem_schema() -> dict[str, Any]:
    """Of `ProblemModel`, for the components."""
    return ProblemModel.model_json_schema()


_CONDITIONS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "string",
        "pattern": f"^({'|'.join(INDEXED_FIELDS)})=",
        "maxLength": MAX_TEXT,
        "example": "licence=CC0-1.0",
    },
}
_SETTINGS: dict[str, Any] = {
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
                "schema": _object({**own, **_SETTINGS}),
                "encoding": _ENCODING,
            },
            "application/json": {
                "schema": _object({"features": features, **_SETTINGS}, "features")
            },
        }
    else:
        images = {"type": "array", "items": _FILE, "minItems": 1}
        schema = _object({"image": images, **_SETTINGS}, "image")
        content = {"multipart/form-data": {"schema": schema, "encoding": _ENCODING}}
    parameters = [
        {"in": "query", "name": name, "required": False, "schema": schema}
        for name, schema in _SETTINGS.items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}
