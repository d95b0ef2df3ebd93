"""Whether summary.json is what the tables, and the collection, make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ingest.decode import DecodeLimits
from ingest.errors import RunError
from search.audit.flags import Thresholds
from search.audit.settings import AuditSettings
from search.audit.summary import Totals, package_versions, summary_record
from search.audit.tables import SUMMARY
from search.audit.verify_values import first_difference, same_value, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "given_thresholds",
    "made_by_another",
    "settings_of",
    "thresholds_of",
    "told_otherwise",
    "wrong_summary",
]

_OF_VERSION = ("limits", "flags", "settings")  # what depends on the attrib that wrote it
_FACTS = {
    "model.name": "model",
    "model.backbone": "backbone",
    "model.fingerprint": "fingerprint",
    "model.feature_fingerprint": "feature_fingerprint",
    "model.tuned_on": "tuned_on",
    "collection.name": "collection",
}


def wrong_summary(
    summary: Mapping[str, Any], totals: Totals, creators: pa.Table | None, images: int
) -> str:
    """What a summary says that does not follow from the tables, or that attrib does not write; ''
    for nothing. What only the same version of attrib can tell is left out for others, see
    `made_by_another`.

    Args:
        summary: summary.json.
        totals: of the tables.
        creators: the shares, summed again; None where they cannot be.
        images: usable ones.
    """
    gallery, told = summary.get("gallery"), summary.get("totals")
    if not isinstance(gallery, Mapping) or not isinstance(told, Mapping):
        return "it has no totals"
    versions = summary.get("versions")
    if not isinstance(versions, Mapping) or not isinstance(versions.get("python"), str):
        return "it does not tell the versions that it was made with"
    if not images:
        return "" if told.get("images") == 0 else "it tells of images, and the tables have none"
    if creators is None:
        return ""  # it is said of the shares
    try:
        settings = settings_of(summary)
        due = summary_record(str(gallery["name"]), _facts_told(summary), settings, totals, creators)
    except RunError:
        return "it does not tell the settings of the audit"
    except (KeyError, TypeError, AttributeError):
        return "it does not tell of its gallery, model and collection"
    fields = list(dict.fromkeys(creators.column("field").to_pylist()))
    if list(settings.by) != fields:
        return f"its settings.by is {short(list(settings.by))}, and the shares are by {fields}"
    told = {name: value for name, value in summary.items() if name != "versions"}
    del due["versions"]
    # The gallery's `inputs_sha256` is a check of its own.
    due["gallery"]["inputs_sha256"] = gallery.get("inputs_sha256")
    of_version = {name: due.pop(name) for name in _OF_VERSION}
    same_version = not made_by_another(summary)
    if same_version:
        for name, value in of_version.items():
            if found := first_difference(told.get(name), value, name):
                return found.words(f"attrib {versions['attrib']} writes")
    for name in _OF_VERSION:
        told.pop(name, None)
    if not same_version:
        told = {name: value for name, value in told.items() if name in due}
    found = first_difference(told, due)
    return found.words() if found else ""


def made_by_another(summary: Mapping[str, Any]) -> str:
    """Why what depends on the version of attrib cannot be compared; '' where it can."""
    versions = summary.get("versions")
    then = versions.get("attrib") if isinstance(versions, Mapping) else None
    now = package_versions().get("attrib")
    if then is None or now is None:
        return "it is not known whether it was made by this attrib"
    return "" if then == now else f"it was made by attrib {short(then)[1:-1]}, and this is {now}"


def told_otherwise(summary: Mapping[str, Any], facts: Mapping[str, Any], who: str) -> str:
    """What a summary says of its model and collection that is not so; '' for nothing.

    Args:
        summary: of an audit by the same model, calibration and number of training images.
        facts: `Collection.facts`.
        who: has the collection, for people.
    """
    for path, name in _FACTS.items():
        part, _, inside = path.partition(".")
        if name in facts and summary[part].get(inside) != facts[name]:
            told = short(summary[part].get(inside))
            return f"its {path} is {told}, and {who} has {short(facts[name])}"
    found = first_difference(summary.get("calibrator"), facts["calibrator"], "calibrator")
    return found.words(f"{who} has") if found else ""


def given_thresholds(summary: Mapping[str, Any], usual: Thresholds) -> str:
    """Thresholds of the flags that are not those of an audit to which none are given; '' for none.

    Whoever makes an audit may give them, and so decides what is flagged. (A service does not tell
    from which similarity on pictures are worth a look; audits over one look at all.)
    """
    told = thresholds_of(summary)
    if told is None:
        return ""
    given = {name: (getattr(told, name), value) for name, value in asdict(usual).items()}
    return ", ".join(
        f"{name.replace('_', '-')} {_number(one)} (usual: {_number(other)})"
        for name, (one, other) in given.items()
        if not same_value(one, other)
    )


def _number(value: object) -> str:
    return "none" if value is None else short(value)


def settings_of(summary: Mapping[str, Any]) -> AuditSettings:
    """What the audit asked of each image, and what an image could be.

    Raises:
        RunError: its summary does not tell.
    """
    try:
        told = summary["settings"]
        thresholds = told.get("thresholds", {})
        settings = AuditSettings(
            k=int(told["k"]),
            mass=float(told["mass"]),
            by=tuple(told["by"]),
            without={name: list(values) for name, values in told["without"].items()},
            exact=bool(told["exact"]),
            copy_model=str(told.get("copy_model", "")),
            precision=str(told.get("precision", "")),
            part_size=int(told.get("part_size", 0)),
            batch_size=int(told.get("batch_size", 0)),
            thresholds=thresholds_of(summary) or Thresholds(),
            limits=DecodeLimits(
                max_bytes=int(told["max_bytes"]), max_pixels=int(told["max_pixels"])
            ),
        )
        if not isinstance(thresholds, Mapping):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RunError(f"{SUMMARY} does not tell the settings of the audit") from exc
    return settings


def thresholds_of(summary: Mapping[str, Any]) -> Thresholds | None:
    """Those of the audit; None where they are none that this attrib knows."""
    settings = summary.get("settings")
    given = settings.get("thresholds") if isinstance(settings, Mapping) else None
    try:
        return Thresholds(**given) if isinstance(given, Mapping) else None
    except TypeError:
        return None


def _facts_told(summary: Mapping[str, Any]) -> dict[str, Any]:
    """As `Collection.facts`, by the summary itself."""
    model, collection = summary["model"], summary["collection"]
    return {
        "model": model["name"],
        "backbone": model["backbone"],
        "fingerprint": model["fingerprint"],
        "feature_fingerprint": model["feature_fingerprint"],
        "tuned_on": model.get("tuned_on"),
        "calibrator": summary["calibrator"],
        "collection": collection["name"],
        "images": collection["images"],
        "index": collection["index"],
        "left_out": summary.get("left_out"),
    }
