"""An attribution model: backbone, mapper pair and calibrator, as one folder with a fingerprint.

The folder holds `model.json` (what it is) and `mapper.safetensors` (the arrays); the backbone's
weights stay where they are and are named by their hash. Reading it needs no torch.

The weights' hash is known in one of three ways: pinned in the backbone, stored in `model.json`,
or computed by the first `Embedder` that loads them and handed over with `with_weights`. A model
without it has no fingerprint yet: two models that differ only in weights nobody has looked at
must not pass for the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embed.backbones import Backbone
from embed.calibrator import UNFITTED, Calibrator
from embed.mapper import Mapper, MapperPair
from ingest.errors import ModelError

__all__ = [
    "FORMAT",
    "SHORT",
    "AttributionModel",
    "identity_model",
    "load",
    "save_calibrator",
    "save_card",
]

FORMAT = 1
"""Version of the folder's layout; a newer one is refused."""

SHORT = 16
"""Hex digits of a short fingerprint."""

_JSON = "model.json"
_ARRAYS = "mapper.safetensors"


@dataclass(frozen=True, eq=False)
class AttributionModel:
    """What turns images into comparable features and similarities into influence.

    Attributes:
        name: what a person types.
        backbone: the frozen encoder.
        mappers: the tuned pair; its d is the backbone's dim.
        calibrator: its two numbers.
        tuned_on: what the mappers were tuned on; '' for none.
        weights_hash: of the backbone's weights; '' until known.
        card: what is known of how it was made and how good it is, as JSON values; a fingerprint
            does not depend on it.
    """

    name: str
    backbone: Backbone
    mappers: MapperPair
    calibrator: Calibrator = UNFITTED
    tuned_on: str = ""
    weights_hash: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mappers.in_dim != self.backbone.dim:
            raise ModelError(
                f"model '{self.name}': the mapper takes {self.mappers.in_dim} numbers, "
                f"{self.backbone.name} gives {self.backbone.dim}"
            )
        pinned = self.backbone.weights_hash
        if not self.weights_hash:
            object.__setattr__(self, "weights_hash", pinned)
        elif pinned and self.weights_hash != pinned:
            raise self._other_weights(pinned)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self.mappers.out_dim

    @property
    def fingerprint(self) -> str:
        """Short `full_fingerprint`: 16 hex digits."""
        return self.full_fingerprint[:SHORT]

    @property
    def feature_fingerprint(self) -> str:
        """Short `full_feature_fingerprint`: 16 hex digits."""
        return self.full_feature_fingerprint[:SHORT]

    @property
    def full_fingerprint(self) -> str:
        """sha256 over everything that an answer depends on: features and calibrator.

        Raises:
            ModelError: the weights' hash is not known yet.
        """
        return _digest([self.full_feature_fingerprint, self.calibrator.tau, self.calibrator.b])

    @property
    def full_feature_fingerprint(self) -> str:
        """sha256 over what a feature depends on: an index is bound to it.

        The backbone's network, weights and preprocessing, and the mappers. Not the calibrator:
        fitting it again leaves an index valid. Not licences, sources or descriptions.

        Raises:
            ModelError: the weights' hash is not known yet.
        """
        if not self.weights_hash:
            raise ModelError(
                f"model '{self.name}' has no fingerprint before the weights of "
                f"{self.backbone.name} are loaded once"
            )
        backbone = self.backbone
        what = [
            backbone.name,
            backbone.family,
            backbone.architecture,
            backbone.revision,
            backbone.options,
            backbone.preprocessing.to_dict(),
            self.weights_hash,
            _arrays_hash(self.mappers),
        ]
        return _digest(what)

    def with_weights(self, weights_hash: str) -> AttributionModel:
        """The model bound to weights that were loaded (`Embedder.weights_hash`).

        Raises:
            ModelError: it is bound to other weights.
        """
        if self.weights_hash and weights_hash != self.weights_hash:
            raise self._other_weights(weights_hash)
        return replace(self, weights_hash=weights_hash)

    def with_calibrator(self, calibrator: Calibrator) -> AttributionModel:
        """The model with another calibrator: its features, and so any index, stay what they are.

        What the card says of the fit of the former calibrator goes with it.
        """
        card = {name: value for name, value in self.card.items() if name != "calibration"}
        return replace(self, calibrator=calibrator, card=card)

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all; an older model there is replaced.

        Raises:
            ModelError: the folder cannot be written, or holds something else than a model.
        """
        from safetensors.numpy import save

        description = {
            "format": FORMAT,
            "name": self.name,
            "backbone": self.backbone.to_dict(),
            "weights_hash": self.weights_hash,
            "mapper": {
                "real": self.mappers.real_mapper.kind,
                "synth": self.mappers.synth_mapper.kind,
                "sha256": _arrays_hash(self.mappers),
            },
            "calibrator": asdict(self.calibrator),
            "tuned_on": self.tuned_on,
            **({"card": self.card} if self.card else {}),
        }
        if folder.exists() and not (folder / _JSON).is_file() and any(folder.iterdir()):
            raise ModelError(f"{folder} holds something else than a model; choose another folder")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder.parent) as scratch:
                fresh = Path(scratch) / "model"
                fresh.mkdir()
                # What the library writes by itself fails on a full disk with an error of its own.
                (fresh / _ARRAYS).write_bytes(save(_smallest(_named_arrays(self.mappers))))
                text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
                (fresh / _JSON).write_text(text, encoding="utf-8")
                if folder.exists():
                    folder.rename(Path(scratch) / "replaced")
                fresh.rename(folder)
        except OSError as exc:
            raise ModelError(f"the model cannot be saved in {folder}: {exc.strerror}") from exc

    def _other_weights(self, found: str) -> ModelError:
        return ModelError(
            f"model '{self.name}' belongs to other weights of {self.backbone.name}: "
            f"{self.weights_hash[:SHORT]}, these are {found[:SHORT]}"
        )


def identity_model(backbone: Backbone) -> AttributionModel:
    """The untuned model that a backbone's name stands for: base features, normalised."""
    return AttributionModel(backbone.name, backbone, MapperPair.identity(backbone.dim))


def load(folder: Path) -> AttributionModel:
    """The model of a folder that `save` wrote.

    Raises:
        ModelError: no model there, a newer format, or a damaged one.
    """
    try:
        values = json.loads((folder / _JSON).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelError(f"{folder} is not a model folder: it has no {_JSON}") from exc
    except (OSError, ValueError) as exc:
        raise ModelError(f"{folder} is damaged: {_JSON} cannot be read") from exc
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise ModelError(f"{folder} is damaged: {_JSON} names no format")
    if version > FORMAT:
        raise ModelError(
            f"{folder} is of format {version}, this attrib reads up to {FORMAT}; upgrade attrib"
        )
    arrays = _read_arrays(folder)
    try:
        backbone = Backbone.from_dict(values["backbone"])
        pair = MapperPair(
            *(
                Mapper(
                    values["mapper"][side],
                    {
                        name.removeprefix(f"{side}."): array
                        for name, array in arrays.items()
                        if name.startswith(f"{side}.")
                    },
                    backbone.dim,
                )
                for side in ("real", "synth")
            )
        )
        if _arrays_hash(pair) != values["mapper"]["sha256"]:
            raise ModelError(f"{_ARRAYS} is not the one that {_JSON} names")
        model = AttributionModel(
            name=str(values["name"]),
            backbone=backbone,
            mappers=pair,
            calibrator=Calibrator(**values["calibrator"]),
            tuned_on=str(values["tuned_on"]),
            weights_hash=str(values["weights_hash"]),
            card=dict(values.get("card", {})),
        )
    except ModelError as exc:
        raise ModelError(f"{folder} is damaged: {exc}") from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(f"{folder} is damaged: {_JSON} lacks or garbles {exc}") from exc
    return model


def save_calibrator(folder: Path, calibrator: Calibrator) -> AttributionModel:
    """Give the model of a folder another calibrator, in place; returns it as it is then.

    Raises:
        ModelError: no model there, a newer format or a damaged one, or the disk refuses.
    """
    model = load(folder).with_calibrator(calibrator)
    changes = {"calibrator": asdict(calibrator), "card": model.card}
    _rewrite(folder, changes, "the calibrator")
    return model


def save_card(folder: Path, card: dict[str, Any]) -> AttributionModel:
    """Give the model of a folder another card, in place; returns it as it is then.

    Its fingerprints stay what they are.

    Raises:
        ModelError: no model there, a newer format or a damaged one, or the disk refuses.
    """
    model = replace(load(folder), card=card)
    _rewrite(folder, {"card": card}, "the card")
    return model


def _rewrite(folder: Path, changes: dict[str, Any], what: str) -> None:
    """One rename of `model.json`: whenever the power fails, there is a whole model, old or new."""
    path = folder / _JSON
    temporary = path.with_name(f".{_JSON}.part")
    try:
        description = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        if not description.get("card"):
            description.pop("card", None)
        with temporary.open("w", encoding="utf-8") as out:
            out.write(json.dumps(description, indent=2, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ModelError(f"{what} cannot be saved in {folder}: {exc.strerror}") from exc


def _read_arrays(folder: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(folder / _ARRAYS))
    except (OSError, SafetensorError, ValueError) as exc:
        raise ModelError(f"{folder} is damaged: {_ARRAYS} cannot be read") from exc


def _named_arrays(mappers: MapperPair) -> dict[str, Any]:
    sides = {"real": mappers.real_mapper, "synth": mappers.synth_mapper}
    return {f"{side}.{name}": a for side, m in sides.items() for name, a in m.arrays.items()}


def _smallest(arrays: dict[str, Any]) -> dict[str, Any]:
    """As float16 where nothing is lost by it: tuned maps are rounded so, and take half the room."""
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    return {
        name: half if np.array_equal(half.astype(np.float32), arrays[name]) else arrays[name]
        for name, half in halves.items()
    }


def _arrays_hash(mappers: MapperPair) -> str:
    digest = hashlib.sha256()
    digest.update(f"{mappers.real_mapper.kind} {mappers.synth_mapper.kind}\n".encode())
    for name, array in sorted(_named_arrays(mappers).items()):
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _digest(what: list[Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
