from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import small_disk

from embed.backbones import BACKBONES, Backbone
from embed.calibrator import UNFITTED, Calibrator
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel, identity_model, load
from embed.preprocess import Preprocessing
from ingest.errors import ModelError

HASH = "12" * 32

SMALL = Backbone(
    name="timm:small",
    family="timm",
    architecture="small",
    revision="main",
    dim=3,
    preprocessing=Preprocessing(40, 32, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    licence="MIT",
    weights_source="timm/small",
    weights_file="model.safetensors",
    options=(("global_pool", "token"), ("img_size", 32)),
)


def tuned(**changes: object) -> AttributionModel:
    """A model in which no two parts are alike: 3 base numbers, 2 features."""
    rng = np.random.default_rng(0)
    mlp = Mapper.from_state(
        {
            "0.weight": rng.normal(size=(4, 3)),
            "1.weight": rng.normal(size=4),
            "1.bias": rng.normal(size=4),
            "1.running_mean": rng.normal(size=4),
            "1.running_var": rng.uniform(0.5, 2, size=4),
            "4.weight": rng.normal(size=(2, 4)),
            "5.running_mean": rng.normal(size=2),
            "5.running_var": rng.uniform(0.5, 2, size=2),
        }
    )
    linear = Mapper.linear(rng.normal(size=(2, 3)), rng.normal(size=2))
    model = AttributionModel(
        "mine", SMALL, MapperPair(mlp, linear), Calibrator(0.04, -0.03, "a"), "abc", HASH
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    model = tuned()
    model.save(tmp_path / "a" / "mine")
    found = load(tmp_path / "a" / "mine")
    for field in ("name", "backbone", "calibrator", "tuned_on", "weights_hash", "dim"):
        assert getattr(found, field) == getattr(model, field)
    assert found.full_fingerprint == model.full_fingerprint
    assert found.full_feature_fingerprint == model.full_feature_fingerprint
    x = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_array_equal(found.mappers.real(x), model.mappers.real(x))
    np.testing.assert_array_equal(found.mappers.synth(x), model.mappers.synth(x))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=lambda b: b.name)
def test_every_backbone_is_a_model(backbone: Backbone, tmp_path: Path) -> None:
    model = identity_model(backbone)
    assert model.calibrator is UNFITTED
    assert model.dim == backbone.dim
    model.save(tmp_path / "m")
    assert load(tmp_path / "m").backbone == backbone


def test_fingerprints_are_pinned() -> None:
    # An index on disk is bound to this: a change here orphans every index there is.
    model = identity_model(BACKBONES["efficientnet-lite0"])
    assert (model.fingerprint, model.feature_fingerprint) == (
        "bab8c16ef9d1381f",
        "faf11243a840d160",
    )
    assert model.full_fingerprint.startswith(model.fingerprint)
    assert len(model.full_feature_fingerprint) == 64


def test_what_the_feature_fingerprint_depends_on() -> None:
    model = tuned()
    pair = model.mappers
    turned = replace(SMALL.preprocessing, interpolation="bicubic")
    others = [
        tuned(mappers=MapperPair(pair.synth_mapper, pair.real_mapper)),
        tuned(mappers=MapperPair(pair.synth_mapper, pair.synth_mapper)),
        tuned(weights_hash="ff" * 32),
        tuned(backbone=replace(SMALL, preprocessing=turned)),
        tuned(backbone=replace(SMALL, architecture="other")),
        tuned(backbone=replace(SMALL, revision="v2")),
        tuned(backbone=replace(SMALL, options=())),
    ]
    hashes = {other.feature_fingerprint for other in [model, *others]}
    assert len(hashes) == len(others) + 1


def test_what_it_does_not_depend_on() -> None:
    model = tuned()
    for other in (
        tuned(name="yours"),
        tuned(tuned_on=""),
        tuned(backbone=replace(SMALL, about="x", licence="y", weights_source="z")),
    ):
        assert other.full_fingerprint == model.full_fingerprint
    fitted_again = tuned(calibrator=Calibrator(0.05, -0.03, "a"))
    assert fitted_again.feature_fingerprint == model.feature_fingerprint
    assert fitted_again.fingerprint != model.fingerprint
    assert tuned(calibrator=Calibrator(0.04, -0.04)).fingerprint != model.fingerprint


def test_no_fingerprint_before_the_weights_are_known() -> None:
    model = identity_model(SMALL)
    with pytest.raises(ModelError) as caught:
        _ = model.fingerprint
    assert str(caught.value) == (
        "model 'timm:small' has no fingerprint before the weights of timm:small are loaded once"
    )
    bound = model.with_weights(HASH)
    assert bound.weights_hash == HASH
    assert bound.with_weights(HASH).fingerprint == bound.fingerprint
    with pytest.raises(ModelError) as caught:
        bound.with_weights("34" * 32)
    assert str(caught.value) == (
        "model 'timm:small' belongs to other weights of timm:small: "
        "1212121212121212, these are 3434343434343434"
    )


def test_pinned_weights_bind() -> None:
    backbone = replace(SMALL, weights_hash=HASH)
    assert identity_model(backbone).weights_hash == HASH
    with pytest.raises(ModelError, match="belongs to other weights"):
        tuned(backbone=backbone, weights_hash="34" * 32)


def test_dimensions_must_agree() -> None:
    with pytest.raises(ModelError) as caught:
        AttributionModel("m", SMALL, MapperPair.identity(4))
    assert str(caught.value) == "model 'm': the mapper takes 4 numbers, timm:small gives 3"


def test_saving_again_replaces(tmp_path: Path) -> None:
    tuned().save(tmp_path / "m")
    identity_model(SMALL).save(tmp_path / "m")
    assert load(tmp_path / "m").tuned_on == ""
    assert [path.name for path in tmp_path.glob("*m*")] == ["m"]


def test_saving_never_replaces_something_else(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError) as caught:
        tuned().save(tmp_path / "m")
    assert str(caught.value) == (
        f"{tmp_path / 'm'} holds something else than a model; choose another folder"
    )
    assert (tmp_path / "m" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("room", [0, 4096])  # for neither file, for the first of the two
def test_a_full_disk_leaves_the_old_model(room: int, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        tuned().save(disk / "m")
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(bytes(free - room))
        with pytest.raises(ModelError) as caught:
            identity_model(SMALL).save(disk / "m")
        assert str(caught.value) == (
            f"the model cannot be saved in {disk / 'm'}: No space left on device"
        )
        assert load(disk / "m").tuned_on == "abc"
        assert not list(disk.glob(".saving-*"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damaged_folders(tmp_path: Path) -> None:
    good = tmp_path / "good"
    tuned().save(good)

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    def text(folder: Path) -> str:
        with pytest.raises(ModelError) as caught:
            load(folder)
        return str(caught.value)

    nothing = tmp_path / "nothing"
    assert text(nothing) == f"{nothing} is not a model folder: it has no model.json"

    newer = damaged("newer")
    edit(newer, format=2)
    assert text(newer) == f"{newer} is of format 2, this attrib reads up to 1; upgrade attrib"

    cut = damaged("cut")
    (cut / "model.json").write_bytes((cut / "model.json").read_bytes()[:100])
    assert text(cut) == f"{cut} is damaged: model.json cannot be read"

    other = damaged("list")
    (other / "model.json").write_text("[]")
    assert text(other) == f"{other} is damaged: model.json names no format"

    bare = damaged("bare")
    edit(bare, calibrator={"tau": 0.1})
    assert text(bare).startswith(f"{bare} is damaged: model.json lacks or garbles ")

    cold = damaged("cold")
    edit(cold, calibrator={"tau": 0, "b": 0})
    assert text(cold) == f"{cold} is damaged: calibrator: tau must be a number above 0, not 0"

    half = damaged("half")
    (half / "mapper.safetensors").write_bytes(b"garbage")
    assert text(half) == f"{half} is damaged: mapper.safetensors cannot be read"

    mixed = damaged("mixed")
    pair = tuned().mappers
    changed = Mapper.linear(np.ones((2, 3)), np.ones(2))
    tuned(mappers=MapperPair(pair.real_mapper, changed)).save(tmp_path / "changed")
    shutil.copy(tmp_path / "changed" / "mapper.safetensors", mixed)
    assert text(mixed) == (
        f"{mixed} is damaged: mapper.safetensors is not the one that model.json names"
    )
