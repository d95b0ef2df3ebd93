"""AbC test cases: which generated images were made by which customized model, from which exemplars.

The format is that of the paper's test cases (arXiv 2306.09345, section 3): a JSON list of models,
each with `exemplar` paths, `synth` paths by prompt type, `class_id` and `category`; here also
`model_id` and `customization_steps` where a file has them.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from ingest.errors import SourceError
from ingest.item import printable

__all__ = [
    "CustomizedModel",
    "TestCase",
    "cases_in",
    "exemplar_paths",
    "read_case",
]

_MAX_BYTES = 256 * 1024 * 1024
_PARENTS = 3
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CustomizedModel:
    """A generator that was tuned toward its exemplars, and what it then made.

    Attributes:
        id: unique in the test case.
        exemplars: image paths below the test case's root, at least one.
        synth: paths of the generated images by prompt type, at least one in all.
        class_id: what the exemplars show, or who made them; '' where unknown.
        category: `object`, `style` ...; '' where unknown.
        steps: of customization, None where unknown.
    """

    id: str
    exemplars: tuple[str, ...]
    synth: dict[str, tuple[str, ...]]
    class_id: str
    category: str
    steps: int | None

    @property
    def images(self) -> Iterator[str]:
        """The paths of exemplars and generated images."""
        yield from self.exemplars
        for paths in self.synth.values():
            yield from paths


@dataclass(frozen=True, slots=True)
class TestCase:
    """Customized models whose images lie under one root.

    Attributes:
        name: the file's name without its ending.
        root: what the paths of its models are relative to.
        models: at least one.
    """

    __test__: ClassVar[bool] = False  # or pytest would take the class for a test

    name: str
    root: Path
    models: tuple[CustomizedModel, ...]

    def missing(self) -> list[str]:
        """The paths, as the file names them, where no file is; each once."""
        paths = dict.fromkeys(path for model in self.models for path in model.images)
        return [path for path in paths if not _is_file(self.root / path)]

    def checked(self, skip_missing: bool) -> tuple[TestCase, list[str]]:
        """The test case with files that are all there, and a line for each thing left out.

        With `skip_missing` images that are not there are left out, and with them a model without
        exemplar or without generated image.

        Raises:
            SourceError: files are missing and are not to be skipped, or no model is left.
        """
        missing = self.missing()
        if not missing:
            return self, []
        if not skip_missing:
            raise SourceError(
                f"{self.name}: {len(missing)} of its image files are missing under {self.root} "
                f"({_few(missing)}); get them, or leave them out with --skip-missing"
            )
        return self.without(missing, "missing")

    def without(self, paths: Iterable[str], why: str) -> tuple[TestCase, list[str]]:
        """As `checked` with `skip_missing`, for `paths` of this test case; `why` is one word.

        Raises:
            SourceError: no model is left.
        """
        gone = set(paths)
        models, told = [], []
        for model in self.models:
            images = list(dict.fromkeys(model.images))
            lost = [path for path in images if path in gone]
            if not lost:
                models.append(model)
                continue
            left = replace(
                model,
                exemplars=tuple(path for path in model.exemplars if path not in gone),
                synth={
                    kind: tuple(path for path in made if path not in gone)
                    for kind, made in model.synth.items()
                },
            )
            fate = f"{len(lost)} of {len(images)} images {why} ({_few(lost)}), left out"
            if not left.exemplars:
                fate = f"left out: its exemplars are {why} ({_few(lost)})"
            elif not any(left.synth.values()):
                fate = f"left out: its generated images are {why} ({_few(lost)})"
            else:
                models.append(left)
            told.append(f"{self.name}: model {model.id}: {fate}")
        if not models:
            raise SourceError(
                f"{self.name}: no model is left, {len(gone)} images are {why} "
                f"({_few(sorted(gone))})"
            )
        return replace(self, models=tuple(models)), told


def read_case(path: Path, root: Path | None = None) -> TestCase:
    """The test case of a JSON file.

    Args:
        path: the file.
        root: what its paths are relative to; when None, the file's folder or the nearest of its
            parents (three up) under which an exemplar of it lies.

    Raises:
        SourceError: unreadable, or not a list of models; it names the file and the model.
    """
    shown = printable(str(path))
    values = _load(path, shown)
    if not isinstance(values, list):
        raise SourceError(
            f"{shown} is not a test case: it holds {_kind(values)}, expected a list of models"
        )
    if not values:
        raise SourceError(f"{shown} is a test case without models")
    return _case(path, shown, values, root)


def cases_in(path: Path, root: Path | None = None) -> list[TestCase]:
    """The test case of a JSON file, or all those in a folder, by name.

    Other JSON files of the folder, such as lists of prompts, are passed over.

    Raises:
        SourceError: none there, or one that is damaged.
    """
    if not path.is_dir():
        return [read_case(path, root)]
    cases = []
    for file in sorted(path.glob("*.json")):
        shown = printable(str(file))
        values = _load(file, shown)
        if _is_case(values):
            cases.append(_case(file, shown, values, root))
    if not cases:
        raise SourceError(
            f"no test cases in {printable(str(path))}: none of its JSON files is a list of models"
        )
    return cases


def exemplar_paths(cases: Iterable[TestCase]) -> set[Path]:
    """Where the exemplars of all those test cases are, links followed."""
    return {
        _resolved(case.root / path)
        for case in cases
        for model in case.models
        for path in model.exemplars
    }


def _is_file(path: Path) -> bool:
    # `Path.is_file` raises for names that are too long.
    return os.path.isfile(path)  # noqa: PTH113


def _resolved(path: Path) -> Path:
    # `Path.resolve` raises on links that lead to themselves.
    return Path(os.path.realpath(path))


# -- reading ---------------------------------------------------------------------------------------


def _load(path: Path, shown: str) -> Any:  # noqa: ANN401
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise SourceError(f"cannot read {shown}: {why}") from exc
    if len(data) > _MAX_BYTES:
        raise SourceError(f"{shown} is larger than {_MAX_BYTES >> 20} MiB, no test case is")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise SourceError(f"{shown} is not a test case: it is nested too deep") from exc
    except ValueError as exc:
        raise SourceError(f"{shown} cannot be read as JSON: {exc}") from exc


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _is_case(values: object) -> bool:
    return isinstance(values, list) and any(
        isinstance(value, dict) and "exemplar" in value and "synth" in value for value in values
    )


def _case(path: Path, shown: str, values: list[Any], root: Path | None) -> TestCase:
    digits = len(str(len(values) - 1))
    models: list[CustomizedModel] = []
    seen: set[str] = set()
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise SourceError(f"{shown}: model {position} is {_kind(value)}, expected an object")
        name = value.get("model_id", f"{position:0{digits}d}")
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise SourceError(f"{shown}: model {position}: model_id is {_kind(name)}")
        model = _model(f"{shown}: model {printable(str(name))}", printable(str(name)), value)
        if model.id in seen:
            raise SourceError(f"{shown}: model {model.id} stands in it twice")
        seen.add(model.id)
        models.append(model)
    return TestCase(printable(path.stem), root or _root(path, models), tuple(models))


def _model(where: str, name: str, value: dict[str, Any]) -> CustomizedModel:
    exemplars = _paths(where, "exemplar", value.get("exemplar", []))
    if not exemplars:
        raise SourceError(f"{where} has no exemplar")
    kinds = value.get("synth", {})
    if not isinstance(kinds, dict):
        raise SourceError(
            f"{where}: synth is {_kind(kinds)}, expected an object of lists by prompt type"
        )
    synth = {
        printable(kind): _paths(where, f"synth {printable(kind)}", made)
        for kind, made in kinds.items()
    }
    if not any(synth.values()):
        raise SourceError(f"{where} has no generated image")
    texts = {key: value.get(key, "") for key in ("class_id", "category")}
    for key, text in texts.items():
        if isinstance(text, bool) or not isinstance(text, int | str):
            raise SourceError(f"{where}: {key} is {_kind(text)}, expected text")
    steps = value.get("customization_steps")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int)):
        raise SourceError(f"{where}: customization_steps is {_kind(steps)}, expected a number")
    class_id, category = (printable(str(text)) for text in texts.values())
    return CustomizedModel(name, exemplars, synth, class_id, category, steps)


def _paths(where: str, what: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SourceError(f"{where}: {what} is {_kind(value)}, expected a list of paths")
    for path in value:
        if not isinstance(path, str):
            raise SourceError(f"{where}: {what} holds {_kind(path)}, expected a path")
        if not path or "\x00" in path or not _is_encodable(path):
            raise SourceError(f"{where}: {what} holds {printable(path)!r}, which no file can be")
        if posixpath.isabs(path) or posixpath.normpath(path).split("/")[0] == "..":
            raise SourceError(
                f"{where}: {what} {printable(path)} leads out of the test case's folder; "
                "paths must be relative to it"
            )
    return tuple(value)


def _is_encodable(path: str) -> bool:
    """Whether a file can have the name: JSON may hold halves of surrogate pairs."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _root(path: Path, models: Sequence[CustomizedModel]) -> Path:
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 (resolve follows links)
    candidates = [folder, *list(folder.parents)[:_PARENTS]]
    # The first exemplar alone might be the file that is missing.
    for model in models:
        for candidate in candidates:
            if any(_is_file(candidate / exemplar) for exemplar in model.exemplars):
                return candidate
    return folder


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _few(paths: Sequence[str]) -> str:
    return ", ".join(map(printable, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")
