"""A data folder opened for work: its ledger, its attribution model and its index."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embed.calibrator import Calibrator
from embed.model import AttributionModel, save_calibrator
from embed.model import load as load_model
from embed.shards import read_thumbnails
from ingest.errors import (
    DataFolderError,
    ModelMismatchError,
    RunError,
    UsageError,
)
from ingest.ledger import Ledger
from ingest.thumbnail import open_thumbnail
from search.answer import Attribution, Row
from search.attribution import Attributor
from search.edge_settings import EdgeSettings
from search.folder import DataFolder, writing
from search.index import Index, Where
from search.index_place import (
    IndexSettings,
    OpenIndex,
    check_place,
    create_index,
    new_place,
    on_server,
    open_index,
    remove_index,
    take_alias,
)
from search.index_url import IndexUrl
from search.removal import carry_out_removals
from search.server_settings import ServerSettings

if TYPE_CHECKING:
    from embed.embedder import Embedder, Precision

__all__ = ["Collection", "collection_name"]

_BATCH = 32


class Collection:
    """Use `open` or `create`, then `close`; or as a context manager.

    Attributes:
        folder: the data folder.
        name: of the collection in it.
        ledger: what was ingested.
        model: the attribution model that the features were made with.
        index: the features of the training images.
    """

    def __init__(
        self,
        folder: DataFolder,
        name: str,
        ledger: Ledger,
        model: AttributionModel,
        index: Index,
    ) -> None:
        self.folder = folder
        self.name = name
        self.ledger = ledger
        self.model = model
        self.index = index
        self._embedder: Embedder | None = None
        self._attributor: Attributor | None = None

    # -- opening and closing -------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        model: AttributionModel | None = None,
        name: str | None = None,
        shared: bool = False,
        wait_s: float = 2.0,
    ) -> Collection:
        """Open what was ingested. `model`: the one that the caller means to ask with, if any.

        `name`: of a collection that a re-mapping kept, instead of the current one. It has the
        images that were there then, less those taken down since. `shared`: only to ask, and
        beside a process that writes where the index is on a server; an embedded one has one user.

        Raises:
            DataFolderError: no data folder, a damaged or newer one, or in use; no such collection.
            ModelMismatchError: the collection was built with another model than `model`.
        """
        beside = shared and on_server(root)
        folder = DataFolder.read(root) if beside else DataFolder.open(root, wait_s=wait_s)
        try:
            kept = folder.collections()
            if name is not None and name not in kept:
                raise DataFolderError(
                    f"{root} has no collection {name!r}; it has {', '.join(kept) or 'none'}"
                )
            name = name or folder.current
            if name is None:
                raise DataFolderError(
                    f"nothing was ingested into {root} yet; run `attrib ingest SOURCE "
                    f"--data {root}`"
                )
            return cls._load(folder, name, model)
        except BaseException:
            folder.close()
            raise

    @classmethod
    def create(
        cls,
        root: Path,
        model: AttributionModel | None,
        first: Callable[[], AttributionModel],
        *,
        settings: IndexSettings | None = None,
        index_url: IndexUrl | None = None,
        wait_s: float = 2.0,
    ) -> Collection:
        """Open what was ingested, or begin a collection.

        `model`: the one that the caller means, if any; `first`: called for the model of a new
        collection, with its `weights_hash`, once the folder is known to be usable. `index_url`:
        the server that a new collection's index is to be on; `settings`: of a new index.

        Raises:
            DataFolderError: as `open`; or the folder cannot be written.
            ModelMismatchError: as `open`.
            UsageError: the collection's index is elsewhere than at `index_url`.
            IndexFailedError: the server cannot be reached, or fails.
        """
        if index_url is not None and not (root / "current").is_file():
            from search.server_collection import check_server  # it loads qdrant-client and gRPC

            check_server(index_url, index_url.name or "attrib")  # before anything is made
        folder = DataFolder.create(root, wait_s=wait_s)
        try:
            if (name := folder.current) is None:
                chosen = first()
                name = collection_name(chosen)
                path = folder.collection(name)
                # Left over from a start that was killed: nothing in it was ever acknowledged.
                remove_index(path)
                with writing(root):
                    shutil.rmtree(path, ignore_errors=True)
                    chosen.save(folder.model(name))
                fresh = _new_index(path, chosen, settings, index_url, root)
                with ExitStack() as opened:
                    opened.enter_context(closing(fresh))
                    with writing(root):
                        folder.set_current(name)
                    ledger = Ledger(folder.ledger)
                    opened.pop_all()
                return cls(folder, name, ledger, chosen, fresh)
            if index_url is not None:
                _check_there(root, index_url)
            return cls._load(folder, name, model)
        except BaseException:
            folder.close()
            raise

    @classmethod
    def _load(cls, folder: DataFolder, name: str, wanted: AttributionModel | None) -> Collection:
        model = load_model(folder.model(name))
        if wanted is not None:
            _check_same(folder.root, model, wanted)
        with ExitStack() as opened:
            ledger = opened.enter_context(closing(Ledger(folder.ledger, read_only=folder.shared)))
            index = opened.enter_context(closing(open_index(folder.collection(name), model=model)))
            if not folder.shared and carry_out_removals(folder, ledger, name, index):
                index.build()
            opened.pop_all()  # all went well: they stay open
        return cls(folder, name, ledger, model, index)

    def close(self) -> None:
        """Flush, and let go of everything. Calling it again does nothing."""
        with suppress(RunError):
            self.index.close()
        self.ledger.close()
        self.folder.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- asking --------------------------------------------------------------------------------

    def embedder(self, *, device: str | None = None, precision: Precision = "auto") -> Embedder:
        """The backbone, loaded at first use (this imports torch).

        Raises:
            WeightsError: its weights are missing.
            ModelMismatchError: they are others than the collection was built with.
        """
        if self._embedder is None:
            from embed.embedder import Embedder

            embedder = Embedder(self.model.backbone, device=device, precision=precision)
            known = self.model.weights_hash
            if known and embedder.weights_hash != known:
                raise ModelMismatchError(
                    f"the weights of {self.model.backbone.name} are not those that the index was "
                    f"built with: the index has {known[:16]}, these are "
                    f"{embedder.weights_hash[:16]}"
                )
            self._embedder = embedder
        return self._embedder

    def adopt(self, embedder: Embedder) -> None:
        """Use a backbone that was loaded already."""
        self._embedder = embedder

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(images, dim) `synth` features of decoded RGB images."""
        apply = self.model.backbone.preprocessing.apply
        parts = []
        for start in range(0, len(images), _BATCH):
            pixels = [apply(image) for image in images[start : start + _BATCH]]
            parts.append(self.features_of_pixels(np.stack(pixels)))
        return np.concatenate(parts)

    def features_of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(images, dim) `synth` features of a batch as `Preprocessing.apply` makes it.

        pixels: uint8 (images, crop, crop, 3).
        """
        # The same rounding as the training images' features went through on their way to disk.
        half = self.embedder().embed(pixels).astype(np.float16)
        return self.model.mappers.synth(half.astype(np.float32))

    def attribute(
        self,
        features: NDArray[np.float32],
        names: Sequence[str],
        *,
        k: int = 50,
        mass: float | None = None,
        where: Where | None = None,
        without: Where | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> list[Attribution]:
        """The answers to queries whose `synth` features (queries, dim) are at hand.

        See `Attributor.attribute`.

        Raises:
            UsageError: k < 1, a mass that is no share, or a filter on a field that has no index.
            RunError: an empty collection, or nothing left of it.
        """
        if self._attributor is None:
            self._attributor = Attributor(
                self.index, self.model.name, self.model.fingerprint, self.model.calibrator
            )
        return self._attributor.attribute(
            features,
            names,
            k=k,
            mass=mass,
            where=where,
            without=without,
            group_by=group_by,
            exact=exact,
        )

    def recalibrate(self, calibrator: Calibrator) -> None:
        """Answer with another calibrator from now on. The features, and so the index, stay.

        Raises:
            ModelError: the disk refuses; the old calibrator stays then.
        """
        self.model = save_calibrator(self.folder.model(self.name), calibrator)
        self._attributor = None

    def image_of(self, row: Row) -> Image.Image | None:
        """The training image's thumbnail, None where there is none."""
        for owner in row.owners:
            shard = self._shard_of(row, owner.id)
            if shard is None:
                continue
            found = read_thumbnails(self.folder.features(owner.dataset), shard, [owner.key])
            if owner.key in found:
                picture = open_thumbnail(found[owner.key])
                if picture is not None:
                    return picture
        return None

    def _shard_of(self, row: Row, point: str) -> int | None:
        if row.owners and point == row.owners[0].id and "shard" in row.payload:
            return int(row.payload["shard"])
        payload = self.index.fetch([UUID(point)], fields=["shard"])[0]
        return None if payload is None else int(payload["shard"])

    def facts(self) -> dict[str, Any]:
        """What there is, for `attrib info`."""
        info = self.index.info()
        calibrator = self.model.calibrator
        return {
            "data": str(self.folder.root),
            "collection": self.name,
            "model": self.model.name,
            "backbone": self.model.backbone.name,
            "fingerprint": self.model.fingerprint,
            "feature_fingerprint": self.model.feature_fingerprint,
            "tuned_on": self.model.tuned_on,
            "calibrator": {
                "tau": calibrator.tau,
                "b": calibrator.b,
                "fitted_on": calibrator.fitted_on,
            },
            "images": info.points,
            "datasets": self.ledger.datasets(),
            "shards": len(self.ledger.shards()),
            "rejects": len(self.ledger.rejects()),
            "tombstones": self.ledger.tombstones(),
            "index": {
                "backend": info.backend,
                "dim": info.dim,
                "indexed": info.indexed,
                "quantization": info.quantization,
                "ef": info.ef,
                **info.details,
            },
        }


def collection_name(model: AttributionModel) -> str:
    """The name of a collection made with that model."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-.") or "model"
    return f"{plain[:60]}-{model.feature_fingerprint[:8]}"


def _check_same(root: Path, built: AttributionModel, wanted: AttributionModel) -> None:
    if not wanted.weights_hash:
        # Weights that were not loaded yet cannot tell the two apart: `embedder` checks them.
        wanted = wanted.with_weights(built.weights_hash)
    if built.feature_fingerprint != wanted.feature_fingerprint:
        raise ModelMismatchError(
            f"{root} was built with {built.name} ({built.feature_fingerprint}), not with "
            f"{wanted.name} ({wanted.feature_fingerprint}); leave --model out, or ingest "
            "into another folder with --data"
        )


def _new_index(
    path: Path,
    model: AttributionModel,
    settings: IndexSettings | None,
    url: IndexUrl | None,
    root: Path,
) -> OpenIndex:
    if url is None:
        embedded = EdgeSettings() if settings is None else settings
        return create_index(path, model, embedded, None)
    if settings is None:
        settings = ServerSettings()
    if not isinstance(settings, ServerSettings):
        raise TypeError("an index on a server has settings of its own")
    place = new_place(url, root, path.name, settings)
    index = create_index(path, model, settings, place)
    try:
        take_alias(path, index, free=True)
    except BaseException:
        index.close()
        remove_index(path)
        raise
    return index


def _check_there(root: Path, wanted: IndexUrl) -> None:
    try:
        check_place(root, wanted)
    except UsageError as exc:
        raise UsageError(
            f"{exc}; leave --index out, or move it with `attrib index copy {root} {wanted}`"
        ) from exc
