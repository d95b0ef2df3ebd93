"""Drawings on white paper, and answers that name them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from search.answer import Attribution, Owner, Row

__all__ = ["answer_of", "drawing"]


def drawing(seed: int, shapes: int = 14) -> Image.Image:
    """224 x 224, white all around: outlined polygons and ellipses in many colours."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (224, 224), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(shapes):
        x, y = rng.integers(30, 150, 2).tolist()
        width, height = rng.integers(12, 60, 2).tolist()
        colour = tuple(rng.integers(0, 230, 3).tolist())
        if rng.random() < 0.5:
            draw.ellipse((x, y, x + width, y + height), colour, (0, 0, 0), 2)
        else:
            corners = (rng.random((5, 2)) * (width, height) + (x, y)).round().tolist()
            draw.polygon([(a, b) for a, b in corners], colour, (0, 0, 0), 2)
    return image


def answer_of(names: Sequence[str], similarities: Sequence[float]) -> Attribution:
    """An answer with these training images as rows, whose ids are their names."""
    rows = tuple(
        Row(rank, similarity, 0.1, (0.1, 0.1), (Owner(name, name),))
        for rank, (name, similarity) in enumerate(zip(names, similarities, strict=True), start=1)
    )
    left = 1 - 0.1 * len(rows)
    return Attribution(
        "q.png", rows, left, (left, left), "exact", None, 99, 50, "made up", "f", {}, {}
    )
