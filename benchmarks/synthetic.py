"""Synthetic training sets: features with the structure of image embeddings, and their payloads.

Two kinds, both of 512 numbers that come from 64 latent ones by a random linear map plus noise of
0.3 per number, then L2-normalised:

- ``clustered``: 2,000 Gaussian centres, spread 0.7 within a cluster. Motifs, as in web images.
- ``sphere``: uniform on the sphere. No structure to exploit: harder for any approximate index.

Everything is a function of (kind, seed, block), so that a block can be made again at any time and
no more than one is ever held. One in a hundred training images is an exact copy of another of its
block, with the same vector and sha256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIM", "Block", "Kind", "block_of", "blocks", "payloads", "queries"]

Kind = Literal["clustered", "sphere"]

DIM = 512
LATENT = 64
CENTRES = 2_000
SPREAD = 0.7
NOISE = 0.3
COPIES = 0.01
BLOCK = 8_192

CREATORS = 5_000
ZIPF = 1.1
LICENCES = ("cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "public-domain", "")
DATASETS = ("museum", "photos", "web")
WORDS = [
    "a",
    "the",
    "red",
    "old",
    "large",
    "portrait",
    "of",
    "woman",
    "river",
    "boat",
    "night",
    "oil",
    "garden",
    "street",
    "horse",
    "study",
]
CAPTION = 8


@dataclass(frozen=True)
class Block:
    """Consecutive training images.

    Attributes:
        start: number of the first one.
        vectors: (images, DIM) float32, L2-normalised.
        image: (images,) number of the image that this one is a copy of, itself mostly.
    """

    start: int
    vectors: NDArray[np.float32]
    image: NDArray[np.int64]


def blocks(kind: Kind, count: int, seed: int = 0) -> Iterator[Block]:
    """`count` training images in blocks of `BLOCK`."""
    for start in range(0, count, BLOCK):
        yield block_of(kind, start, min(BLOCK, count - start), seed)


def block_of(kind: Kind, start: int, count: int, seed: int = 0) -> Block:
    """The `count` training images from number `start` on, `start` a multiple of `BLOCK`."""
    random = np.random.default_rng((seed, 1, start // BLOCK))
    vectors = _draw(kind, count, random, seed)
    image = np.arange(start, start + count)
    copies = np.flatnonzero(random.random(count) < COPIES)
    copies = copies[copies > 0]
    originals = (random.random(len(copies)) * copies).astype(np.int64)
    for copy, original in zip(copies, originals, strict=True):  # in order: copies of copies
        image[copy] = image[original]
        vectors[copy] = vectors[original]
    return Block(start, vectors, image)


def queries(kind: Kind, count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, DIM) fresh draws from the distribution of the training images."""
    return _draw(kind, count, np.random.default_rng((seed, 2)), seed)


def payloads(block: Block, seed: int = 0) -> tuple[list[UUID], list[dict[str, Any]]]:
    """Ids and payloads of a block: creators by a Zipf law, captions of 8 words."""
    random = np.random.default_rng((seed, 3, block.start // BLOCK))
    chance = 1 / np.arange(1, CREATORS + 1) ** ZIPF
    count = len(block.vectors)
    creator = random.choice(CREATORS, count, p=chance / chance.sum())
    licence = random.integers(len(LICENCES), size=count)
    words = random.choice(WORDS, (count, CAPTION))
    sides = random.integers(256, 4096, (count, 2))
    ids, records = [], []
    for place in range(count):
        dataset = DATASETS[int(creator[place]) % len(DATASETS)]
        key = f"{block.start + place:09d}"
        ids.append(uuid5(NAMESPACE_URL, f"{dataset}/{key}"))
        records.append(
            {
                "key": key,
                "dataset": dataset,
                "creator": f"creator {creator[place]:04d}",
                "licence": LICENCES[licence[place]],
                "sha256": hashlib.sha256(str(block.image[place]).encode()).hexdigest(),
                "width": int(sides[place, 0]),
                "height": int(sides[place, 1]),
                "caption": " ".join(words[place]),
            }
        )
    return ids, records


def _draw(kind: Kind, count: int, random: np.random.Generator, seed: int) -> NDArray[np.float32]:
    world = np.random.default_rng((seed, 0))
    latent_map = world.standard_normal((LATENT, DIM), np.float32) / np.sqrt(np.float32(LATENT))
    latent = random.standard_normal((count, LATENT), np.float32)
    if kind == "clustered":
        centres = world.standard_normal((CENTRES, LATENT), np.float32)
        latent = centres[random.integers(CENTRES, size=count)] + np.float32(SPREAD) * latent
    else:
        latent *= np.sqrt(np.float32(LATENT)) / np.linalg.norm(latent, axis=1, keepdims=True)
    vectors = latent @ latent_map
    vectors += np.float32(NOISE) * random.standard_normal((count, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
