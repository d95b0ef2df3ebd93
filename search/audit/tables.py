"""The tables of an audit, column by column: what a program may rely on.

``SCHEMA`` is raised when a column goes or changes its meaning; new columns come without that.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from search.audit.payload_fields import column_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ATTRIBUTIONS",
    "CREATORS",
    "IMAGES",
    "REJECTS",
    "SCHEMA",
    "SUMMARY",
    "attributions_schema",
    "creators_schema",
    "images_schema",
    "rejects_schema",
]

SCHEMA = "attrib-audit/1"

ATTRIBUTIONS = "attributions.parquet"
IMAGES = "images.parquet"
CREATORS = "creators.parquet"
REJECTS = "rejects.parquet"
SUMMARY = "summary.json"


@cache
def attributions_schema(further: tuple[str, ...] = ()) -> pa.Schema:
    """One line a generated image x training record, in order of the gallery and then of rank.

    Equal training images (one sha256) share a rank, and their influence evenly: the lines of one
    generated image and its `remaining` sum to 1.

    Args:
        further: other fields of the training images, named with ``--by``; a field ``agency`` is the
            column ``payload.agency``, a text, '' where unknown.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("image", pa.string()),  # key of the generated image, as in the table of images
            ("rank", pa.int32()),  # 1-based
            ("training_id", pa.string()),  # UUID of the point
            ("training_key", pa.string()),
            ("dataset", pa.string()),
            ("creator", pa.string()),  # '' where unknown, as in all of these
            ("licence", pa.string()),
            ("url", pa.string()),
            ("path", pa.string()),
            ("caption", pa.string()),
            ("sha256", pa.string()),
            ("similarity", pa.float64()),
            ("influence", pa.float64()),  # of this record alone, 0..1
            ("influence_low", pa.float64()),  # 95 % interval; the value itself unless estimated
            ("influence_high", pa.float64()),
            ("method", pa.string()),  # exact, complete, estimated
            *((column_of(field), pa.string()) for field in further),
        ]
    )


@cache
def images_schema() -> pa.Schema:
    """One line a generated image, in order of the gallery."""
    import pyarrow as pa

    return pa.schema(
        [
            ("image", pa.string()),  # unique in the gallery
            ("path", pa.string()),  # where it came from, for people
            ("sha256", pa.string()),  # of the file
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("prompt", pa.string()),
            ("metadata", pa.string()),  # JSON object: what else the sidecars say
            ("remaining", pa.float64()),  # 1 - sum of this image's lines of attributions
            ("remaining_low", pa.float64()),
            ("remaining_high", pa.float64()),
            ("method", pa.string()),
            ("support", pa.int64()),  # null where not known exactly
            ("sources", pa.int32()),  # training images (equal ones once) that are in the lines
            ("entropy", pa.float64()),  # nats, over those and the remaining influence as one more
            ("effective_sources", pa.float64()),  # exp(entropy)
            ("top_id", pa.string()),
            ("top_key", pa.string()),
            ("top_creator", pa.string()),  # of the most influential training image; '' unknown
            ("top_influence", pa.float64()),  # of that image, all its records together
            ("top_similarity", pa.float64()),
            ("main_creator", pa.string()),  # the known creator with the largest share; '' none
            ("main_creator_share", pa.float64()),
            ("flags", pa.list_(pa.string())),  # sorted names, see `search.audit.flags`
            ("copy_of", pa.string()),  # training id, where flagged near-copy; else ''
            ("copy_score", pa.float64()),  # what the near-copy flag rests on; null where not looked
            ("duplicate_of", pa.string()),  # `image` of the first one alike; '' where none
            ("note", pa.string()),
        ]
    )


@cache
def creators_schema() -> pa.Schema:
    """One line a value of a payload field, the largest share first; fields one after the other.

    The lines of one field, `unknown` and `remaining` among them, sum to 1.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("field", pa.string()),  # creator, licence, dataset, agency, ...
            ("kind", pa.string()),  # known, unknown (no value recorded), remaining
            ("value", pa.string()),  # '' unless kind is known
            ("share", pa.float64()),  # mean over the gallery's images
            ("share_low", pa.float64()),  # 95 % bootstrap interval over images
            ("share_high", pa.float64()),
            ("images", pa.int64()),  # generated images that it has influence on
            ("top_of", pa.int64()),  # generated images whose most influential training image it has
            ("training_images", pa.int64()),  # records with influence anywhere in the gallery
        ]
    )


@cache
def rejects_schema() -> pa.Schema:
    """Images of the gallery that could not be used."""
    import pyarrow as pa

    return pa.schema(
        [
            ("image", pa.string()),
            ("path", pa.string()),
            ("reason", pa.string()),
            ("detail", pa.string()),
        ]
    )
