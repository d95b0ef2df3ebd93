"""The card of a dataset: what it is, how it was made, how good it is, and what it looks like."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
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
from evaluation.dataset.sheet import REMEDY, damaged, drawn, shown_pairs
from ingest.errors import DataFolderError, SourceError
from ingest.item import printable

__all__ = ["write_card"]

_FOLDER = "sheets"
_SHEETS = 12
_PROBLEMS = 20


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
            raise SourceError(f"{out} is damaged: {printable(str(exc))}; {REMEDY}") from exc
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
            raise damaged(out / name, exc) from exc
    shown = dict(list(records.items())[:_SHEETS])
    sheets = {number: drawn(out, record, files) for number, record in shown.items()}
    lines = [line for number, record in shown.items() for line in _example(number, record)]
    return _card(manifest, list(records.values()), read_quality(out), lines), sheets


def _example(number: str, record: dict[str, Any]) -> list[str]:
    name = _plain(f"{number}: {record['name']}")
    prompts = [_plain(record["prompts"][made]) for made, _ in shown_pairs(record)]
    return [name, "", f"![{name}]({_FOLDER}/{number}.png)", "", f"*{'; '.join(prompts)}*", ""]


def _card(
    manifest: dict[str, Any],
    records: list[dict[str, Any]],
    quality: Check | None,
    examples: list[str],
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
        f"| generator | {_generator(generator)} |",
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
    lines += [
        "## Examples",
        "",
        "The exemplar, then what its model made; below it what the generator itself made of the "
        "same words and noise.",
        "",
        *examples,
    ]
    return "\n".join(lines)


def _influence(quality: Check | None) -> str:
    """What may be said of all images at once."""
    meant = "Each model was tuned toward its exemplars, so that they influence its images"
    if quality is None:
        return f"{meant}; whether that took was not looked at yet."
    if not quality.failed:
        return f"{meant} by construction; a gain over the generator itself was found in each."
    return (
        f"{meant}. That this took is **not sure** of {len(quality.failed)} of the "
        f"{len(quality.models)} models: the table below names them; leave them out where it "
        "matters."
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
        "beside that of what the generator itself makes of the same words. The gain is of pairs of "
        "the same words and noise; with few of them (`--base-images`) its interval is wide.",
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


def _plain(text: object) -> str:
    """Names are hostile text: nothing in them may be Markdown or HTML."""
    shown = "".join(c if c.isprintable() else " " for c in printable(str(text)))
    shown = " ".join(shown.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>#|!&~:@$])", r"\\\1", shown)
    return re.sub(r"(?i)(www)\.", r"\1\\.", escaped)


def _generator(named: dict[str, str]) -> str:
    parts = [named["name"], named.get("revision", "")]
    if digest := named.get("sha256", ""):
        parts.append(f"(SHA-256 of its files {digest[:12]})")
    return _plain(" ".join(part for part in parts if part))


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
