"""``attrib models``: attribution models and backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrib.ending import ends_in_one_line
from attrib.options import JsonOption

if TYPE_CHECKING:
    from embed.model import AttributionModel

__all__ = ["app"]

app = typer.Typer(
    help="List, show, import and export attribution models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
@ends_in_one_line
def list_(json: JsonOption = False) -> None:
    """List the models that --model takes: imported ones, then backbones as they are.

    Besides these, --model takes timm:NAME, open_clip:NAME/PRETRAINED and a model folder.
    """
    from attrib.console import print_json, table
    from embed.backbones import DEFAULT_BACKBONE
    from embed.registry import list_models

    rows = []
    for listed in list_models():
        model = listed.model
        about = listed.problem or (model.backbone.about if model else "")
        rows.append(
            {
                "name": listed.name,
                "backbone": model.backbone.name if model else "",
                "dim": model.dim if model else 0,
                "tuned_on": model.tuned_on if model else "",
                "calibrated_on": model.calibrator.fitted_on if model else "",
                "licence": model.backbone.licence if model else "",
                "about": about,
            }
        )
    if json:
        print_json(rows)
        return
    table(
        [
            ("model", "left"),
            ("dim", "right"),
            ("tuned on", "left"),
            ("licence", "left"),
            ("about", "cut"),
        ],
        [
            [
                f"{row['name']} (default)" if row["name"] == DEFAULT_BACKBONE else row["name"],
                row["dim"],
                row["tuned_on"] or "-",
                row["licence"],
                row["about"],
            ]
            for row in rows
        ],
    )


@app.command("show")
@ends_in_one_line
def show(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    json: JsonOption = False,
) -> None:
    """Show what a model is made of: backbone, preprocessing, mappers, calibrator, fingerprint."""
    from attrib.console import print_json
    from embed.registry import find_model

    found = find_model(model)
    facts = _facts(found)
    if json:
        print_json({**facts, "card": found.card})
        return
    for name, value in facts.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        typer.echo(f"{name:20} {shown}")


@app.command("card")
@ends_in_one_line
def card(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to write instead.", show_default=False)
    ] = None,
) -> None:
    """Print a model's card: how it was made, how good it is, and where it is not, as Markdown.

    `attrib evaluate --write-card` puts figures of a test into it. Its fingerprint does not depend
    on the card.
    """
    from attrib.console import print_lines
    from embed.registry import find_model
    from evaluation.card_page import card_page
    from ingest.errors import RunError

    page = card_page(find_model(model))
    if out is None:
        print_lines(*page.splitlines())
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise RunError(f"{out} cannot be written: {exc.strerror}") from exc
    typer.echo(f"{model}'s card written to {out}")


@app.command("import")
@ends_in_one_line
def import_(
    name: Annotated[str, typer.Argument(help="Name for the new model.")],
    backbone: Annotated[str, typer.Option(help="Backbone that the mapper was tuned on.")],
    mapper: Annotated[
        Path, typer.Option(help="The paper's mapper file (.pth: real_mapper, synth_mapper).")
    ],
    calibrator: Annotated[
        Path | None, typer.Option(help="The paper's calibrator file (.pth: inv_tau, bias).")
    ] = None,
) -> None:
    """Import the official mapper and calibrator files of the paper as a model."""
    from embed.backbones import resolve
    from embed.registry import import_model

    model = import_model(name, resolve(backbone), mapper, calibrator)
    fitted = model.calibrator.fitted_on or "not fitted"
    typer.echo(
        f"{name}: {model.mappers.real_mapper.kind} mappers {model.backbone.dim} -> {model.dim} on "
        f"{model.backbone.name}; calibrator {fitted}"
    )


@app.command("export")
@ends_in_one_line
def export(
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write a model's folder (model.json, mapper.safetensors), for another machine."""
    from embed.registry import export_model

    export_model(model, folder)
    typer.echo(f"{model} written to {folder}")


def _facts(model: AttributionModel) -> dict[str, Any]:
    backbone = model.backbone
    known = bool(model.weights_hash)
    calibrator = model.calibrator
    return {
        "name": model.name,
        "backbone": backbone.name,
        "architecture": f"{backbone.family}: {backbone.architecture or '(in the weights file)'}",
        "revision": backbone.revision,
        "licence": backbone.licence,
        "weights_source": backbone.weights_source,
        "weights_hash": model.weights_hash or "known once the weights are loaded",
        "preprocessing": backbone.preprocessing.to_dict(),
        "base_dim": backbone.dim,
        "dim": model.dim,
        "mappers": {
            "real": model.mappers.real_mapper.kind,
            "synth": model.mappers.synth_mapper.kind,
        },
        "tuned_on": model.tuned_on or "nothing: base features as they are",
        "calibrator": {
            "tau": calibrator.tau,
            "b": calibrator.b,
            "fitted_on": calibrator.fitted_on or "nothing: default settings",
        },
        "fingerprint": model.fingerprint if known else "known once the weights are loaded",
        "feature_fingerprint": (
            model.feature_fingerprint if known else "known once the weights are loaded"
        ),
    }
