"""The card of a dataset: what it is, how it was made, how good it is, and what it looks like."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from evaluation.dataset.check import Check, read_quality
from evaluation.dataset.files import CARD, MANIFEST, SPLITS, write_bytes, write_text
from evaluation.dataset.lock import taken
from ingest.decode import decode
from ingest.errors import DataFolderError, ImageError, SourceError
from ingest.item import printable

__all__ = ["write_card"]

_SHEETS = 12
_SHOWN = 8
_TILE = 96


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
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImageError) as exc:
            raise SourceError(f"{out} is damaged: {exc}") from exc
        try:
            for name, picture in sheets.items():
                write_bytes(out / name, picture)
            write_text(out / CARD, text)
        except OSError as exc:
            raise DataFolderError(f"cannot write {out / CARD}: {exc.strerror or exc}") from exc
    return out / CARD


def _made(out: Path) -> tuple[str, dict[str, bytes]]:
    """The card's text, and its sheets by their names."""
    manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    records = [
        json.loads(path.read_text("utf-8")) for path in sorted((out / "models").glob("*.json"))
    ]
    shown = {f"sheets/{record['id']}.png": record for record in records[:_SHEETS]}
    titles = [(f"{record['id']}: {record['name']}", name) for name, record in shown.items()]
    text = _card(manifest, records, read_quality(out), titles)
    return text, {name: _sheet(out, record) for name, record in shown.items()}


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
        f"# {kind.capitalize()} models of {_plain(generator['name'])}",
        "",
        f"{len(records)} customized models and {images} images that they made, in the format of "
        "the AbC test cases (Wang et al., *Evaluating Data Attribution for Text-to-Image Models*, "
        "ICCV 2023). The images are influenced by their exemplars by construction.",
        "",
        "| | |",
        "|---|---|",
        f"| generator | {_plain(generator['name'])} {_plain(generator.get('revision', ''))} |",
        f"| method | {custom['method']}, {custom['steps']} steps of {custom['batch_size']} images, "
        f"learning rate {custom['rate']:g} |",
        f"| prior preservation | {_priors(records)}, weight {custom['prior_weight']:g} |",
        f"| strength | trained weights moved by {strength:.3g} (L2, mean over models) |",
        f"| sampling | {sampling['steps']} steps, guidance {sampling['guidance']:g} |",
        f"| models by split | {', '.join(f'{name} {splits[name]}' for name in SPLITS)} |",
        f"| seed | {settings['seed']} |",
        *_captions(manifest.get("captions")),
        "",
        "Every hyperparameter and the hash of every file are in `manifest.json`; the choice of "
        "exemplars, prompts and seeds in `plan.json`; losses of each model in `models/`.",
        "",
    ]
    lines += _quality_lines(quality)
    if manifest["left_out"]:
        lines += ["## Left out", "", *(f"- {_plain(why)}" for why in manifest["left_out"]), ""]
    lines += ["## Examples", "", "The exemplar, then what its model made.", ""]
    for name, path in sheets:
        lines += [f"{_plain(name)}", "", f"![{_plain(name)}]({path})", ""]
    return "\n".join(lines)


def _quality_lines(quality: Check | None) -> list[str]:
    if quality is None:
        return ["## Quality", "", "Not looked at yet: `attrib dataset check` does.", ""]
    gains = [model.gain for model in quality.models]
    copies = sum(model.copies for model in quality.models)
    images = sum(model.images for model in quality.models)
    lines = [
        "## Quality",
        "",
        f"Similarities are of {_plain(quality.judge)}: of each image to its nearest exemplar, "
        "beside that of what the generator itself makes of the same words.",
        "",
        f"- Mean gain over the generator: {_mean(gains):+.3f}.",
        "- Not surely customized (the interval of the gain is not above 0): "
        f"{len(quality.failed)} of {len(quality.models)} models"
        + (f" ({', '.join(model.id for model in quality.failed)})." if quality.failed else "."),
        f"- Near-copies of an exemplar (similarity {quality.copy_similarity:g} and above): "
        f"{copies} of {images} images; more than half of those of {len(quality.copying)} models.",
        "",
        "| model | name | split | similarity | generator itself | gain (95 %) | copies |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.id} | {_plain(m.name)} | {m.split} | {m.similarity:.3f} | {m.base:.3f} | "
        f"{m.gain:+.3f} ({m.gain_low:+.3f} to {m.gain_high:+.3f})"
        f"{' not sure' if m.failed else ''} | "
        f"{m.copies} of {m.images} |"
        for m in quality.models
    ]
    return [*lines, ""]


def _sheet(out: Path, record: dict[str, Any]) -> bytes:
    """A PNG file, a row of pictures: the first exemplar, a gap, and images of the model."""
    from PIL import Image, ImageOps

    made = sorted(name for name in record["images"] if name.startswith("synth/"))
    step = max(1, len(made) // _SHOWN)
    names = [record["exemplars"][0], *made[::step][:_SHOWN]]
    sheet = Image.new("RGB", (_TILE * len(names) + _TILE // 4, _TILE), "white")
    for place, name in enumerate(names):
        image = decode((out / name).read_bytes()).image
        tile = ImageOps.contain(image, (_TILE, _TILE), Image.Resampling.LANCZOS)
        left = place * _TILE + (_TILE // 4 if place else 0)
        sheet.paste(tile, (left + (_TILE - tile.width) // 2, (_TILE - tile.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


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
