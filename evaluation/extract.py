"""Base features of images, extracted once: shards in a cache, found again by files and weights.

    <cache>/<backbone>-<hash of weights><hash of preprocessing>/<hash of the list of files>/

Images go through the same decoding, preprocessing and rounding to float16 as those that are
ingested and those that are asked about, so that evaluation sees the very features of a query.
What is in such a folder: see `evaluation.extract_run`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs
from filelock import FileLock

from evaluation.extract_run import Embeds, Extracted, Progress, Run
from evaluation.features import CaseFeatures
from ingest.decode import DecodeLimits
from ingest.errors import ModelMismatchError, SourceError
from ingest.item import Item, printable
from ingest.source import FilesSource, ItemSource, Source
from ingest.storage import origin_of
from search.folder import writing

if TYPE_CHECKING:
    from embed.backbones import Backbone
    from evaluation.cases import TestCase

__all__ = ["Embeds", "Extracted", "Progress", "case_features", "default_cache", "extract"]

_HASH = 8
_FEW = 3


def default_cache() -> Path:
    """`cache/features` in `$ATTRIB_HOME`, or `features` in the user's cache folder."""
    home = os.environ.get("ATTRIB_HOME")
    if home:
        return Path(home) / "cache" / "features"
    return Path(platformdirs.user_cache_dir("attrib")) / "features"


def extract(
    images: Sequence[Path] | Sequence[Source],
    embedder_factory: Callable[[], Embeds],
    backbone: Backbone,
    cache: Path | None = None,
    *,
    weights_hash: str = "",
    skip_bad: bool = False,
    limits: DecodeLimits | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Base features of images, from the cache or else into it.

    Killed at any moment, the same call goes on with the shard that was begun.

    Args:
        images: files, in the order that the features are wanted in; or sources.
        embedder_factory: called for the loaded backbone once there is something to embed (or
            where nothing else tells the hash of its weights).
        backbone: its description.
        cache: a folder; `default_cache` when None.
        weights_hash: of the backbone's weights, where the backbone does not pin it.
        skip_bad: leave images that cannot be used out, instead of refusing them.
        limits: what an image may be.
        progress: told of the images.

    Raises:
        SourceError: an image that cannot be used (without `skip_bad`), a source that cannot be
            read, or no image at all.
        ModelMismatchError: the loaded weights are not those of `weights_hash`.
        DataFolderError: the disk refuses.
    """
    sources = _sources(images)
    loaded: list[Embeds] = []

    def embedder() -> Embeds:
        if not loaded:
            loaded.append(embedder_factory())
            if known and loaded[0].weights_hash != known:
                raise ModelMismatchError(
                    f"the weights of {backbone.name} are {loaded[0].weights_hash[:16]}, "
                    f"wanted are {known[:16]}"
                )
        return loaded[0]

    known = backbone.weights_hash or weights_hash
    known = known or embedder().weights_hash
    signature, count = _signature(sources)
    folder = (cache or default_cache()) / _model_name(backbone, known) / signature
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    try:
        with closing(Run(folder, backbone, embedder, skip_bad, limits, progress)) as run:
            extracted = run.go(sources, count)
    finally:
        lock.release()
    if not extracted.rows:
        raise SourceError(f"no usable image in {_few([source.name for source in sources])}")
    return extracted


def case_features(
    case: TestCase,
    embedder_factory: Callable[[], Embeds],
    backbone: Backbone,
    cache: Path | None = None,
    *,
    weights_hash: str = "",
    skip_bad: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> CaseFeatures:
    """The base features of a test case whose files are all there (`TestCase.checked`).

    Arguments are those of `extract`. With `skip_bad`, images that cannot be used are left out as
    missing ones are by `TestCase.checked`, and `note` is told of each model that lost some.

    Raises:
        SourceError: an image that cannot be used (without `skip_bad`), or no model that is left.
        ModelMismatchError, DataFolderError: as `extract`.
    """
    names = list(dict.fromkeys(path for model in case.models for path in model.images))
    extracted = extract(
        [case.root / name for name in names],
        embedder_factory,
        backbone,
        cache,
        weights_hash=weights_hash,
        skip_bad=skip_bad,
        progress=progress,
    )
    bad = {position for position, _, _ in extracted.rejects}
    if bad:
        case, told = case.without([names[position] for position in sorted(bad)], "unusable")
        if note is not None:
            for line in told:
                note(line)
    usable = [name for position, name in enumerate(names) if position not in bad]
    row = {name: number for number, name in enumerate(usable)}
    base = extracted.features().astype(np.float32)
    exemplars = [row[path] for model in case.models for path in model.exemplars]
    synth = [
        (row[path], position, kind)
        for position, model in enumerate(case.models)
        for kind, paths in model.synth.items()
        for path in paths
    ]
    sizes = [len(model.exemplars) for model in case.models]
    return CaseFeatures(
        name=case.name,
        model_ids=tuple(model.id for model in case.models),
        exemplars=base[exemplars],
        chunks=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        synth=base[[number for number, _, _ in synth]],
        synth_model=np.asarray([position for _, position, _ in synth], dtype=np.int64),
        synth_type=tuple(kind for _, _, kind in synth),
    )


# -- what is extracted, and where it is kept -------------------------------------------------------


class _PathsSource(FilesSource):
    """Images that were named one by one, in the order given, each once or more."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(Path(), [])
        self.paths = paths
        self.name = _few([printable(str(path)) for path in paths])

    def items(self) -> Iterator[Item]:
        for path in self.paths:
            try:
                found = path.stat()
                size, mtime_ns = found.st_size, found.st_mtime_ns
            except (OSError, ValueError):
                size = mtime_ns = 0
            yield Item(printable(str(path)), path, size, mtime_ns, "")


def _sources(images: Sequence[Path] | Sequence[Source]) -> list[Source]:
    paths = [image for image in images if isinstance(image, Path)]
    if not images:
        raise SourceError("no images to extract features of")
    if paths:
        return [_PathsSource(paths)]
    return [image for image in images if not isinstance(image, Path)]


def _signature(sources: Sequence[Source]) -> tuple[str, int | None]:
    """What tells one list of files from another, and how many images it has (None: unknown)."""
    digest = hashlib.sha256()
    count: int | None = 0
    for source in sources:
        if isinstance(source, ItemSource):
            for item in source.items():
                digest.update(f"{origin_of(item.path)}\0{item.size}\0{item.mtime_ns}\n".encode())
                count = None if count is None else count + 1
        else:
            digest.update(f"{origin_of(source.path)}\0{source.signature}\n".encode())
            count = None
    return digest.hexdigest()[:16], count


def _model_name(backbone: Backbone, weights_hash: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", backbone.name).strip("-.")[:60] or "backbone"
    # The network too: one state of weights may serve two (another pooling, another activation).
    what = [
        backbone.preprocessing.to_dict(),
        backbone.family,
        backbone.architecture,
        backbone.options,
    ]
    text = json.dumps(what, sort_keys=True)
    return f"{plain}-{weights_hash[:_HASH]}{hashlib.sha256(text.encode()).hexdigest()[:_HASH]}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
