"""Attribution models by name: the user's own, those that come with attrib, and the backbones.

A name means, in this order: a model that the user imported or tuned, kept under
`$ATTRIB_HOME/models` or in the user's data folder; a tuned model that is installed with attrib; a
backbone, untuned. Anything that looks like a path is a model folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from embed.backbones import BACKBONES, Backbone, resolve, unknown_model
from embed.calibrator import UNFITTED
from embed.model import AttributionModel, identity_model, load
from ingest.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ListedModel",
    "check_new_name",
    "export_model",
    "find_model",
    "import_model",
    "list_models",
    "models_folder",
    "own_folder",
    "save_model",
]

_SHIPPED = Path(__file__).parent / "shipped"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ListedModel:
    """A row of `attrib models list`.

    Attributes:
        name: what to type.
        model: None where the folder is damaged.
        folder: of a user's model; None for one that comes with attrib, and for a backbone.
        problem: what is wrong with the folder; '' when nothing is.
    """

    name: str
    model: AttributionModel | None
    folder: Path | None = None
    problem: str = ""


def models_folder() -> Path:
    """`$ATTRIB_HOME/models`, or `models` in the user's data folder. It need not exist."""
    home = os.environ.get("ATTRIB_HOME")
    return (Path(home) if home else Path(platformdirs.user_data_dir("attrib"))) / "models"


def find_model(name_or_folder: str | Path) -> AttributionModel:
    """The model of that name, or of that folder.

    Raises:
        UnknownModelError: a name that stands for nothing; the nearest is suggested.
        ModelError: a folder without a model, or a damaged one.
    """
    text = str(name_or_folder)
    # `open_clip:ViT-B-32/openai` has a separator but is no path.
    if isinstance(name_or_folder, Path) or (":" not in text and _looks_like_path(text)):
        return load(Path(text))
    if _NAME.fullmatch(text) and (models_folder() / text).is_dir():
        return load(models_folder() / text)
    if text in _shipped_names():
        return load(_SHIPPED / text)
    if text in BACKBONES or ":" in text:
        return identity_model(resolve(text))
    raise unknown_model(text, [*_user_names(), *_shipped_names(), *BACKBONES])


def list_models() -> list[ListedModel]:
    """The user's models, those that come with attrib, the backbones; damaged ones say so."""
    rows = []
    for name in _user_names():
        folder = models_folder() / name
        try:
            rows.append(ListedModel(name, load(folder), folder))
        except ModelError as exc:
            rows.append(ListedModel(name, None, folder, str(exc)))
    rows += [ListedModel(name, load(_SHIPPED / name)) for name in _shipped_names()]
    named: Sequence[Backbone] = tuple(BACKBONES.values())
    return rows + [ListedModel(b.name, identity_model(b)) for b in named]


def own_folder(name_or_folder: str | Path) -> Path:
    """The folder of a model that its user may write into: an own one's, or the one that is named.

    Raises:
        UnknownModelError: a name that stands for nothing.
        UsageError: a model that comes with attrib, or a backbone, which has no folder.
    """
    text = str(name_or_folder)
    if isinstance(name_or_folder, Path) or (":" not in text and _looks_like_path(text)):
        return Path(text)
    if _NAME.fullmatch(text) and (models_folder() / text).is_dir():
        return models_folder() / text
    if text in _shipped_names():
        raise UsageError(
            f"'{text}' comes with attrib, its folder stays as it is; "
            "`attrib models export` writes a copy, which can be named instead"
        )
    find_model(text)
    raise UsageError(f"'{text}' is a backbone, which has no model folder")


def check_new_name(name: str) -> None:
    """Refuse a name that no model of the user can have.

    Raises:
        UsageError: it says why.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a model's name; use letters, digits, '.', '_' and '-'"
        )
    if name in BACKBONES:
        raise UsageError(f"'{name}' is a backbone's name; choose another")
    if name in _shipped_names():
        raise UsageError(f"'{name}' comes with attrib; choose another name")


def save_model(model: AttributionModel) -> Path:
    """Keep a model under its name among the user's; an older one of that name is replaced.

    Raises:
        UsageError: a name that cannot be used.
        ModelError: the folder cannot be written.
    """
    check_new_name(model.name)
    folder = models_folder() / model.name
    model.save(folder)
    return folder


def import_model(
    name: str, backbone: Backbone, mapper_file: Path, calibrator_file: Path | None = None
) -> AttributionModel:
    """Keep the paper authors' mapper and calibrator files as a model of that name.

    Args:
        name: for the new model.
        backbone: the one that the mapper was tuned on.
        mapper_file: `{'real_mapper': ..., 'synth_mapper': ...}`.
        calibrator_file: `inv_tau` and `bias`; the unfitted calibrator when None.

    Raises:
        UsageError: a name that cannot be used.
        ModelError: a file of another kind, or a mapper for another number of features.
    """
    from embed.official import read_calibrator, read_mappers

    model = AttributionModel(
        name=name,
        backbone=backbone,
        mappers=read_mappers(mapper_file),
        calibrator=read_calibrator(calibrator_file) if calibrator_file else UNFITTED,
        tuned_on=mapper_file.name,
    )
    save_model(model)
    return model


def export_model(name: str, folder: Path) -> AttributionModel:
    """Write the model of that name to a folder, for another machine.

    Raises:
        UnknownModelError: no such model.
        ModelError: it is damaged, or the folder cannot be written.
    """
    model = find_model(name)
    model.save(folder)
    return model


def _user_names() -> list[str]:
    try:
        found = [path.name for path in models_folder().iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name))


def _shipped_names() -> list[str]:
    return sorted(path.parent.name for path in _SHIPPED.glob("*/model.json"))


def _looks_like_path(text: str) -> bool:
    return os.sep in text or text.startswith((".", "~")) or (Path(text) / "model.json").is_file()
