"""The distractors of the protocol: features of many images, streamed by blocks, never all in
memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.model import AttributionModel, identity_model
from embed.model import load as load_model
from evaluation.extract import Embeds, Progress, extract
from evaluation.gallery_parts import Names, Part, kept_parts, shard_parts
from evaluation.official import read_npy_features, read_subset_file
from ingest.errors import DataFolderError, ModelError, ModelMismatchError, SourceError, WeightsError
from ingest.item import printable
from ingest.ledger import Ledger
from ingest.source import open_sources
from search.folder import DataFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embed.backbones import Backbone
    from embed.mapper import MapperPair

    Floats = NDArray[np.floating[Any]]
    Array = NDArray[np.float32]

__all__ = ["Gallery", "Names", "Part", "distractors"]

_TORCH_SUFFIXES = (".pth", ".pt")


class Gallery:
    """Features of images in a fixed order: base features, or features once it is `mapped`.

    Attributes:
        dim: length of a feature.
    """

    def __init__(self, parts: Iterable[Part], pair: MapperPair | None = None) -> None:
        self._parts = tuple(part for part in parts if len(part.features))
        self._pair = pair
        dims = {part.features.shape[1:] for part in self._parts}
        if not self._parts:
            raise SourceError("no distractors: no feature was found")
        if len(dims) != 1 or len(next(iter(dims))) != 1:
            shapes = ", ".join(sorted(str(dim) for dim in dims))
            raise ModelError(f"distractors of unequal features: {shapes}; they need one backbone")
        self._base_dim = int(self._parts[0].features.shape[1])
        if pair is not None and pair.in_dim != self._base_dim:
            raise ModelError(
                f"the distractors have base features of {self._base_dim} numbers, the model takes "
                f"{pair.in_dim}"
            )
        self.dim = self._base_dim if pair is None else pair.out_dim

    @classmethod
    def of_array(cls, features: Floats, names: Names | None = None) -> Gallery:
        """Features (images, dim) that are at hand, in memory or as a memory map.

        Raises:
            ModelError: of another shape.
            SourceError: none, or other names than there are images.
        """
        known = names or Names()
        part = Part(features, lambda: known)
        part.names()
        return cls([part])

    @classmethod
    def of_shards(cls, *folders: Path) -> Gallery:
        """All shards of feature folders in clip-retrieval's layout, memory-mapped, by name.

        Their metadata, where it is there, names the images.

        Raises:
            SourceError: no shard there, or one that cannot be read.
            ModelError: shards of unequal dim.
        """
        return cls(part for folder in folders for part in shard_parts(folder))

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def blocks(self, rows: int) -> Iterator[Array]:
        """float32 (rows, dim) at a time, in order; the last may be shorter.

        A block may be a view of the file that it is read from: it is not to be written to.

        Raises:
            WeightsError: features that are not finite.
        """
        if rows < 1:
            raise ValueError(f"rows must be 1 or more, not {rows}")
        for pieces in self._pieces(rows):
            block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            if self._pair is not None:
                yield self._pair.real(block)
                continue
            # A sum is not finite where a number of it is not, and takes no second array.
            if not np.isfinite(np.einsum("nd->n", block)).all():
                self._refuse_not_finite(block)
            yield block

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """(images,) names: the path of each where it is known, or its key, or its number among
        all that are stored."""
        found: list[str] = []
        before = 0
        for part in self._parts:
            names = part.names()
            stored = len(part.features)
            paths = names.paths or [""] * stored
            keys = names.keys or [""] * stored
            kept = range(stored) if part.kept is None else part.kept
            found += [paths[row] or keys[row] or str(before + row) for row in kept]
            before += stored
        return tuple(found)

    def mapped(self, pair: MapperPair) -> Gallery:
        """In features: each block goes through the real mapper when it is asked for.

        Raises:
            ModelError: the mappers take another dim, or it is mapped already.
        """
        if self._pair is not None:
            raise ModelError("the distractors are mapped already")
        return Gallery(self._parts, pair)

    def materialised(self, rows: int = 8192) -> Gallery:
        """The same in memory, for what is asked for often: float32, 4 x images x dim bytes."""
        features = np.empty((len(self), self.dim), dtype=np.float32)
        start = 0
        for block in self.blocks(rows):
            features[start : start + len(block)] = block
            start += len(block)
        hashes: list[str] = []
        for part in self._parts:
            known = part.names().hashes or [""] * len(part.features)
            hashes += known if part.kept is None else [known[row] for row in part.kept]
        return Gallery.of_array(features, Names(self.keys, self.keys, hashes))

    def without(
        self,
        keys: Collection[str] = (),
        paths: Collection[Path] = (),
        hashes: Collection[str] = (),
    ) -> Gallery:
        """The same without images that go by one of the keys, or are one of the files.

        Args:
            keys: as the gallery's own `keys`, or as stored.
            paths: of files, links followed.
            hashes: sha256 of files, 64 hex digits: the same bytes under another name.

        Raises:
            SourceError: nothing is left.
        """
        gone_keys, gone_hashes = set(keys), set(hashes)
        gone_paths = {os.path.realpath(path) for path in paths}
        if not gone_keys and not gone_paths and not gone_hashes:
            return self
        # Following links costs calls of the system; a file under another name is known by its hash.
        last = {os.path.basename(path) for path in gone_paths}  # noqa: PTH119
        parts: list[Part] = []
        before = 0
        for part in self._parts:
            names, stored = part.names(), len(part.features)
            gone = {i for i, key in enumerate(names.keys) if key in gone_keys}
            gone |= {i for i, path in enumerate(names.paths) if path and path in gone_keys}
            gone |= {i for i, known in enumerate(names.hashes) if known and known in gone_hashes}
            gone |= {
                i
                for i, path in enumerate(names.paths)
                if path.rpartition("/")[2] in last and names.is_file_of(i, gone_paths)
            }
            if gone_keys and not names.keys and not names.paths:
                gone |= {row for row in range(stored) if str(before + row) in gone_keys}
            before += stored
            if gone:
                kept = np.arange(stored, dtype=np.int64) if part.kept is None else part.kept
                part = replace(part, kept=kept[~np.isin(kept, np.fromiter(gone, np.int64))])
            parts.append(part)
        left = Gallery(parts, self._pair)
        if not len(left):
            raise SourceError("no distractors are left without the exemplars")
        return left

    def _pieces(self, rows: int) -> Iterator[list[Array]]:
        """Pieces of parts that make a block together."""
        pieces: list[Array] = []
        wanted = rows
        for part in self._parts:
            start = 0
            while start < len(part):
                stop = min(len(part), start + wanted)
                pieces.append(part.rows(start, stop))
                wanted -= stop - start
                start = stop
                if not wanted:
                    yield pieces
                    pieces, wanted = [], rows
        if pieces:
            yield pieces

    def _refuse_not_finite(self, block: Array) -> None:
        bad = int((~np.isfinite(block).all(axis=1)).sum())
        if bad:
            raise WeightsError(
                f"{bad} of {len(block)} distractors looked at together have features that are not "
                "finite"
            )


def distractors(
    spec: str | Path,
    exclude: set[Path],
    embedder_factory: Callable[[], Embeds],
    backbone: Backbone,
    cache: Path | None = None,
    *,
    weights_hash: str = "",
    skip_bad: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Base features of the distractors that a person names, without the exemplars.

    Args:
        spec: images (a folder, list, tar or pattern, see `ingest.source.open_sources`), which are
            extracted into the cache; an attrib data folder; a clip-retrieval folder (`img_emb/`);
            an official `laion_subset.pth`; or an .npy of features.
        exclude: exemplar files, links followed. Images are known by their paths and, where a row
            has it, by the sha256 of their bytes.
        embedder_factory: as for `extract`; it is not called where the features are there.
        backbone: that the features must be of.
        cache: as for `extract`.
        weights_hash: of the backbone's weights, where the backbone does not pin it.
        skip_bad: leave images that cannot be used out; `note` is told how many.
        note: takes lines for the user.
        progress: told of images that are extracted.

    Raises:
        SourceError: nothing there, of no known kind, damaged, or nothing left.
        ModelError: features of another dim than the backbone's.
        ModelMismatchError: a data folder of another backbone.
        DataFolderError: a data folder that is damaged, in use, or without images.
    """
    path = Path(spec)
    # os.path: the methods of Path raise for names that are too long.
    is_file = os.path.isfile(path)  # noqa: PTH113
    if os.path.isfile(path / "attrib.json"):  # noqa: PTH113
        gallery = _of_data_folder(path, backbone, weights_hash)
    elif os.path.isdir(path / "img_emb"):  # noqa: PTH112
        gallery = Gallery.of_shards(path)
    elif path.suffix.lower() in _TORCH_SUFFIXES and is_file:
        features, names = read_subset_file(path)
        gallery = Gallery.of_array(features, Names(paths=names, folder=path.parent))
    elif path.suffix.lower() == ".npy" and is_file:
        gallery = Gallery.of_array(read_npy_features(path))
        if note is not None:
            note(f"{path} names no images: exemplars that are among them count as distractors")
    else:
        extracted = extract(
            open_sources([str(spec)]),
            embedder_factory,
            backbone,
            cache,
            weights_hash=weights_hash,
            skip_bad=skip_bad,
            progress=progress,
        )
        if extracted.rejects and note is not None:
            _, first, why = extracted.rejects[0]
            note(
                f"{len(extracted.rejects)} of {extracted.images} distractors cannot be used and "
                f"are left out, the first is {first} ({why})"
            )
        gallery = Gallery.of_shards(extracted.folder)
    if gallery.dim != backbone.dim:
        raise ModelError(
            f"{printable(str(spec))} has features of {gallery.dim} numbers, {backbone.name} gives "
            f"{backbone.dim}; they are of another backbone"
        )
    return gallery.without(paths=exclude, hashes=_hashes(exclude))


def _of_data_folder(root: Path, backbone: Backbone, weights_hash: str) -> Gallery:
    """What the ledger says is done, less what it says must go."""
    with DataFolder.open(root) as folder:
        if folder.current is None:
            raise DataFolderError(f"nothing was ingested into {root} yet; ingest the distractors")
        _check_backbone(root, load_model(folder.model(folder.current)), backbone, weights_hash)
        with closing(Ledger(folder.ledger)) as ledger:
            shards = ledger.shards()
            removals = ledger.removals()
        parts = []
        for shard in shards:
            for part in kept_parts(folder.features(shard.dataset), [shard.number]):
                part.names()  # now, while nobody else may rewrite the shard
                gone = {r.key for r in removals if r.shard == shard.number}
                parts.append(_less(part, gone) if gone else part)
    return Gallery(parts)


def _less(part: Part, gone: set[str]) -> Part:
    kept = [row for row, key in enumerate(part.names().keys) if key not in gone]
    return Part(part.features, part.read_names, np.asarray(kept, dtype=np.int64))


def _check_backbone(
    root: Path, built: AttributionModel, backbone: Backbone, weights_hash: str
) -> None:
    wanted = identity_model(backbone)
    known = wanted.weights_hash or weights_hash or built.weights_hash
    there = identity_model(built.backbone).with_weights(built.weights_hash)
    if there.feature_fingerprint != wanted.with_weights(known).feature_fingerprint:
        raise ModelMismatchError(
            f"{root} holds base features of {built.backbone.name} "
            f"(weights {built.weights_hash[:8]}), wanted are those of {backbone.name} "
            f"(weights {known[:8]}); name the images themselves, or another data folder"
        )


def _hashes(files: set[Path]) -> set[str]:
    found = set()
    for file in files:
        try:
            with file.open("rb") as data:
                found.add(hashlib.file_digest(data, "sha256").hexdigest())
        except OSError:  # known by its path alone, then
            continue
    return found
