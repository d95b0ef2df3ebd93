"""A collection calibrated by itself: real pixels, a real index, and a backbone without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from folders import copy_folder
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from embed.backbones import Backbone
from embed.calibrator import UNFITTED, Calibrator
from embed.model import AttributionModel, identity_model, load, save_calibrator
from embed.preprocess import Preprocessing
from evaluation.fit import fit_calibrator
from evaluation.self_calibration import FEWEST, calibrate_itself, is_due, self_spectrum
from ingest.errors import ModelError, RunError, UsageError
from ingest.source import open_sources
from search.collection import Collection
from search.ingestion import IngestSettings, ingest

SIDE = 8
BACKBONE = Backbone(
    name="colours",
    family="timm",
    architecture="colours",
    revision="1",
    dim=SIDE * SIDE * 3,
    preprocessing=Preprocessing(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3),
    licence="CC0-1.0",
    weights_source="",
    weights_file="",
    weights_hash="a" * 64,
)


class Colours:
    """The pixels themselves, around grey."""

    weights_hash = "a" * 64

    def __init__(self) -> None:
        self.images = 0

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.images += len(pixels)
        return pixels.reshape(len(pixels), -1).astype(np.float32) / 255 - 0.5


def model() -> AttributionModel:
    return identity_model(BACKBONE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(images, data): 40 smooth images of different colours, and one of them twice."""
    images, data = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("built") / "data"
    rng = np.random.default_rng(3)
    for number in range(40):
        coarse = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((90, 90), Image.Resampling.BICUBIC)
        image.filter(ImageFilter.GaussianBlur(6)).save(images / f"{number:02}.png")
    shutil.copy(images / "00.png", images / "copy.png")
    with Collection.create(data, None, model) as collection:
        ingest(
            collection, Colours, open_sources([str(images)]), "smooth", settings=IngestSettings()
        )
    return images, data


@pytest.fixture
def own(built: tuple[Path, Path], tmp_path: Path) -> Iterator[Collection]:
    data = copy_folder(built[1], tmp_path / "data")
    with Collection.open(data) as collection:
        collection.adopt(Colours())  # type: ignore[arg-type]
        yield collection


def test_variations_are_attributed_to_the_images_they_are_of(own: Collection) -> None:
    pairs = self_spectrum(own, samples=100)
    assert (len(pairs.spectrum), pairs.originals, pairs.unusable) == (41, 41, 0)
    assert pairs.fitted_on == "itself: 41 augmented images of 41 in smooth (self-calibration)"
    # The copies are exemplars of each other; every gallery is the whole collection.
    assert sorted(pairs.spectrum.positives.tolist()) == [1] * 39 + [2] * 2
    assert set(pairs.spectrum.gallery.tolist()) == {41}
    fit = fit_calibrator(pairs.spectrum, pairs.fitted_on, objective="exact")
    assert fit.kl_after < 0.7 * np.log(41)  # an even share of all is log 41
    assert fit.kl_after <= fit.kl_softmax


def test_what_answers_say_is_what_was_fitted(own: Collection) -> None:
    """The spectrum's influence is that of `attribute`, once the calibrator is in the collection."""
    pairs = self_spectrum(own, samples=41)
    fit = fit_calibrator(pairs.spectrum, pairs.fitted_on, finite_support=True)
    before, feature = own.model.fingerprint, own.model.feature_fingerprint
    arrays = (own.folder.model(own.name) / "mapper.safetensors").read_bytes()
    query = own.features([Image.new("RGB", (50, 50), "red")])
    (old,) = own.attribute(query, ["red"])
    own.recalibrate(fit.calibrator)
    (new,) = own.attribute(query, ["red"])
    assert new.calibrator["fitted_on"] == pairs.fitted_on
    assert [row.influence for row in new.rows] != [row.influence for row in old.rows]
    assert own.model.fingerprint != before
    assert own.model.feature_fingerprint == feature
    assert (own.folder.model(own.name) / "mapper.safetensors").read_bytes() == arrays
    root = own.folder.root
    own.close()
    with Collection.open(root) as again:
        assert again.model.calibrator == fit.calibrator
        assert_allclose(
            [row.influence for row in again.attribute(query, ["red"])[0].rows],
            [row.influence for row in new.rows],
        )


def test_the_seed_decides_the_draw_and_the_variations(own: Collection) -> None:
    first, second, other = (self_spectrum(own, samples=9, seed=s).spectrum for s in (1, 1, 2))
    assert len(first) == 9
    assert (first.exemplars == second.exemplars).all()
    assert (first.similarities == second.similarities).all()
    assert first.exemplars.tolist() != other.exemplars.tolist()


def test_thumbnails_where_the_files_are_gone_or_changed(
    built: tuple[Path, Path], own: Collection, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(built[0], tmp_path / "images"))
    with Collection.create(tmp_path / "other", None, model) as other:
        ingest(other, Colours, open_sources([str(images)]), "smooth", settings=IngestSettings())
        other.adopt(Colours())  # type: ignore[arg-type]
        (images / "01.png").unlink()
        shutil.copy(images / "03.png", images / "02.png")
        pairs = self_spectrum(other, samples=100)
        assert (len(pairs.spectrum), pairs.originals) == (41, 39)
        shutil.rmtree(images)
        without = self_spectrum(other, samples=100)
        assert (len(without.spectrum), without.originals, without.unusable) == (41, 0, 0)
        # Thumbnails of images this small are the images: the same variations of the same pixels.
        assert_allclose(
            np.sort(without.spectrum.exemplars), np.sort(pairs.spectrum.exemplars), atol=0.05
        )
        shutil.rmtree(other.folder.features("smooth") / "thumbnails")
        line = (
            f"neither the original files nor the thumbnails of {tmp_path / 'other'} are there; "
            "bring the files back to where they were ingested from"
        )
        with pytest.raises(RunError, match=f"^{line}$"):
            self_spectrum(other, samples=100)


@pytest.mark.parametrize(
    ("fitted_on", "images", "due"),
    [
        ("", FEWEST - 1, False),
        ("", FEWEST, True),
        ("", 10**9, True),
        ("object_val (9 models, 5,128 distractors)", 10**9, False),
        ("itself: 128 augmented images of 600 in a (self-calibration)", 10**9, False),
        ("itself: 128 augmented images of 600 in a (self-calibration at ingest)", 1199, False),
        ("itself: 128 augmented images of 600 in a (self-calibration at ingest)", 1200, True),
        ("itself: 64 augmented images of 1,000 in a, b (self-calibration at ingest)", 1999, False),
        ("itself: 64 augmented images of 1,000 in a, b (self-calibration at ingest)", 2000, True),
    ],
)
def test_when_an_ingest_calibrates(fitted_on: str, images: int, due: bool) -> None:
    assert is_due(Calibrator(0.05, -0.02, fitted_on), images) is due


def test_a_collection_is_calibrated_by_itself_and_knows_of_how_many(
    built: tuple[Path, Path], own: Collection
) -> None:
    line = "files or thumbnails are left of 41 drawn images, 64 are needed"
    before = own.model
    with pytest.raises(RunError, match=f"^{line}$"):
        calibrate_itself(own)
    assert own.model == before
    again = open_sources([str(built[0])])
    ingest(own, Colours, again, "once-more", settings=IngestSettings())
    fit = calibrate_itself(own)
    label = "itself: 82 augmented images of 82 in once-more, smooth (self-calibration at ingest)"
    assert own.model.calibrator == fit.calibrator
    assert fit.calibrator.fitted_on == label
    assert fit.objective == "exact"
    assert fit.kl_after <= fit.kl_softmax
    assert not is_due(own.model.calibrator, 163)
    assert is_due(own.model.calibrator, 164)


def test_too_few(own: Collection, tmp_path: Path) -> None:
    line = "a self-calibration needs at least 2 samples, not 1"
    with pytest.raises(UsageError, match=f"^{line}$"):
        self_spectrum(own, samples=1)
    with Collection.create(tmp_path / "empty", None, model) as empty:
        line = (
            f"{tmp_path / 'empty'} holds 0 training images; a self-calibration needs at least 2, "
            "ingest more"
        )
        with pytest.raises(RunError, match=f"^{line}$"):
            self_spectrum(empty)


def test_a_calibrator_is_saved_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model().save(folder)
    description = json.loads((folder / "model.json").read_text("utf-8"))
    saved = save_calibrator(folder, Calibrator(0.03, -0.2, "made up"))
    assert saved.calibrator == load(folder).calibrator == Calibrator(0.03, -0.2, "made up")
    after = json.loads((folder / "model.json").read_text("utf-8"))
    assert after.pop("calibrator") == {"tau": 0.03, "b": -0.2, "fitted_on": "made up"}
    assert description.pop("calibrator")["tau"] == UNFITTED.tau
    assert after == description
    assert sorted(path.name for path in folder.iterdir()) == ["mapper.safetensors", "model.json"]
    with pytest.raises(ModelError, match=r"is not a model folder: it has no model\.json$"):
        save_calibrator(tmp_path, UNFITTED)
