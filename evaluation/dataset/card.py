"""The card of a dataset: what it is, how it was made, how good it is, and what it looks like."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from evaluation.dataset.check import Check, ModelQuality, read_quality
from evaluation.dataset.files import (
    CARD,
    MANIFEST,
    RECORD,
    SPLITS,
    inside,
    write_bytes,
    write_text,
)
from evaluation.dataset.lock import taken
from ingest.decode import decode
from ingest.errors import DataFolderError, ImageError, SourceError
from ingest.item import printable

__all__ = ["write_card"]

_FOLDER = "sheets"
_SHEETS = 12
_SHOWN = 8
_TILE = 96
_PROBLEMS = 20
_REMEDY = "the `attrib dataset build` that made it makes it again"


def write_card(out: Path) -> Path:
    """Write ``README.md`` and example sheets into a finished dataset; returns the card's path.

    Raises:
        SourceError: no finished dataset there, or damaged records.
        DataFolderBusyError: another process writes into the folder.
        DataFolderError: the folder cannot be written to.
    """
    if not (out / MANIFEST).is_file():
        raise SourceError(f"{out} holds no finished dataset of `attrib dataset build`")
    with taken(out):
        try:
            text, sheets = _made(out)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
            raise SourceError(f"{out} is damaged: {printable(str(exc))}; {_REMEDY}") from exc
        folder = out / _FOLDER
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise DataFolderError(f"{folder} is not a folder of this dataset; move it away")
        try:
            for number, picture in sheets.items():
                write_bytes(folder / f"{number}.png", picture)
            write_text(out / CARD, text)
        except OSError as exc:
            raise DataFolderError(f"cannot write {out / CARD}: {exc.strerror or exc}") from exc
    return out / CARD


def _made(out: Path) -> tuple[str, dict[str, bytes]]:
    """The card's text, and its sheets by the models' numbers."""
    manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    files = manifest["files"]
    records: dict[str, dict[str, Any]] = {}
    for name in sorted(name for name in files if RECORD.fullmatch(name)):
        try:
            # Its number is that of its name: what it says of itself may be a path.
            records[Path(name).stem] = dict(json.loads(inside(out, name, files).read_bytes()))
        except (OSError, ValueError, TypeError) as exc:
            raise SourceError(f"{out / name} is damaged: {_why(exc)}; {_REMEDY}") from exc
    shown = dict(list(records.items())[:_SHEETS])
    sheets = {number: _sheet(out, record, files) for number, record in shown.items()}
    titles = [
        (f"{number}: {record['name']}", f"{_FOLDER}/{number}.png")
        for number, record in shown.items()
    ]
    return _card(manifest, list(records.values()), read_quality(out), titles), sheets


def _card(
    manifest: dict[str, Any],
    records: list[dict[str, Any]],
    quality: Check | None,
    sheets: list[tuple[str, str]],
) -> str:
    settings, generator = manifest["settings"], manifest["generator"]
    custom, sampling = settings["customization"], settings["sampling"]
    kind = settings["kind"]
    splits = Counter(record["split"] for record in records)
    images = sum(len(record["prompts"]) for record in records)
    strength = _mean([record["moved"] for record in records])
    lines = [
        f"# {_plain(kind).capitalize()} models of {_plain(generator['name'])}",
        "",
        f"{len(records)} customized models and {images} images that they made, in the format of "
        "the AbC test cases (Wang et al., *Evaluating Data Attribution for Text-to-Image Models*, "
        f"ICCV 2023). {_influence(quality)}",
        "",
        "| | |",
        "|---|---|",
        f"| generator | {_plain(generator['name'])} {_plain(generator.get('revision', ''))} |",
        f"| method | {_plain(custom['method'])}, {custom['steps']:d} steps of "
        f"{custom['batch_size']:d} images, learning rate {custom['rate']:g} |",
        f"| prior preservation | {_priors(records)}, weight {custom['prior_weight']:g} |",
        f"| strength | trained weights moved by {strength:.3g} (L2, mean over models) |",
        f"| sampling | {sampling['steps']:d} steps, guidance {sampling['guidance']:g} |",
        f"| models by split | {', '.join(f'{name} {splits[name]}' for name in SPLITS)} |",
        f"| seed | {settings['seed']:d} |",
        *_captions(manifest.get("captions")),
        "",
        "Every hyperparameter and the hash of every file are in `manifest.json`; the choice of "
        "exemplars, prompts and seeds in `plan.json`; losses of each model in `models/`.",
        "",
    ]
    lines += _quality_lines(quality)
    if manifest["left_out"]:
        lines += [
            "## What is not in it",
            "",
            *(f"- {_plain(why)}" for why in manifest["left_out"]),
            "",
        ]
    lines += ["## Examples", "", "The exemplar, then what its model made.", ""]
    for name, path in sheets:
        lines += [f"{_plain(name)}", "", f"![{_plain(name)}]({path})", ""]
    return "\n".join(lines)


def _influence(quality: Check | None) -> str:
    """What may be said of all images at once."""
    meant = "Each model was tuned toward its exemplars, so that they influence its images"
    if quality is None:
        return f"{meant}; whether that took was not looked at yet."
    if not quality.failed:
        return f"{meant} by construction; a gain over the generator itself was found in each."
    return (
        f"{meant}. Of {len(quality.failed)} of {len(quality.models)} models that is **not sure**: "
        "see the table below, and leave them out where it matters."
    )


def _quality_lines(quality: Check | None) -> list[str]:
    if quality is None:
        return ["## Quality", "", "Not looked at yet: `attrib dataset check` does.", ""]
    gains = [model.gain for model in quality.models]
    copies = sum(model.copies for model in quality.models)
    images = sum(model.images for model in quality.models)
    lines = ["## Quality", ""]
    if quality.problems:
        shown = [f"- {_plain(problem)}" for problem in quality.problems[:_PROBLEMS]]
        if (more := len(quality.problems) - _PROBLEMS) > 0:
            shown.append(f"- and {more} more")
        lines += ["**The dataset is not whole:**", "", *shown, ""]
    lines += [
        f"Similarities are of {_plain(quality.judge)}: of each image to its nearest exemplar, "
        "beside that of what the generator itself makes of the same words.",
        "",
        f"- Mean gain over the generator: {_mean(gains):+.3f}.",
        "- Not surely customized (the interval of the gain is not above 0): "
        f"{_counted(quality.failed, quality)}.",
    ]
    if apart := [model for model in quality.failed if model.fell_apart]:
        lines.append(
            "- Of these fell apart (loss rose, or images are farther from the exemplars than the "
            f"generator's own): {_counted(apart, quality)}."
        )
    lines += [
        f"- Near-copies of an exemplar (edges laid over each other, score {quality.copy_score:g} "
        f"and above): {copies} of {images} images; more than half of the images of "
        f"{_counted(quality.copying, quality)}.",
        "",
        "| model | name | split | similarity | generator itself | gain (95 %) | copies | moved |",
        "|---|---|---|--:|--:|---|--:|--:|",
    ]
    lines += [
        f"| {_plain(m.id)} | {_plain(m.name)} | {_plain(m.split)} | {m.similarity:.3f} | "
        f"{m.base:.3f} | {m.gain:+.3f} ({m.gain_low:+.3f} to {m.gain_high:+.3f}){_verdict(m)} | "
        f"{m.copies:d} of {m.images:d} | {m.moved:.3g} |"
        for m in quality.models
    ]
    return [*lines, ""]


def _verdict(model: ModelQuality) -> str:
    if not model.failed:
        return ""
    return " fell apart" if model.fell_apart else " not sure"


def _counted(some: Sequence[ModelQuality], quality: Check) -> str:
    named = [_plain(model.id) for model in some]
    shown = ", ".join(named[:_PROBLEMS])
    if (more := len(named) - _PROBLEMS) > 0:
        shown += f" and {more} more"
    return f"{len(some)} of {len(quality.models)} models" + (f" ({shown})" if named else "")


def _sheet(out: Path, record: dict[str, Any], files: Container[str]) -> bytes:
    """A PNG file, a row of pictures: the first exemplar, a gap, and images of the model."""
    from PIL import Image, ImageOps

    made = sorted(name for name in record["images"] if name.startswith("synth/"))
    step = max(1, len(made) // _SHOWN)
    names = [record["exemplars"][0], *made[::step][:_SHOWN]]
    sheet = Image.new("RGB", (_TILE * len(names) + _TILE // 4, _TILE), "white")
    for place, name in enumerate(names):
        try:
            image = decode(inside(out, name, files).read_bytes()).image
        except (ImageError, OSError, ValueError) as exc:
            shown = printable(str(out / name))
            raise SourceError(f"{shown} is damaged: {_why(exc)}; {_REMEDY}") from exc
        tile = ImageOps.contain(image, (_TILE, _TILE), Image.Resampling.LANCZOS)
        left = place * _TILE + (_TILE // 4 if place else 0)
        sheet.paste(tile, (left + (_TILE - tile.width) // 2, (_TILE - tile.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _why(exc: Exception) -> str:
    return printable((exc.strerror if isinstance(exc, OSError) else None) or str(exc))


def _plain(text: object) -> str:
    """Names are hostile text: nothing in them may be Markdown or HTML."""
    shown = "".join(c if c.isprintable() else " " for c in printable(str(text)))
    shown = " ".join(shown.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>#|!&~:@$])", r"\\\1", shown)
    return re.sub(r"(?i)(www)\.", r"\1\\.", escaped)


def _captions(asked: dict[str, str] | None) -> list[str]:
    if asked is None:
        return []
    return [
        f"| free prompts | written by {_plain(asked['model'])} at {_plain(asked['endpoint'])} |"
    ]


def _priors(records: list[dict[str, Any]]) -> str:
    used = [record["prior_images"] for record in records]
    shown = f"{_mean([one['real'] for one in used]):.0f} real images a model"
    made = [one["synthesized"] for one in used if one["synthesized"]]
    if made:
        shown += f"; {_mean(made):.0f} of the generator's own for {len(made)} models without any"
    return shown


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
