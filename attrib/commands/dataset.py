"""``attrib dataset``: AbC-type data for any generator, by customization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attrib.commands.dataset_worker import worker
from attrib.ending import ends_in_one_line, warn
from attrib.options import REDIS, JsonOption, RedisOption

if TYPE_CHECKING:
    from evaluation.dataset.endpoint import Endpoint

__all__ = ["app"]

app = typer.Typer(
    help="Make and check AbC-type datasets: images of customized generators, with their exemplars.",
    no_args_is_help=True,
)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A dataset's folder.")]

JudgeOption = Annotated[
    str, typer.Option(help="Attribution model that tells whether customization took.")
]

CopyOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Score, of edges laid over each other, from which on an image counts as a copy of its "
        "exemplar.",
    ),
]

_JUDGE = "efficientnet-lite0"


app.command("worker")(worker)


@app.command("build")
@ends_in_one_line
def build(
    generator: Annotated[
        str,
        typer.Option(
            help="Text-to-image pipeline of diffusers: a folder, or a repository of the hub."
        ),
    ],
    exemplars: Annotated[
        list[str],
        typer.Option(
            help="Images to customize on, with class words or creators in sidecars, columns or "
            "folder names: a folder, a list or a Parquet table; may be repeated. Prior images "
            "come from them too."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; an unfinished one goes on.")],
    kind: Annotated[
        Literal["object", "style"],
        typer.Option(help="One image and its class word a model, or the images of one creator."),
    ] = "object",
    method: Annotated[
        Literal["custom-diffusion", "lora", "full"],
        typer.Option(help="What is trained: keys and values of cross-attention, adapters, or all."),
    ] = "custom-diffusion",
    models: Annotated[int, typer.Option(min=1, help="Customized models to make.")] = 20,
    per_model: Annotated[int, typer.Option(min=2, help="Images of each model.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of customization: its strength.")] = 250,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="For one image a step; it is multiplied by --batch-size. [default: 1e-5, lora "
            "1e-4, full 5e-6]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Exemplar images a step; as many prior images come along.")
    ] = 4,
    prior_images: Annotated[
        int, typer.Option(min=0, help="Real images of the class, for prior preservation.")
    ] = 200,
    prior_weight: Annotated[
        float, typer.Option(min=0, help="Of the prior images in the loss; an exemplar's is 1.")
    ] = 1.0,
    rank: Annotated[int, typer.Option(min=1, help="Of lora.")] = 8,
    no_augment: Annotated[
        bool,
        typer.Option(
            "--no-augment", help="Show the exemplars as they are: not mirrored, not scaled."
        ),
    ] = False,
    base_images: Annotated[
        int,
        typer.Option(
            min=2, help="Images of the generator itself that each model's are compared with."
        ),
    ] = 8,
    splits: Annotated[
        str, typer.Option(help="Shares of the models for train, val and test; they sum to 1.")
    ] = "0.6,0.15,0.25",
    exemplars_per_style: Annotated[
        int, typer.Option(min=1, help="Images of a creator to customize on, at most.")
    ] = 8,
    class_field: Annotated[
        str | None,
        typer.Option(
            help="Metadata field with the class word. [default: class, class_word, category, label "
            "or the folder's name]",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Free prompts, one a line, each with a slot {} for the new word. [default: a "
            "list of ours]",
            show_default=False,
        ),
    ] = None,
    prompts_from: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have free prompts written for each class word by a language model behind an "
            "endpoint of OpenAI's protocol, such as http://127.0.0.1:8000/v1; its key in "
            "ATTRIB_PROMPTS_KEY. Asked once: the plan keeps them.",
            show_default=False,
        ),
    ] = None,
    prompts_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name there.", show_default=False),
    ] = None,
    sampling_steps: Annotated[int, typer.Option(min=1, help="Denoising steps an image.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 6.0,
    sampling_batch: Annotated[int, typer.Option(min=1, help="Images made at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of all choices and noise.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda ... [default: a GPU if there is one]")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a CPU: they decide the last digits, so that a set is gone on with by as many. "
            "[default: the cores]",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Of a repository of the hub.", show_default=False)
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Have the models made by `attrib dataset worker` processes, one at a time each, "
            "on all machines that see the folders under the same paths.",
        ),
    ] = False,
    redis: RedisOption = REDIS,
    lease: Annotated[
        float,
        typer.Option(
            min=1, max=3600, help="With --workers: seconds without a sign of life that end a try."
        ),
    ] = 60.0,
    max_attempts: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="With --workers: failures after which a model is given up."
        ),
    ] = 3,
    judge: JudgeOption = _JUDGE,
    copy_score: CopyOption = 0.3,
    json: JsonOption = False,
) -> None:
    """Customize a generator toward exemplars and synthesize images that they influenced.

    Writes images, prompts and AbC test cases split by model, which `attrib tune` and `attrib
    evaluate` take; checks them and writes a card. The same call goes on where it stopped, and
    gives the same files. Needs diffusers: pip install 'attrib[dataset]'.
    """
    from attrib.commands.dataset_quality import end_in_problems, show_check
    from attrib.console import Bar, counted, print_json
    from embed.lazy_embedder import LazyEmbedder
    from embed.registry import find_model
    from evaluation.dataset.build import build_dataset, generator_hash
    from evaluation.dataset.card import write_card
    from evaluation.dataset.check import check_dataset
    from evaluation.dataset.generator import default_device, load_generator
    from evaluation.dataset.library import Library
    from evaluation.dataset.prompts import read_prompts, shipped_prompts
    from evaluation.dataset.settings import BuildSettings, Customization, Sampling

    settings = BuildSettings(
        kind=kind,
        models=models,
        per_model=per_model,
        base_images=base_images,
        exemplars_per_style=exemplars_per_style,
        seed=seed,
        splits=_shares(splits),
        customization=Customization(
            method=method,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=batch_size,
            prior_images=prior_images,
            prior_weight=prior_weight,
            rank=rank,
            augment=not no_augment,
            gradient_checkpointing=gradient_checkpointing,
        ),
        sampling=Sampling(steps=sampling_steps, guidance=guidance, batch_size=sampling_batch),
    )
    endpoint = _endpoint(prompts_from, prompts_model, prompts)
    model = find_model(judge)
    lists = read_prompts(prompts, kind) if prompts is not None else shipped_prompts(kind)
    make = None
    made_on: dict[str, str] = {}
    if workers:
        from workers.dataset_coordinator import ModelWorkers
        from workers.dispatch import CoordinatorSettings

        make = ModelWorkers(
            redis,
            generator=generator,
            revision=revision,
            exemplars=exemplars,
            class_field=class_field,
            settings=CoordinatorSettings(lease, max_attempts),
            notice=warn,
        )
        # Here it only tells which words its tokenizer knows.
        made_on = {"device": (device or default_device()).partition(":")[0]}
        device = "cpu"
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    library = Library(exemplars, class_field=class_field)
    bar = Bar("making", window_s=1800)
    try:
        report = build_dataset(
            out,
            library,
            lambda: load_generator(
                generator, device=device, revision=revision, adapters_only=method == "lora"
            ),
            lists,
            settings,
            {
                "name": _name(generator),
                "revision": revision or "",
                "sha256": generator_hash(generator),
                **made_on,
            },
            bar,
            endpoint=endpoint,
            make=make,
        )
    finally:
        bar.stop()
    check = check_dataset(out, model, LazyEmbedder(model), copy_score=copy_score)
    card = write_card(out)
    if json:
        print_json(
            {
                "models": report.models,
                "made": report.made,
                "images": report.images,
                "left_out": list(report.told),
                "failed": [m.id for m in check.failed],
                "problems": list(check.problems),
                "card": str(card),
            }
        )
        end_in_problems(out, check)
        return
    for why in report.told:
        warn(why)
    typer.echo(
        f"{out}: {counted(report.models, 'model')} ({report.made} made now), "
        f"{counted(report.images, 'image')}"
    )
    show_check(check)
    typer.echo(f"card: {card}")
    end_in_problems(out, check)


@app.command("check")
@ends_in_one_line
def check(
    folder: FolderArgument,
    judge: JudgeOption = _JUDGE,
    copy_score: CopyOption = 0.3,
    json: JsonOption = False,
) -> None:
    """Is the dataset whole, and did its customizations take?

    Every file is compared with the manifest. Images of a customized model must be nearer to its
    exemplars than what the generator itself makes of the same words.
    """
    from dataclasses import asdict

    from attrib.commands.dataset_quality import end_in_problems, show_check
    from attrib.console import print_json
    from embed.lazy_embedder import LazyEmbedder
    from embed.registry import find_model
    from evaluation.dataset.check import check_dataset

    model = find_model(judge)
    found = check_dataset(folder, model, LazyEmbedder(model), copy_score=copy_score)
    if json:
        print_json(asdict(found))
    else:
        show_check(found)
    end_in_problems(folder, found)


@app.command("card")
@ends_in_one_line
def card(folder: FolderArgument) -> None:
    """Write the dataset's card (README.md) with example sheets."""
    from evaluation.dataset.card import write_card

    typer.echo(str(write_card(folder)))


def _shares(text: str) -> tuple[float, float, float]:
    from ingest.errors import UsageError

    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise UsageError(
            f"--splits {text!r} is not three shares, such as 0.6,0.15,0.25 (train, val, test)"
        ) from exc
    return train, val, test


def _endpoint(url: str | None, name: str | None, prompts: Path | None) -> Endpoint | None:
    import os

    from evaluation.dataset.endpoint import Endpoint
    from ingest.errors import UsageError

    if url is None and name is None:
        return None
    if url is None or name is None:
        raise UsageError("--prompts-from and --prompts-model go together: an address, and a model")
    if prompts is not None:
        raise UsageError("prompts are of a file or of an endpoint: --prompts or --prompts-from")
    return Endpoint(url, name, os.environ.get("ATTRIB_PROMPTS_KEY", ""))


def _name(generator: str) -> str:
    """What a generator is called in records: a folder by its name, wherever it is."""
    folder = Path(generator)
    if not folder.is_dir():
        return generator
    return (folder if folder.name not in ("", "..") else folder.resolve()).name or generator
