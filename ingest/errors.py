"""The exception tree of attrib, whole, in one place.

    AttribError                 everything a user can cause; its text is one line that says what
    |                           is wrong and what to do
    |-- UsageError              the call itself is wrong (exit code 2)
    |   |-- UnknownModelError   no model of that name; the nearest name is suggested
    |   `-- EmptyQueryError     k < 1, no image given, ...
    `-- RunError                a right call that failed (exit code 1)
        |-- SourceError         a source that cannot be read: no such path, no images, cut-off tar
        |-- StorageError        a store (S3, GCS, a web server) that cannot be reached, or refuses
        |-- ImageError          an image that cannot be used; carries a `RejectReason`
        |-- WeightsError        model weights that are missing, unreadable or not what they claim
        |-- ModelError          a model folder or checkpoint that is damaged or of another kind
        |-- ModelMismatchError  the query's model is not the one that the index was built with
        |-- DataFolderError     a data folder that is missing, read-only, full or of a newer format
        |   `-- DataFolderBusyError   another process is using it
        |-- NothingLeftError    a question that leaves out every training image
        |-- WorkersError        Redis cannot be reached, or a worker cannot do what it is asked
        `-- IndexFailedError    the index refused or lost an operation
            `-- IndexRefusedError     it does not do such a thing, by strict mode or quota

Vendor errors (PIL, torch, Qdrant, pyarrow, sqlite) are translated at the one edge where they enter,
with ``raise ... from exc``.
"""

from __future__ import annotations

__all__ = [
    "AttribError",
    "DataFolderBusyError",
    "DataFolderError",
    "EmptyQueryError",
    "ImageError",
    "IndexFailedError",
    "IndexRefusedError",
    "ModelError",
    "ModelMismatchError",
    "NothingLeftError",
    "RejectReason",
    "RunError",
    "SourceError",
    "StorageError",
    "UnknownModelError",
    "UsageError",
    "WeightsError",
    "WorkersError",
]

from enum import StrEnum


class RejectReason(StrEnum):
    """Why an image was not used; the value is what `rejects.parquet` and the summary show."""

    UNREADABLE = "unreadable file"
    EMPTY = "empty file"
    TOO_MANY_BYTES = "more bytes than the limit"
    TOO_MANY_PIXELS = "more pixels than the limit"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated image"
    BROKEN = "broken image data"
    DUPLICATE_KEY = "key used twice in one dataset"
    SOURCE_CUT_OFF = "source cut off"
    UNUSABLE_FEATURES = "unusable features"
    BAD_URL = "not a web address"
    DEAD_LINK = "dead link"
    REFUSED = "refused by the server"
    OPTED_OUT = "opted out"
    FORBIDDEN_ADDRESS = "not a public address"
    TOO_MANY_REDIRECTS = "too many redirects"
    NO_CONNECTION = "no connection"
    TIMED_OUT = "timed out"
    SERVER_ERROR = "server error"
    TOO_MANY_REQUESTS = "too many requests"
    OTHER_CONTENT = "other content than listed"


class AttribError(Exception):
    """Base of all errors that a user can cause; ``str(error)`` is one line."""

    exit_code = 1


class UsageError(AttribError):
    """The call itself is wrong."""

    exit_code = 2


class UnknownModelError(UsageError):
    """No backbone or attribution model has that name."""


class EmptyQueryError(UsageError):
    """A query that asks for nothing (k < 1, no image)."""


class RunError(AttribError):
    """A right call that failed."""


class SourceError(RunError):
    """A source that cannot be read."""


class StorageError(RunError):
    """A store that cannot be reached, or refuses; what was asked of it may well be there."""


class ImageError(RunError):
    """An image that cannot be used.

    Attributes:
        reason: the kind of fault, for counting.
        detail: what exactly was wrong, one line.
    """

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = " ".join(detail.split())
        super().__init__(f"{reason.value}: {self.detail}" if self.detail else reason.value)


class WeightsError(RunError):
    """Model weights that are missing, unreadable or not what they claim to be."""


class ModelError(RunError):
    """A model folder or checkpoint that is damaged, or of another kind than expected."""


class ModelMismatchError(RunError):
    """The query's model is not the one that the index was built with."""


class DataFolderError(RunError):
    """A data folder that is missing, read-only, full, or written by a newer attrib."""


class DataFolderBusyError(DataFolderError):
    """Another process is using the data folder."""


class NothingLeftError(RunError):
    """A question that leaves out every training image, so that none could have influence."""


class WorkersError(RunError):
    """Redis cannot be reached, or a worker cannot do what it is asked to."""


class IndexFailedError(RunError):
    """The index refused or lost an operation."""


class IndexRefusedError(IndexFailedError):
    """The index does not do such a thing (strict mode, a quota); another question it may answer."""
