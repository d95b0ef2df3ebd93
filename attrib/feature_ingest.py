"""The Python side of ``attrib ingest --features``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrib.opened import dataset_name
from embed.registry import find_model
from ingest.errors import SourceError, UsageError
from ingest.feature_files import FeatureFile, NpyFeatures, open_feature_folder
from ingest.formats import has_image_suffix
from ingest.item import printable
from ingest.storage import is_url
from ingest.tar import is_tar_name
from search.collection import Collection
from search.feature_ingest import SHARD_ROWS, check_dim
from search.feature_ingest import ingest_features as run_ingest
from search.feature_place import keep_features_at
from search.folder import check_dataset_name
from search.index_place import new_index_settings
from search.index_url import parse_index_url

if TYPE_CHECKING:
    from embed.embedder import Precision
    from embed.model import AttributionModel
    from search.edge_settings import Quantization
    from search.ingestion import IngestReport, Progress

__all__ = ["ingest_features_into", "open_feature_files"]

_KINDS = (
    "a folder that clip-retrieval wrote (img_emb/, metadata/), a .npy file, or a .pth file with "
    "feats and paths"
)


def ingest_features_into(
    data: str | Path,
    sources: Sequence[str],
    *,
    dataset: str | None = None,
    model: str | None = None,
    force: bool = False,
    shard_rows: int = SHARD_ROWS,
    device: str | None = None,
    precision: Precision = "auto",
    quantization: Quantization | None = None,
    index: str | None = None,
    index_shards: int | None = None,
    index_replicas: int | None = None,
    progress: Progress | None = None,
    features_to: str | None = None,
) -> tuple[IngestReport, dict[str, str]]:
    """Ingest ready-made base features into a data folder; see ``attrib ingest --features``.

    Returns the report and facts of the run (`model`, `hint`).

    Raises:
        UsageError: a model or dataset that is not there; no model for a new folder.
        ModelMismatchError: features of another length than the model's backbone makes.
        RunError: files that cannot be read, a disk that refuses, an index that fails.
    """
    files = open_feature_files(sources)
    name = check_dataset_name(dataset or dataset_name(sources[0]))
    wanted = find_model(model) if model is not None else None
    if wanted is not None:
        check_dim(files, wanted.backbone.name, wanted.backbone.dim)
    elif not (Path(data) / "current").is_file():
        raise UsageError(
            "--features needs --model in a new data folder: nothing else can tell what the "
            "features were made with; see `attrib models list`"
        )

    def first() -> AttributionModel:
        if wanted is None:
            raise UsageError("--features needs --model in a new data folder")
        if wanted.weights_hash:
            return wanted
        # Queries will be made with these weights: the collection is bound to them.
        from embed.embedder import Embedder

        embedder = Embedder(wanted.backbone, device=device, precision=precision)
        return wanted.with_weights(embedder.weights_hash)

    url = None if index is None else parse_index_url(index)
    layout = new_index_settings(url, quantization, index_shards, index_replicas)
    if features_to is not None:
        keep_features_at(Path(data), features_to)
    with Collection.create(Path(data), wanted, first, settings=layout, index_url=url) as collection:
        report = run_ingest(
            collection, files, name, shard_rows=shard_rows, force=force, progress=progress
        )
        return report, {"model": collection.model.name, "hint": ""}


def open_feature_files(sources: Sequence[str]) -> list[FeatureFile]:
    """The feature files that the sources name, each once.

    A .npy file may have a parquet file of the same stem beside it, which describes its rows.

    Raises:
        UsageError: images where features are expected, or nothing.
        SourceError: a file that is not there or not of those kinds.
    """
    if not sources:
        raise UsageError(f"no features given: name {_KINDS}")
    files: list[FeatureFile] = []
    for source in dict.fromkeys(sources):
        if is_url(source):
            raise UsageError(f"--features reads files of this machine; copy {source} here first")
        path = Path(source).expanduser()
        name = printable(source)
        if is_tar_name(path.name) or has_image_suffix(path):
            raise UsageError(
                f"--features takes ready-made features, and {name} holds images: leave --features "
                "out to ingest them"
            )
        if path.is_dir():
            files += open_feature_folder(path.parent if path.name == "img_emb" else path)
        elif not path.exists():
            raise SourceError(f"no such file or folder: {name}")
        elif path.suffix == ".npy":
            table = path.with_suffix(".parquet")
            files.append(NpyFeatures(path, table if table.is_file() else None))
        elif path.suffix in (".pth", ".pt"):
            from embed.feature_checkpoint import CheckpointFeatures

            files.append(CheckpointFeatures(path))
        else:
            raise SourceError(f"cannot tell what {name} is: expected {_KINDS}")
    return files
