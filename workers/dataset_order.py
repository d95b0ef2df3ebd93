"""A task for a worker: which model of which dataset to make. JSON alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ModelOrder", "read_model_order"]


@dataclass(frozen=True)
class ModelOrder:
    """One sending of a model.

    Attributes:
        plan: name of this run of the build; the dataset's folder says which run it is of.
        send: name of this sending.
        number: of the model.
        out: the dataset's folder.
        generator: its folder, or a repository of the hub.
        revision: of the repository; '' for none.
        exemplars: sources of the library.
        class_field: as of `evaluation.dataset.library.Library`.
        lease_s: without a sign of life for so long, the model is given to another worker.
    """

    plan: str
    send: str
    number: int
    out: str
    generator: str
    revision: str
    exemplars: tuple[str, ...]
    class_field: str | None
    lease_s: float

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "exemplars": list(self.exemplars)}


def read_model_order(values: dict[str, Any]) -> ModelOrder:
    """The inverse of `ModelOrder.values`.

    Raises:
        ValueError: it is no order, or of another attrib.
    """
    try:
        return ModelOrder(**{**values, "exemplars": tuple(values["exemplars"])})
    except (TypeError, KeyError) as exc:
        raise ValueError(f"no order: {type(exc).__name__} {exc}") from exc
