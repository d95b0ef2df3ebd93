"""The Python facade: what the command line does, for scripts and notebooks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from embed.backbones import DEFAULT_BACKBONE
from embed.registry import find_model
from ingest.decode import DecodeLimits, decode
from ingest.download_settings import DownloadSettings
from ingest.errors import (
    AttribError,
    DataFolderError,
    EmptyQueryError,
    ImageError,
    SourceError,
    UsageError,
)
from ingest.formats import IMAGE_SUFFIXES
from ingest.listing import LISTING_SUFFIXES
from ingest.source import TarSource, UrlListSource, open_sources
from ingest.storage import is_url
from search.answer import Attribution
from search.checks import check_mass
from search.collection import Collection
from search.feature_place import keep_features_at
from search.folder import check_dataset_name
from search.index_place import new_index_settings
from search.index_url import parse_index_url
from search.ingestion import IngestReport, IngestSettings, Progress
from search.ingestion import ingest as run_ingest
from search.picture import draw_picture, save_picture
from search.removal import take_down

if TYPE_CHECKING:
    from embed.embedder import Embedder, Precision
    from embed.model import AttributionModel
    from search.edge_settings import Quantization

__all__ = ["Opened", "Queryable", "dataset_name", "ingest_into", "open_data", "read_rejects"]

Queryable: TypeAlias = "str | Path | bytes | Image.Image"
"""A path, the bytes of an image file, or a decoded image."""


class Opened:
    """A data folder that is open for queries. Close it, or use it as a context manager.

    One process at a time can have a data folder open.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def query(
        self,
        image: Queryable,
        *,
        k: int = 50,
        mass: float | None = None,
        where: Mapping[str, Sequence[str] | str] | None = None,
        without: Mapping[str, Sequence[str] | str] | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> Attribution:
        """Attribute one generated image.

        Args:
            image: a path, bytes of an image file, or a PIL image.
            k: rows to return, at most.
            mass: end the rows where they carry this share of the influence, such as 0.99.
            where: show only training images of which these fields have (one of) these values.
            without: answer as if the training images of which these fields have (one of) these
                values were not in the collection; nothing is changed.
            group_by: a payload field to sum the influence of the whole support by.
            exact: compare with every training image.

        Raises:
            ImageError: it is no image that can be used.
            UsageError: k < 1, a mass that is no share, or a filter on a field that has no index.
            RunError: no training image is left.
        """
        name = str(image) if isinstance(image, str | Path) else "image"
        return self.query_many(
            [self.load(image)],
            names=[name],
            k=k,
            mass=mass,
            where=where,
            without=without,
            group_by=group_by,
            exact=exact,
        )[0]

    def query_many(
        self,
        images: Sequence[Queryable],
        *,
        names: Sequence[str] | None = None,
        k: int = 50,
        mass: float | None = None,
        where: Mapping[str, Sequence[str] | str] | None = None,
        without: Mapping[str, Sequence[str] | str] | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> list[Attribution]:
        """Attribute many generated images, embedded and searched in batches; see `query`."""
        if not images:
            raise EmptyQueryError("no image given")
        if names is None:
            names = [
                str(image) if isinstance(image, str | Path) else f"image {i}"
                for i, image in enumerate(images)
            ]
        if k < 1:
            raise EmptyQueryError(f"k must be at least 1, not {k}")
        check_mass(mass)
        features = self._collection.features([self.load(image) for image in images])
        return self._collection.attribute(
            features,
            names,
            k=k,
            mass=mass,
            where=_listed(where),
            without=_listed(without),
            group_by=group_by,
            exact=exact,
        )

    @staticmethod
    def load(image: Queryable) -> Image.Image:
        """The decoded RGB image.

        Raises:
            SourceError: no such file.
            ImageError: not an image that can be used.
        """
        if isinstance(image, Image.Image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")  # through the decoder: alpha, 16 bits and the like
            return decode(buffer.getvalue()).image
        if isinstance(image, bytes):
            return decode(image).image
        path = Path(image)
        limits = DecodeLimits()
        try:
            if path.stat().st_size > limits.max_bytes:
                raise SourceError(f"{path} has more bytes than the limit of {limits.max_bytes:,}")
            data = path.read_bytes()
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
        try:
            return decode(data, limits).image
        except ImageError as exc:
            raise ImageError(
                exc.reason, f"{path}: {exc.detail}" if exc.detail else str(path)
            ) from exc

    def picture(self, answer: Attribution, image: Queryable, path: str | Path) -> None:
        """Draw an answer to `image` into a file (.png, .jpg or .webp by its name)."""
        drawn = draw_picture(answer, self.load(image), self._collection.image_of)
        save_picture(drawn, path)

    def info(self) -> dict[str, Any]:
        """What the data folder holds."""
        return self._collection.facts()

    def matching(
        self, *, keys: Sequence[str] = (), where: Mapping[str, Sequence[str]] | None = None
    ) -> int:
        """How many training images have one of the keys or fit the filter."""
        index = self._collection.index
        count = index.count({"key": list(keys)}) if keys else 0
        if where:
            count += index.count(where)
            if keys:
                both = {**where, "key": [*where.get("key", []), *keys]}
                count -= index.count(both) if "key" not in where else 0
        return count

    def delete(
        self, *, keys: Sequence[str] = (), where: Mapping[str, Sequence[str]] | None = None
    ) -> int:
        """Take training images down for good; returns how many. See ``attrib delete``."""
        if not keys and not where:
            raise UsageError("say what to delete: keys or where")
        return take_down(self._collection, keys=keys, where=where)

    def close(self) -> None:
        """Let go of the data folder. Calling it again does nothing."""
        self._collection.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        collection = self._collection
        return (
            f"<attrib data {str(collection.folder.root)!r}: {collection.index.count():,} training "
            f"images, model {collection.model.name}>"
        )


def _listed(where: Mapping[str, Sequence[str] | str] | None) -> dict[str, list[str]]:
    return {
        field: [values] if isinstance(values, str) else list(values)
        for field, values in (where or {}).items()
    }


def open_data(data: str | Path, *, model: str | None = None) -> Opened:
    """Open a data folder that `attrib ingest` made. `model`: refuse any other model than this.

    Raises:
        DataFolderError: there is none, it is damaged, newer or in use.
        ModelMismatchError: the index was built with another model.
    """
    wanted = find_model(model) if model is not None else None
    return Opened(Collection.open(Path(data), model=wanted))


def ingest_into(
    data: str | Path,
    sources: Sequence[str],
    *,
    dataset: str | None = None,
    model: str | None = None,
    force: bool = False,
    settings: IngestSettings | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    quantization: Quantization | None = None,
    index: str | None = None,
    index_shards: int | None = None,
    index_replicas: int | None = None,
    progress: Progress | None = None,
    calibrate: bool = True,
    calibrating: Callable[[], Progress] | None = None,
    retry_failed: bool = False,
    download: DownloadSettings | None = None,
    features_to: str | None = None,
    run: Callable[..., IngestReport] = run_ingest,
) -> tuple[IngestReport, dict[str, Any]]:
    """Ingest training images into a data folder; see ``attrib ingest``.

    Args beyond the command's: `progress` of the images, and `calibrating`, called for that of the
    calibration where there is one; `download`, how the images of lists of URLs are fetched; `run`,
    what does the work (`ThroughWorkers`, or this process).

    Returns the report and facts of the run (`model`, `hint`; `calibrator`, whether it was
    `calibrated` now, and why that failed, `calibration_error`).

    Raises:
        UsageError: a model, dataset or option that is not there.
        RunError: sources that cannot be read, a disk that refuses, an index that fails.
    """
    settings = settings or IngestSettings()
    opened = open_sources(list(sources), settings.limits.max_bytes, download)
    for source in opened:
        if not isinstance(source, TarSource):
            next(source.items(), None)  # a source without images fails before anything is made
    name = check_dataset_name(dataset or dataset_name(sources[0]))
    wanted = find_model(model) if model is not None else None
    loaded: list[Embedder] = []

    def first() -> AttributionModel:
        from embed.embedder import Embedder

        chosen = wanted or find_model(DEFAULT_BACKBONE)
        embedder = Embedder(chosen.backbone, device=device, precision=precision)
        loaded.append(embedder)
        return chosen.with_weights(embedder.weights_hash)

    url = None if index is None else parse_index_url(index)
    layout = new_index_settings(url, quantization, index_shards, index_replicas)
    if features_to is not None:
        keep_features_at(Path(data), features_to)
    with (
        ExitStack() as downloads,
        Collection.create(Path(data), wanted, first, settings=layout, index_url=url) as collection,
    ):
        for source in opened:
            if isinstance(source, UrlListSource):
                downloads.callback(source.close)
        if loaded:
            collection.adopt(loaded[0])
        report = run(
            collection,
            lambda: collection.embedder(device=device, precision=precision),
            opened,
            name,
            settings=settings,
            force=force,
            retry_failed=retry_failed,
            progress=progress,
        )
        hint = ""
        if wanted is None and collection.model.name == DEFAULT_BACKBONE and report.ingested:
            hint = (
                f"{DEFAULT_BACKBONE} is small and quick; where the answer matters, choose a larger "
                "one, such as --model dino-vitb16 (see `attrib models list`)"
            )
        calibrated, error = False, ""
        if calibrate:
            calibrated, error = _calibrated(collection, device, precision, calibrating)
        return report, {
            "model": collection.model.name,
            "hint": hint,
            "calibrator": asdict(collection.model.calibrator),
            "calibrated": calibrated,
            "calibration_error": error,
        }


def _calibrated(
    collection: Collection,
    device: str | None,
    precision: Precision,
    calibrating: Callable[[], Progress] | None,
) -> tuple[bool, str]:
    """Whether the collection was calibrated by itself; what went wrong if that failed.

    All images are in by now: whatever happens here, the ingest was one.
    """
    from evaluation.self_calibration import calibrate_itself, is_due

    try:
        if not is_due(collection.model.calibrator, collection.index.count()):
            return False, ""
        collection.embedder(device=device, precision=precision)
        calibrate_itself(collection, progress=calibrating() if calibrating else None)
    except AttribError as exc:
        return False, str(exc)
    except Exception as exc:
        return False, f"unexpected {type(exc).__name__}: {exc}"
    return True, ""


def read_rejects(data: str | Path) -> list[dict[str, str]]:
    """The images that could not be used; works while another process uses the folder.

    Raises:
        DataFolderError: no data folder, or a damaged table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = Path(data)
    if not (root / "attrib.json").is_file():
        raise DataFolderError(
            f"{root} is no attrib data folder; make one with `attrib ingest SOURCE --data {root}`"
        )
    path = root / "rejects.parquet"
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, str]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as exc:
        raise DataFolderError(f"{path} is damaged: {exc}") from exc
    return rows


def dataset_name(source: str) -> str:
    """A name from the source's: ``laion-subset/`` and ``{00000..00010}.tar`` in it give one."""
    is_in_store = is_url(source)
    path = Path(source.partition("://")[2].partition("?")[0] if is_in_store else source)
    if any(c in path.name for c in "{}*?["):
        path = path.parent
    if is_in_store:  # a store is not asked what is a folder: its name tells
        is_file = path.suffix.lower() in (".tar", ".gz", ".tgz", *LISTING_SUFFIXES, *IMAGE_SUFFIXES)
        name = path.stem if is_file else path.name
    else:
        path = path.resolve()
        name = path.name if path.is_dir() else path.stem
    return (
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip(
            "._-"
        )[:100]
        or "images"
    )
