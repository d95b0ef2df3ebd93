"""Re-mapping: a collection with another attribution model, from base features, no image decoded.

The data folder's lock is held only to read the ledger and to switch over. In between the new
collection is built out of sight (`search.building`), while queries are answered from the old one.
What was ingested or taken down meanwhile is caught up with before the switch, which is one rename.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from embed.model import AttributionModel
from embed.model import load as load_model
from ingest.errors import (
    DataFolderBusyError,
    DataFolderError,
    IndexFailedError,
    ModelMismatchError,
)
from ingest.ledger import Ledger
from search.building import Building
from search.collection import Collection, collection_name
from search.edge_settings import Quantization
from search.folder import DataFolder, reindex_lock, writing
from search.index_place import (
    IndexSettings,
    ServerPlace,
    index_settings,
    remove_index,
    server_place,
    take_alias,
)
from search.ingestion import Progress
from search.removal import mend, remove_buildings

__all__ = [
    "ReindexReport",
    "Remap",
    "begin_building",
    "current_collection",
    "reindex",
    "remove_retired",
]

_FEW = 5000  # images that are caught up with while queries wait: a second or two
_RETIRED = "retired collection"  # mark: what is to be removed once it is not the current one


@dataclass(frozen=True)
class ReindexReport:
    """What a re-mapping did.

    Attributes:
        collection: the current one now.
        replaced: the one before, '' where it is the same.
        model: the attribution model in force.
        rebuilt: False where features stay as they are: then only the model was swapped.
        mapped: base features mapped.
        images: of the collection now.
        kept: whether the one before is still there.
    """

    collection: str
    replaced: str
    model: str
    rebuilt: bool
    mapped: int
    images: int
    kept: bool


def reindex(
    root: Path,
    model: AttributionModel,
    *,
    quantization: Quantization | None = None,
    keep_old: bool = False,
    progress: Progress | None = None,
    wait_s: float = 2.0,
    switch_wait_s: float = 600.0,
) -> ReindexReport:
    """Make the collection anew with `model` and switch over to it.

    Queries and ingests may go on in other processes. Killed at any moment, the old collection is
    whole and in use, and the same call goes on where it stopped. Where only the calibrator differs
    from the current model's, nothing is built.

    Args:
        root: the data folder.
        model: of the same backbone, weights and preprocessing as the base features.
        quantization: of the new index; None for the current one's.
        keep_old: do not remove the collection that was current.
        progress: told how many images are mapped.
        wait_s: how long to wait at the start for a process that uses the folder.
        switch_wait_s: the same before the switch.

    Raises:
        DataFolderError: no data folder, nothing in it, damaged feature shards, a full disk.
        DataFolderBusyError: in use, or being re-mapped already.
        ModelMismatchError: a model for other base features.
        IndexFailedError: the index fails.
    """
    DataFolder.open(root, wait_s=wait_s).close()  # is it one? before a lock is put into it
    with reindex_lock(root):
        with DataFolder.open(root, wait_s=wait_s) as folder:
            old = current_collection(folder)
            built = load_model(folder.model(old))
            model = _same_base(root, built, model)
            remove_retired(folder, old)
            settings = index_settings(folder.collection(old))
            wanted = replace(settings, quantization=quantization or settings.quantization)
            if model.feature_fingerprint == built.feature_fingerprint and wanted == settings:
                remove_buildings(folder)
                return _swap_model(folder, old, model)
            name = collection_name(model)
            if name == old:  # the same features in an index of another kind
                name = f"{name}-{wanted.quantization}"
            place = server_place(folder.collection(old))
            building = begin_building(folder, name, model, wanted, place)
        try:
            return Remap(root, old, building, keep_old, switch_wait_s).go(progress)
        finally:
            building.close()


class Remap:
    """From a collection that is begun to the one in use.

    Args:
        root: the data folder.
        old: name of the collection in use.
        building: what is to take over from it.
        keep_old: do not remove the old one.
        switch_wait_s: how long to wait, before the switch, for a process that uses the folder.
        check: called with the data folder when the new collection is whole, before the switch.
    """

    def __init__(
        self,
        root: Path,
        old: str,
        building: Building,
        keep_old: bool,
        switch_wait_s: float,
        check: Callable[[DataFolder], None] | None = None,
    ) -> None:
        self._root = root
        self._check = check
        self._old = old
        self._building = building
        self._keep_old = keep_old
        self._wait_s = switch_wait_s
        self._mapped = 0

    def go(self, progress: Progress | None) -> ReindexReport:
        """Build, catch up and switch; see `reindex`."""
        building = self._building
        advance: Callable[[int], None] = lambda images: None  # noqa: E731
        if progress is not None:
            progress.start(building.pending())
            advance = progress.advance
        while True:
            self._mapped += building.catch_up(advance)
            if progress is not None:
                progress.building()
            building.index.build()
            with self._locked() as folder:
                ledger = Ledger(folder.ledger)
                try:
                    if building.take_over(ledger) <= _FEW:
                        return self._switch(folder, ledger)
                finally:
                    ledger.close()

    def _locked(self) -> DataFolder:
        try:
            return DataFolder.open(self._root, wait_s=self._wait_s)
        except DataFolderBusyError as exc:
            raise DataFolderBusyError(
                f"{exc}; the new collection is ready: run the same command again to switch to it"
            ) from exc

    def _switch(self, folder: DataFolder, ledger: Ledger) -> ReindexReport:
        """Catch up with the rest, verify, and rename."""
        building = self._building
        self._mapped += building.catch_up(lambda images: None)
        mend(Collection(folder, building.path.name, ledger, building.model, building.index))
        images = building.index.count()
        if images != ledger.images():
            raise DataFolderError(
                f"{self._root}/features lacks the base features of "
                f"{ledger.images() - images:,} training images; put them back from a backup, or "
                "ingest with --force; the collection in use was left as it is"
            )
        building.index.build()
        if self._check is not None:
            self._check(folder)
        take_alias(building.path, building.index)
        building.close()
        name = building.path.name.removeprefix(".building-")
        remove_index(folder.collection(name))  # of an older one that was kept
        with writing(self._root):
            shutil.rmtree(folder.collection(name), ignore_errors=True)
            building.path.rename(folder.collection(name))
        if not self._keep_old:
            ledger.set_mark(_RETIRED, self._old)
        with writing(self._root):
            folder.set_current(name)
        for leftover in ("state.json", "done.sqlite"):
            (folder.collection(name) / leftover).unlink(missing_ok=True)
        remove_retired(folder, name, ledger)
        return ReindexReport(
            collection=name,
            replaced=self._old,
            model=building.model.name,
            rebuilt=True,
            mapped=self._mapped,
            images=images,
            kept=self._keep_old,
        )


def begin_building(
    folder: DataFolder,
    name: str,
    model: AttributionModel,
    settings: IndexSettings,
    place: ServerPlace | None,
) -> Building:
    """Begin a collection `name`, or go on with it, and note what it has to catch up with.

    `place`: of an index on the server that it is to be on; None: in the folder.
    """
    remove_buildings(folder, but=folder.collection(f".building-{name}"))
    building = Building.begin(folder, name, model, settings, place)
    ledger = Ledger(folder.ledger)
    try:
        building.take_over(ledger)
    except BaseException:
        building.close()
        raise
    finally:
        ledger.close()
    return building


def current_collection(folder: DataFolder) -> str:
    """Name of the collection in use; DataFolderError where there is none yet."""
    name = folder.current
    if name is None:
        raise DataFolderError(
            f"nothing was ingested into {folder.root} yet; run `attrib ingest SOURCE "
            f"--data {folder.root}`"
        )
    return name


def _same_base(root: Path, built: AttributionModel, wanted: AttributionModel) -> AttributionModel:
    """The wanted model, bound to the weights that the base features were made with."""
    have, needs = built.backbone, wanted.backbone
    network = ("family", "architecture", "revision", "options")
    name, fault = have.name, ""
    if any(getattr(have, field) != getattr(needs, field) for field in network):
        fault = f"of {needs.name}"
    elif have.preprocessing != needs.preprocessing:
        fault = "of images prepared another way"
    elif wanted.weights_hash and wanted.weights_hash != built.weights_hash:
        name = f"{name} ({built.weights_hash[:16]})"
        fault = f"of other weights ({wanted.weights_hash[:16]})"
    if fault:
        raise ModelMismatchError(
            f"{root} has base features of {name}, {wanted.name} needs those {fault}; ingest the "
            "images into another folder: `attrib ingest SOURCE --model MODEL --data ANOTHER`"
        )
    return wanted.with_weights(built.weights_hash)


def _swap_model(folder: DataFolder, current: str, model: AttributionModel) -> ReindexReport:
    """Equal features: the mappers' file stays, and the description beside it is replaced."""
    scratch = folder.collection(current) / ".model-new"
    with writing(folder.root):
        shutil.rmtree(scratch, ignore_errors=True)
        model.save(scratch)
        (scratch / "model.json").replace(folder.model(current) / "model.json")
        shutil.rmtree(scratch, ignore_errors=True)
    ledger = Ledger(folder.ledger)
    try:
        images = ledger.images()
    finally:
        ledger.close()
    return ReindexReport(current, "", model.name, False, 0, images, False)


def remove_retired(folder: DataFolder, current: str, ledger: Ledger | None = None) -> None:
    """Remove the collection that a switch left to be removed, also one that was killed then."""
    own = Ledger(folder.ledger) if ledger is None else ledger
    try:
        retired = own.mark(_RETIRED)
        if retired is None:
            return
        if retired != current:
            try:
                remove_index(folder.collection(retired))
            except IndexFailedError:
                return  # its server is away: it stays marked, and is removed another time
            with writing(folder.root):
                shutil.rmtree(folder.collection(retired), ignore_errors=True)
        own.set_mark(_RETIRED, None)
    finally:
        if ledger is None:
            own.close()
