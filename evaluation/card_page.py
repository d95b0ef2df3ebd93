"""A model's card as a page of Markdown: what it is, how it was made, how good it is, where not."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any

from evaluation.bootstrap import ENOUGH
from evaluation.report import TITLES
from ingest.errors import ModelError

if TYPE_CHECKING:
    from embed.calibrator import Calibrator
    from embed.model import AttributionModel

__all__ = ["card_page"]

Json = Mapping[str, Any]

_UNKNOWN = "Not recorded."

_SETTINGS = {
    "kind": "--kind",
    "start": "--start",
    "shrinkage": "--shrinkage",
    "out_dim": "--out-dim",
    "temperature": "--temperature",
    "orthogonality": "--orthogonality",
    "learning_rate": "--learning-rate",
    "steps": "--steps",
    "seed": "--seed",
}
"""Those that `attrib tune` takes as options."""


def card_page(model: AttributionModel) -> str:
    """The card of a model, whatever of it is known.

    `model.card` may hold `tuning` and `calibration` (see `evaluation.tuning`), `test` (see
    `evaluation.card`) and `about`: what only a person knows, as texts `domain`, `licence` and
    `chosen` (how the hyperparameters were), and `limits`, a list of texts.

    Raises:
        ModelError: the card is not of this form.
    """
    try:
        return "\n".join(_lines(model)).rstrip() + "\n"
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ModelError(
            f"the card of model '{model.name}' cannot be read: {type(exc).__name__}: {_text(exc)}"
        ) from exc


def _lines(model: AttributionModel) -> Iterator[str]:
    card = model.card
    tuning, about = card.get("tuning", {}), card.get("about", {})
    yield from [f"# {_text(model.name)}", ""]
    yield from [*_table(["", ""], _facts(model)), ""]
    sections = {
        "What it was tuned on": _tuned_on(model, tuning),
        "Hyperparameters": _hyperparameters(tuning, about),
        "Calibrator": _calibrator(model.calibrator, card.get("calibration", {})),
        "Validation": _validation(tuning.get("validation", {})),
        "Test": _test(model, card.get("test", {})),
        "Domain and limits": _limits(about),
        "Licence": _licence(model, about),
        "How to make it again": _command(model, tuning, card.get("calibration", {})),
    }
    for title, lines in sections.items():
        yield from [f"## {title}", ""]
        yield from list(lines) or [_UNKNOWN]
        yield ""


def _facts(model: AttributionModel) -> list[list[str]]:
    real, synth = model.mappers.real_mapper.kind, model.mappers.synth_mapper.kind
    kinds = real if real == synth else f"{real} (training images), {synth} (generated images)"
    backbone = f"`{_text(model.backbone.name)}`"
    if model.backbone.about:
        backbone += f": {_text(model.backbone.about)}"
    known = bool(model.weights_hash)
    return [
        ["fingerprint", f"`{model.fingerprint}`" if known else "known once the weights are loaded"],
        ["backbone", backbone],
        ["mappers", f"{_text(kinds)}, {model.backbone.dim} -> {model.dim} numbers"],
        ["tuned on", _text(model.tuned_on) or "nothing: base features as they are"],
        ["calibrated on", _text(model.calibrator.fitted_on) or "nothing: default settings"],
        ["licence", _text(model.backbone.licence) or "unknown"],
    ]


def _tuned_on(model: AttributionModel, tuning: Json) -> Iterator[str]:
    if not tuning:
        if model.tuned_on:
            yield f"{_text(model.tuned_on)}. More is not recorded."
        else:
            yield "Nothing: these are the backbone's features as they are."
        return
    kinds = _counts(tuning.get("kinds", {}))
    yield (
        f"{len(tuning.get('models', []))} customized models{kinds}, of the test cases "
        f"{_files(tuning.get('cases', []))}: their generated images, with their exemplars."
    )
    held = tuning.get("validation_cases", [])
    validation = tuning.get("validation", {})
    if validation:
        where = f" of {_files(held)}" if held else ", drawn from the same test cases,"
        yield (
            f"{validation['models']} other models{where} served for validation: tuning was stopped "
            f"by them, and the calibrator fitted on them. No customized model stands in both."
        )


def _hyperparameters(tuning: Json, about: Json) -> Iterator[str]:
    settings = tuning.get("settings", {})
    if not settings:
        return
    yield from _table(
        ["setting", "value"], [[_text(name), _text(value)] for name, value in settings.items()]
    )
    yield ""
    yield (
        f"Kept: the mappers after {tuning['step']} steps of at most {settings['steps']}, best in "
        "mAP on the validation models."
    )
    if about.get("chosen"):
        yield _text(about["chosen"])


def _calibrator(calibrator: Calibrator, fit: Json) -> Iterator[str]:
    if not calibrator.fitted:
        yield "Not fitted: percentages rest on default settings."
        return
    support = "b is not negative, so every training image has some influence"
    if calibrator.b < 0:
        cut = -calibrator.tau * log(-calibrator.b)
        support = f"training images within {cut:.4g} of the greatest similarity have influence"
    rows = [
        ["fitted on", _text(calibrator.fitted_on)],
        ["tau", f"{calibrator.tau:.6g}"],
        ["b", f"{calibrator.b:.6g}"],
        ["support", support],
    ]
    if fit:
        rows += [
            ["objective", _text(fit["objective"])],
            [
                "KL divergence of answers, in nats",
                f"{fit['kl_before']:.3f} with default settings, {fit['kl_after']:.3f} fitted, "
                f"{fit['kl_softmax']:.3f} by the best softmax",
            ],
            ["influence on exemplars", f"{fit['mass_on_exemplars']:.1%}"],
            [
                "measured on",
                f"{fit['models']} models, {fit['queries']:,} generated images, "
                f"{fit['gallery']:,} training images",
            ],
        ]
    yield from _table(["", ""], rows)


def _validation(found: Json) -> Iterator[str]:
    if not found:
        return
    yield (
        f"{found['models']} models, {found['queries']:,} generated images, "
        f"{found['distractors']:,} distractors; 95 % intervals over models, in pairs. Tuning was "
        "stopped by these very models: the figures flatter it."
    )
    yield ""
    rows = [
        [
            title,
            f"{found[key]['untuned']:.3f}",
            f"{found[key]['tuned']:.3f}",
            _difference(found[f"{key}_gain"]),
        ]
        for key, title in (("recall_5", "Recall@5"), ("map", "mAP"))
    ]
    yield from _table(["", "backbone, untuned", "tuned", "difference"], rows)


def _test(model: AttributionModel, test: Json) -> Iterator[str]:
    if not test:
        yield "Not recorded. `attrib evaluate --write-card` keeps the figures of a test here."
        return
    yield (
        "By the paper's protocol (arXiv 2306.09345): Recall@k and mAP of the exemplars among the "
        "distractors, with 95 % intervals over models; differences in pairs."
    )
    for case, found in test.items():
        yield from ["", f"### {_text(case)}", ""]
        yield (
            f"{found['models']} models{_counts(found.get('kinds', {}))}, {found['queries']:,} "
            f"generated images, {found['distractors']:,} distractors."
        )
        measured = found.get("fingerprint")
        if measured and model.weights_hash and measured != model.fingerprint:
            yield (
                f"**Measured when the model had the fingerprint `{_text(measured)}`: its mappers "
                "or its calibrator changed since.**"
            )
        if found["models"] < ENOUGH:
            yield f"Fewer than {ENOUGH} models: even an interval that excludes zero may be chance."
        for warning in found.get("warnings", []):
            yield f"**{_text(warning)}**"
        yield ""
        rows = [[f"`{_text(model.name)}`", *_figures(found["metrics"], _interval)]]
        if "untuned" in found:
            untuned = found["untuned"]
            rows = [
                [f"`{_text(untuned['name'])}`, untuned", *_figures(untuned["metrics"], _interval)],
                *rows,
                ["difference", *_figures(found["minus_untuned"], _difference)],
            ]
        yield from _table(["", *TITLES.values()], rows)
        if "calibration" in found:
            yield ""
            yield _calibrated(found["calibration"])


def _calibrated(found: Json) -> str:
    return (
        f"Calibration: expected calibration error {found['expected_calibration_error']:.3f}; "
        f"divergence of answers from the exemplars {_interval(found['kl'])} nats (best softmax on "
        f"these very images: {found['kl_softmax']:.3f}); influence on the exemplars "
        f"{found['mass_on_exemplars']['mean']:.1%}."
    )


def _limits(about: Json) -> Iterator[str]:
    if about.get("domain"):
        yield f"Made for: {_text(about['domain'])}."
    limits = about.get("limits", [])
    if limits:
        yield ""
        yield from (f"- {_text(limit)}" for limit in limits)


def _licence(model: AttributionModel, about: Json) -> Iterator[str]:
    backbone = model.backbone
    yield (
        f"Backbone: {_text(backbone.licence) or 'unknown'} (weights: "
        f"{_text(backbone.weights_source) or 'unknown'})."
    )
    if about.get("licence"):
        yield _text(about["licence"])


def _command(model: AttributionModel, tuning: Json, fit: Json) -> Iterator[str]:
    settings = tuning.get("settings", {})
    if not settings:
        return
    words = ["attrib tune", *(_word(f"{case}.json") for case in tuning.get("cases", []))]
    options = [(option, settings[name]) for name, option in _SETTINGS.items() if name in settings]
    if fit:
        options.append(("--objective", fit["objective"]))
    parts = [
        " ".join(words),
        *(f"--validation {_word(f'{one}.json')}" for one in tuning.get("validation_cases", [])),
        f"--name {_word(model.name)} --model {_word(model.backbone.name)}",
        "--distractors IMAGES --exclude CASES",
        *(
            " ".join(f"{option} {_word(value)}" for option, value in options[at : at + 4])
            for at in range(0, len(options), 4)
        ),
    ]
    yield from ["```sh", " \\\n  ".join(parts), "```", ""]
    yield (
        "IMAGES are training images that no model was customized on; CASES is a folder with all "
        "test cases, whose exemplars are left out of them."
    )


# -- forms -----------------------------------------------------------------------------------------


def _interval(value: Json) -> str:
    if value["low"] is None or value["high"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _difference(value: Json) -> str:
    if value["low"] is None or value["high"] is None:
        return f"{value['mean']:+.3f}"
    return f"{value['mean']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


def _figures(metrics: Json, form: Callable[[Json], str]) -> list[str]:
    return [form(metrics[name]) for name in TITLES]


def _counts(kinds: Json) -> str:
    said = ", ".join(f"{count} {_text(kind)}" for kind, count in kinds.items())
    return f" ({said})" if said else ""


def _files(cases: Sequence[object]) -> str:
    return ", ".join(f"`{_text(case)}`" for case in cases)


def _word(value: object) -> str:
    return shlex.quote(_text(value))


def _text(value: object) -> str:
    """On one line, and not as Markdown of a table: a card may come from anybody."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return " ".join(shown.split()).replace("|", "\\|")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"
