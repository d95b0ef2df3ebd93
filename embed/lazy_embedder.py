"""The backbone of a model, loaded once it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embed.embedder import Embedder
    from embed.model import AttributionModel

__all__ = ["LazyEmbedder"]


class LazyEmbedder:
    """Call it for the embedder. Where all features are cached nobody does, and torch stays out."""

    def __init__(self, model: AttributionModel) -> None:
        self._model = model
        self._embedder: Embedder | None = None

    def __call__(self) -> Embedder:
        """The embedder, the same at every call.

        Raises:
            WeightsError: its weights are missing.
        """
        if self._embedder is None:
            from embed.embedder import Embedder

            self._embedder = Embedder(self._model.backbone)
        return self._embedder
