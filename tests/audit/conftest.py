"""Where the helpers of these tests lie, and what tests of a real audit begin with.

A module that uses `report`, `collection` or `verified` has a fixture `place` of its own: the folder
that `verified.audited` or `verified.audited_drawings` filled.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "search"))

import fake_backbone as fake
from verified import Verifies

from search.audit.verify import Verification, verify
from search.collection import Collection


@pytest.fixture
def report(place: Path, tmp_path: Path) -> Path:
    """A copy of the audit, to be altered."""
    shutil.copytree(place / "report", tmp_path / "report")
    return tmp_path / "report"


@pytest.fixture(scope="module")
def collection(place: Path) -> Iterator[Collection]:
    with Collection.open(place / "data", wait_s=10) as opened:
        opened.adopt(fake.FakeEmbedder())  # type: ignore[arg-type]
        yield opened


@pytest.fixture
def verified(place: Path, report: Path, collection: Collection) -> Verifies:
    """Everything that can be checked."""

    def verified(**more: Any) -> Verification:
        return verify(report, collection, sample=100, gallery=[str(place / "gallery")], **more)

    return verified
