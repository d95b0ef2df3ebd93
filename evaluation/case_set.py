"""The test cases that a person names: images to embed, or base features that others made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.cases import TestCase, cases_in, exemplar_paths
from evaluation.official import read_case_file
from ingest.errors import UsageError

if TYPE_CHECKING:
    from evaluation.features import CaseFeatures

__all__ = ["CaseSet", "excluded_exemplars", "read_cases"]

Note = Callable[[str], None]

_FEATURE_FILES = (".pth", ".pt")


@dataclass(frozen=True)
class CaseSet:
    """What models are evaluated on.

    Attributes:
        images: test cases whose images are all there.
        files: test cases that came as base features.
    """

    images: tuple[TestCase, ...]
    files: tuple[CaseFeatures, ...] = ()


def read_cases(
    paths: Sequence[Path],
    root: Path | None = None,
    *,
    skip_missing: bool = False,
    by_folder: bool = False,
    note: Note,
) -> CaseSet:
    """The test cases that a person names.

    Args:
        paths: AbC JSON files, folders of them, or the official feature files (`.pth`).
        root: what the paths in JSON files are relative to; found when None.
        skip_missing: leave images out that are not there; `note` is told.
        by_folder: test cases of one name get that of their folder before it: all datasets that
            `attrib dataset build` makes have an `object_train`.
        note: takes lines for the user.

    Raises:
        UsageError: two test cases of one name.
        SourceError: unreadable, of another kind, or missing images.
        WeightsError: a feature file that carries code, or features that are not finite.
    """
    images: list[TestCase] = []
    folders: list[str] = []
    files: list[CaseFeatures] = []
    for path in paths:
        if path.suffix.lower() in _FEATURE_FILES and not path.is_dir():
            files.append(read_case_file(path))
        else:
            folder = (path if path.is_dir() else path.parent).absolute().name
            images += cases_in(path, root)
            folders += [folder] * (len(images) - len(folders))
    if by_folder:
        known = Counter(case.name for case in images)
        images = [
            replace(case, name=f"{folder}/{case.name}") if known[case.name] > 1 else case
            for case, folder in zip(images, folders, strict=True)
        ]
    names = [case.name for case in images] + [case.name for case in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"two of the test cases are named {twice}; they are told apart by their names: leave "
            "one out, or rename its file"
        )
    for place, case in enumerate(images):
        images[place], told = case.checked(skip_missing)
        for line in told:
            note(line)
    return CaseSet(tuple(images), tuple(files))


def excluded_exemplars(paths: Sequence[Path], root: Path | None = None, *, note: Note) -> set[Path]:
    """The exemplars of further test cases, which are not to be distractors either.

    Args:
        paths: AbC JSON files or folders of them.
        root: where their images are if not near the files.
        note: is told of a test case none of whose exemplars is there.

    Raises:
        SourceError: no test case there, or a damaged one.
    """
    found: set[Path] = set()
    for path in paths:
        for case in cases_in(path):
            exemplars = exemplar_paths([case])
            if root is not None and not any(file.is_file() for file in exemplars):
                exemplars = exemplar_paths([replace(case, root=root)])
            if not any(file.is_file() for file in exemplars):
                note(
                    f"no exemplar of {case.name} is there under {case.root}: they are known by "
                    "path alone, and copies of them may count as distractors"
                )
            found |= exemplars
    return found
