"""Ready-made base features in a PyTorch file: the paper's `laion_subset.pth`.

`{'feats': (images, dim) tensor, 'paths': list}`, see
https://github.com/PeterWang512/GenDataAttribution
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embed.weights import read_pickle
from ingest.errors import SourceError, WeightsError
from ingest.feature_files import FeatureBlock, FeatureFile, FeatureRow, file_signature
from ingest.item import printable

__all__ = ["CheckpointFeatures"]


class CheckpointFeatures(FeatureFile):
    """The features of a .pth file, memory-mapped where it allows that; a row's key is its path.

    Raises:
        SourceError: unreadable, carrying code, or of another layout.
    """

    def __init__(self, path: Path) -> None:
        import torch

        self.path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links)
        self.name = printable(str(path))
        self.signature = file_signature(path)
        content = _load(path)
        if not isinstance(content, dict) or "feats" not in content or "paths" not in content:
            raise SourceError(f"{self.name} does not hold features: it lacks feats and paths")
        feats, paths = content["feats"], content["paths"]
        if (
            not isinstance(feats, torch.Tensor)
            or feats.ndim != 2
            or not feats.is_floating_point()
            or 0 in feats.shape
        ):
            raise SourceError(
                f"{self.name}: feats is not a tensor of floating-point numbers, a row an image"
            )
        if not isinstance(paths, list | tuple) or not all(isinstance(p, str) for p in paths):
            raise SourceError(f"{self.name}: paths is not a list of paths")
        if len(paths) != len(feats):
            raise SourceError(f"{self.name} has {len(feats)} feats, but {len(paths)} paths")
        self.images, self.dim = (int(length) for length in feats.shape)
        self._feats = feats
        self._paths = paths

    def blocks(self, size: int, wanted: Callable[[int], bool]) -> Iterator[FeatureBlock]:
        """See `FeatureFile.blocks`."""
        for start in range(0, self.images, size):
            if wanted(start):
                names = [printable(path) for path in self._paths[start : start + size]]
                rows = [
                    FeatureRow(name or f"{start + i:09d}", name) for i, name in enumerate(names)
                ]
                part = self._feats[start : start + size].detach().float()
                yield FeatureBlock(start, part.numpy(), rows)


def _load(path: Path) -> Any:  # noqa: ANN401
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        # Files of before PyTorch 1.6 cannot be mapped; what cannot be read at all, or carries
        # code, is refused there with the reason.
        try:
            return read_pickle(path)
        except WeightsError as exc:
            raise SourceError(str(exc)) from exc
