"""What `benchmarks.near_copy` measures on: features, pairs that are no copies, and copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from embed.embedder import Embedder
from embed.model import AttributionModel
from ingest.thumbnail import SIDE
from search.audit.copy_edits import EDITS, edited
from search.audit.copy_score import Agreement, Edges, compare, copy_scores

_BATCH = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Folder:
    """The training images."""

    paths: Sequence[Path]
    creators: Sequence[str]  # (images,), lower case; '' where unknown

    @classmethod
    def read(cls, images: Path, metadata: Path) -> Folder:
        """Images by name; `metadata`: Parquet with file and creator."""
        paths = sorted(path for path in images.rglob("*") if path.suffix in {".jpg", ".png"})
        table = pq.read_table(metadata, columns=["file", "creator"]).to_pydict()
        known = {
            Path(file).name: " ".join(creator.lower().split())
            for file, creator in zip(table["file"], table["creator"], strict=True)
        }
        return cls(paths, [known.get(path.name, "") for path in paths])

    def picture(self, number: int) -> Image.Image:
        """No larger than a thumbnail: an audit sees no more."""
        return opened(self.paths[number])

    def is_for_fit(self, number: int) -> bool:
        """Half of the images, by their names."""
        return hashlib.sha256(self.paths[number].name.encode()).digest()[0] < 128

    def edges(self, number: int) -> Edges:
        """Of a picture; the last ones are kept."""
        return _edges(self.paths[number])


@lru_cache(maxsize=2000)
def _edges(path: Path) -> Edges:
    return Edges.of(opened(path))


def opened(path: Path) -> Image.Image:
    """As a thumbnail shows it."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return image


def embedded(embedder: Embedder, images: Iterable[Image.Image]) -> Floats:
    """(images, dim) base features, rounded as on their way to disk."""
    parts: list[NDArray[np.float16]] = []
    batch: list[NDArray[np.uint8]] = []
    for image in images:
        batch.append(embedder.backbone.preprocessing.apply(image))
        if len(batch) == _BATCH:
            parts.append(embedder.embed(np.stack(batch)).astype(np.float16))
            batch = []
    if batch:
        parts.append(embedder.embed(np.stack(batch)).astype(np.float16))
    return np.concatenate(parts).astype(np.float32)


def training_features(folder: Folder, model: AttributionModel, cache: Path) -> Floats:
    """(images, dim) base features, kept in `cache`."""
    names = "".join(path.name for path in folder.paths)
    digest = hashlib.sha256((model.backbone.name + names).encode()).hexdigest()[:16]
    kept = cache / f"near-copy-{digest}.npy"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        pictures = (folder.picture(number) for number in range(len(folder.paths)))
        np.save(kept, embedded(Embedder(model.backbone), pictures))
    features: Floats = np.load(kept)
    return features


@dataclass
class Pairs:
    """Pairs of pictures, and how they agree."""

    generated: list[int] = field(default_factory=list)
    training: list[int] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # as an audit has them
    agreements: list[Agreement] = field(default_factory=list)  # on the fine grid; to fit weights

    def add(
        self, numbers: tuple[int, int], similarity: float, pictures: tuple[Edges, Edges], fit: bool
    ) -> None:
        """One pair more: generated and training image. Agreements are made where `fit`."""
        self.generated.append(numbers[0])
        self.training.append(numbers[1])
        self.similarity.append(similarity)
        generated, training = pictures
        self.scores += copy_scores(generated, [training])
        if fit:
            self.agreements += compare(generated, [training])

    def features(self) -> NDArray[np.float64]:
        """(pairs, features)"""
        return np.array([agreement.features for agreement in self.agreements])


def one_drawing(file: Path) -> set[frozenset[str]]:
    """Pairs of file names that show one drawing: lines of two names, after # a remark."""
    lines = (line.partition("#")[0].split() for line in file.read_text("utf-8").splitlines())
    return {frozenset(names) for names in lines if names}


def non_copies(
    folder: Folder,
    generated: Floats,
    training: Floats,
    rows: int,
    queries: Sequence[int],
    copies: set[frozenset[str]],
) -> Iterator[tuple[int, int, float]]:
    """(image, row, similarity): the images of a creator against the rows nearest to them among all
    other creators', as if the creator's own images were not in the collection.
    """
    creators = np.array(folder.creators)
    for number in queries:
        similarities = training @ generated[number]
        similarities[(creators == creators[number]) | (creators == "")] = -1
        for row in np.argsort(-similarities, kind="stable")[:rows].tolist():
            if frozenset((folder.paths[number].name, folder.paths[row].name)) not in copies:
                yield number, row, float(similarities[row])


def compared(folder: Folder, pairs: Iterable[tuple[int, int, float]], fit: bool) -> Pairs:
    """Pairs of images of the folder, those of one generated image one after the other."""
    made = Pairs()
    for number, row, similarity in pairs:
        made.add((number, row), similarity, (folder.edges(number), folder.edges(row)), fit)
    return made


def copies_of(folder: Folder, numbers: Sequence[int], name: str) -> Iterator[Image.Image]:
    """Those images after one edit."""
    assert name in EDITS
    for number in numbers:
        yield edited(folder.picture(number), name, number)
