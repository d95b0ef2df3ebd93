"""``attrib query``: who influenced a generated image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import DataOption, ExactOption, ExpectedModelOption, JsonOption, parse_where

if TYPE_CHECKING:
    from attrib.client import Connected
    from attrib.opened import Opened, Queryable
    from search.answer import Attribution

__all__ = ["query"]


@ends_in_one_line
def query(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Generated images.")],
    data: DataOption = Path("attrib-data"),
    k: Annotated[int, typer.Option("--k", "-k", help="Training images to show.")] = 50,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Show only training images of which field=value holds (creator, licence, "
            "dataset, ...). Repeat for more; shares stay shares of the whole training set."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Answer as if the training images of which field=value holds were not in the "
            "collection; nothing is changed. Repeat for more, as --where."
        ),
    ] = None,
    mass: Annotated[
        float | None,
        typer.Option(
            help="End the rows where they carry this share of the influence, such as 0.99.",
            show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Sum the influence of the whole support by a field, such as creator."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw the answer into this file (.png, .jpg, .webp); a folder for many."),
    ] = None,
    exact: ExactOption = False,
    model: ExpectedModelOption = None,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="ATTRIB_SERVER",
            metavar="URL",
            help="Ask a running service (`attrib serve`) instead of a data folder; its key in "
            "ATTRIB_API_KEY.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Attribute generated images to training images.

    Influence is a calibrated share, 0 to 100 %, over the whole training set; what the rows do not
    carry is shown as the remaining influence. It is a similarity-based estimate, not a causal
    proof.
    """
    from attrib.console import print_json
    from ingest.errors import EmptyQueryError, ImageError, RunError, SourceError
    from search.checks import check_mass

    if k < 1:
        raise EmptyQueryError(f"k must be at least 1, not {k}")
    check_mass(mass)
    conditions, left_out = parse_where(where or []), parse_where(without or [], "--without")
    failed = 0
    answers: list[Attribution] = []
    with _opened(data, server, model) as opened:
        loaded: list[tuple[Path, Queryable]] = []
        for path in images:
            try:
                loaded.append((path, opened.load(path)))
            except (ImageError, SourceError) as exc:
                if len(images) == 1:
                    raise
                failed += 1
                warn(str(exc))
        if loaded:
            answers = opened.query_many(
                [image for _, image in loaded],
                names=[str(path) for path, _ in loaded],
                k=k,
                mass=mass,
                where=conditions,
                without=left_out,
                group_by=group_by,
                exact=exact,
            )
        targets = _targets(picture, [path for path, _ in loaded], many=len(images) > 1)
        for answer, (_, image), target in zip(answers, loaded, targets, strict=True):
            if answer.note:
                warn(f"{answer.query}: {answer.note}")
            if not json:
                _show(answer)
            if target is not None:
                opened.picture(answer, image, target)
                if not json:
                    typer.echo(f"picture: {target}")
    if json:
        print_json([answer.to_dict() for answer in answers])
    if failed:
        raise RunError(f"{failed} of {len(images)} images could not be used")


def _opened(data: Path, server: str | None, model: str | None) -> Opened | Connected:
    if server is None:
        from attrib.opened import open_data

        return open_data(data, model=model)
    from attrib.client import connect
    from embed.registry import find_model
    from ingest.errors import ModelMismatchError

    service = connect(server)
    if model is not None and (served := service.info()["model"]) != find_model(model).name:
        service.close()
        raise ModelMismatchError(f"{server} answers with {served}, not with {model}")
    return service


def _targets(picture: Path | None, images: list[Path], *, many: bool) -> list[Path | None]:
    """Where the pictures go; images of one name in several folders get numbered ones."""
    if picture is None:
        return [None] * len(images)
    if not (many or picture.is_dir()):
        return [picture] * len(images)
    targets: list[Path | None] = []
    for image in images:
        target = picture / f"{image.stem}.png"
        number = 1
        while target in targets:
            number += 1
            target = picture / f"{image.stem}-{number}.png"
        targets.append(target)
    return targets


def _show(answer: Attribution) -> None:
    from attrib.console import table

    rows: list[list[object]] = []
    for row in answer.rows:
        creators = "; ".join(filter(None, row.creators)) or "unknown"
        key = row.key if len(row.owners) == 1 else f"{row.key} (+{len(row.owners) - 1} equal)"
        influence = _percent(row.influence, row.interval, answer)
        rows.append(
            [row.rank, influence, f"{row.similarity:.3f}", creators, key, row.owners[0].caption]
        )
    remaining = _percent(answer.remaining, answer.remaining_interval, answer)
    rows.append(["", remaining, "", "remaining influence", "", ""])
    table(
        [
            ("#", "right"),
            ("influence", "right"),
            ("similarity", "right"),
            ("creator", "left"),
            ("training image", "left"),
            ("caption", "cut"),
        ],
        rows,
        title=f"{answer.query}: influence of {answer.population:,} training images",
    )
    if answer.group_by:
        table(
            [("influence", "right"), ("images", "right"), (answer.group_by, "left")],
            [
                [_percent(g.influence, g.interval, answer), g.images, g.value or "unknown"]
                for g in answer.groups
            ]
            + (
                [[f"{answer.groups_remaining:.2%}", "", "not known by group"]]
                if answer.groups_remaining > 0.5e-4
                else []
            ),
        )
    for line in _in_words(answer):
        typer.echo(line)


def _percent(share: float, interval: tuple[float, float], answer: Attribution) -> str:
    if answer.method != "estimated":
        return f"{share:.2%}"
    return f"{share:.2%} ({interval[0]:.2%}-{interval[1]:.2%})"


def _in_words(answer: Attribution) -> list[str]:
    from attrib.console import counted

    method = {
        "exact": "exact: every training image was compared",
        "complete": f"complete: the support is {counted(answer.support or 0, 'training image')}, "
        "all of them counted",
        "estimated": "estimated: the nearest exactly, the rest from a sample "
        "(95 % interval in brackets)",
    }[answer.method]
    calibrator = answer.calibrator
    fitted = str(calibrator.get("fitted_on") or "")
    calibrated = (
        f"calibrated on {fitted}"
        if fitted
        else "calibrator not fitted: shares rest on default settings "
        f"(tau {calibrator['tau']:g}, b {calibrator['b']:g})"
    )
    lines = [method, f"model {answer.model}; {calibrated}"]
    if answer.without:
        from search.chosen import filter_in_words

        gone = int(answer.index["points"]) - answer.population
        lines.insert(
            0,
            f"as if {counted(gone, 'training image')} with {filter_in_words(answer.without)} were "
            "not in the collection; nothing was changed"
            if gone
            else f"no training image has {filter_in_words(answer.without)}: nothing was left out",
        )
    if answer.where and not answer.rows:
        lines.insert(0, "no training image that fits --where has influence")
    return lines
