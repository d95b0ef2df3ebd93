"""The shapes of requests and responses, for OpenAPI: what is sent is not built from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from search.service.examples import PROBLEMS
from search.service.problems import PROBLEM_JSON

__all__ = [
    "AnswerModel",
    "BatchLineModel",
    "DeletedModel",
    "ExampleModel",
    "InfoModel",
    "StatusModel",
    "TrainingImageModel",
    "further_schemas",
    "lines_of",
    "problems",
]


_CONTENTS = (
    "What was in the collection: another value after every ingest that brought or replaced images, "
    "every takedown and every re-mapping; the same after a restart."
)


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
    path: str = Field(description='Of its file; "" where that is absolute and not for the asker.')
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

    id: str = Field(description="SHA-256 of the query, the settings and the model.")
    query: str = Field(description='What the asker called the image; "" behind a link.')
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
    exact: bool = Field(description="Whether comparing with every training image was asked for.")
    group_by: str
    groups: list[GroupModel]
    groups_remaining: float
    note: str
    collection: str = Field(description="Name of the collection that was searched.")
    contents: str = Field(description=_CONTENTS)
    links: LinksModel
    versions: dict[str, str]


class InfoModel(BaseModel):
    """What is served, and its limits."""

    model_config = ConfigDict(extra="allow")

    collection: str
    contents: str = Field(description=_CONTENTS)
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


class FailedModel(BaseModel):
    """What is wrong with one image of a batch."""

    name: str = Field(description="What the asker called the image.")
    error: ProblemModel


class BatchLineModel(RootModel[AnswerModel | FailedModel]):
    """One line of the answer to a batch."""


class TrainingImageModel(BaseModel):
    """What is known of a training image; also the fields that its source gave it."""

    model_config = ConfigDict(extra="allow")

    id: str
    key: str
    dataset: str
    path: str
    url: str
    caption: str
    creator: str
    licence: str
    width: int
    height: int
    sha256: str
    shard: int


class StatusModel(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


class ExampleModel(BaseModel):
    """An example of a generated image."""

    name: str
    url: str


class DeletedModel(BaseModel):
    """What a takedown did."""

    matching: int
    deleted: int


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
        status: {
            "description": _SAID[status],
            "content": {PROBLEM_JSON: {"schema": reference, "example": PROBLEMS[status]}},
        }
        for status in (*statuses, 500)
    }


def lines_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A body of lines, each by `BatchLineModel`."""
    line = {"$ref": "#/components/schemas/BatchLineModel"}
    failed = {"name": "notes.png", "error": PROBLEMS[422]}
    return {
        "schema": {
            "type": "string",
            "description": "Each line is JSON by itself, as contentSchema has it.",
            "contentMediaType": "application/x-ndjson",
            "contentSchema": line,
        },
        "example": "".join(f"{json.dumps(line)}\n" for line in (answer, failed)),
    }


def further_schemas() -> dict[str, Any]:
    """Components that no route has for a model: those of problems, and of lines."""
    place = "#/components/schemas/{model}"
    schema = BatchLineModel.model_json_schema(ref_template=place)
    parts: dict[str, Any] = schema.pop("$defs")
    return {**parts, BatchLineModel.__name__: schema}
