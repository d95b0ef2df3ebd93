"""What the inner stages of an EfficientNet see: shapes, textures and colours, and where they are.

The last layer of a classifier keeps what tells classes apart; which drawing an image was made
after is told by what it throws away. Measured in docs/attribution-quality.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Stages"]

_POOLED = (1, 2, 3, 4, 5)
_PLACED = 4
_GRID = 3


class Stages(nn.Module):
    """Means and deviations over positions of five stages, and a 3 x 3 grid of means of one.

    For EfficientNet-Lite0: the stages of 24, 40, 80, 112 and 192 channels, the grid of 112: 1,904
    numbers. The head is not run.
    """

    def __init__(self, network: Any) -> None:  # noqa: ANN401 (timm's EfficientNet)
        super().__init__()
        self.conv_stem, self.bn1 = network.conv_stem, network.bn1
        self.blocks = network.blocks[: _POOLED[-1] + 1]

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, height, width) to (n, dim)."""
        x = self.bn1(self.conv_stem(images))
        parts = []
        placed = x
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _POOLED:
                parts += [x.mean((2, 3)), x.std((2, 3), correction=0)]
            if number == _PLACED:
                placed = nn.functional.adaptive_avg_pool2d(x, _GRID).flatten(1)
        return torch.cat([*parts, placed], dim=1)
