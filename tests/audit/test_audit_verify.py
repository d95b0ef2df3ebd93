"""Verification: real audits hold; whatever is altered is found; what cannot be checked is said."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow.parquet as pq
import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fake_audit import audit
from folders import copy_folder
from ingested import draw
from typer.testing import CliRunner
from verified import GALLERY, alter, audited, states, words

from attrib.commands.audit_verify import verify as verify_command
from embed.calibrator import Calibrator
from ingest.errors import RunError, UsageError
from search.audit.manifest import read_manifest
from search.audit.sign import sign
from search.audit.verify import verify
from search.collection import Collection


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 60 training images, a gallery, and its audit."""
    return audited(tmp_path_factory.mktemp("place"))


ALL_HOLD = dict.fromkeys(
    ["files", "images", "shares", "summary", "report", "inputs", "records", "sample"], "holds"
)


# -- audits that hold --------------------------------------------------------------------------


def test_a_real_audit_holds(place: Path, collection: Collection) -> None:
    gallery = [str(place / "gallery")]
    found = verify(place / "report", collection, sample=100, gallery=gallery)
    assert found.holds
    assert states(found) == {**ALL_HOLD, "signature": "not checked"}
    assert (found.sampled, found.compared) == (GALLERY, GALLERY)
    assert found.largest < 1e-6
    assert words(found, "images") == (
        "40 images: influence and what remains sum to 1 within 1e-09, and images.parquet follows "
        "from attributions.parquet"
    )


def test_the_sample_is_a_matter_of_the_seed(place: Path, collection: Collection) -> None:
    read = []
    for seed in (0, 0, 1):
        found = verify(place / "report", collection, sample=5, seed=seed, gallery=[str(place)])
        read.append(words(found, "sample"))  # another folder: each is named as not there
        assert found.sampled == 5
    assert read[0] == read[1] != read[2]


def test_a_tar_is_searched_too(place: Path, collection: Collection, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "made.tar", "w") as tar:
        for i in range(6):
            tar.add(place / "gallery" / f"{i:03d}.png", f"{i:03d}.png")
    audit(_copied(place, tmp_path), [tmp_path / "made.tar"], tmp_path / "out", k=20)
    found = verify(tmp_path / "out", collection, gallery=[str(tmp_path / "made.tar")])
    assert (states(found)["sample"], found.compared) == ("holds", 6)


def _copied(place: Path, to: Path) -> Path:
    return copy_folder(place / "data", to / "data")


def test_without_training_images_as_the_audit_was(
    place: Path, collection: Collection, tmp_path: Path
) -> None:
    creators = {line["creator"] for line in pq.read_table(
        place / "report" / "attributions.parquet").to_pylist()}  # fmt: skip
    creator = sorted(filter(None, creators))[0]
    data = _copied(place, tmp_path)
    audit(data, [place / "gallery"], tmp_path / "out", k=20, without={"creator": [creator]})
    found = verify(tmp_path / "out", collection, gallery=[str(place / "gallery")])
    assert states(found)["sample"] == "holds"


# -- what could not be checked -----------------------------------------------------------------


def test_without_index_or_gallery_the_rest_is_checked(place: Path, collection: Collection) -> None:
    found = verify(place / "report", None)
    assert found.holds
    assert words(found, "sample") == (
        "no image was attributed again: no data folder was given; --data names it, or --server a "
        "service"
    )
    assert words(found, "signature") == "the audit is not signed"
    found = verify(place / "report", collection)
    assert words(found, "sample") == (
        "no image was attributed again: no gallery was given; --gallery names it"
    )
    found = verify(place / "report", collection, sample=0, gallery=[str(place / "gallery")])
    assert words(found, "sample") == "no image was attributed again: no sample was asked for"


def test_images_that_changed_or_are_gone(
    place: Path, collection: Collection, tmp_path: Path
) -> None:
    shutil.copytree(place / "gallery", tmp_path / "gallery")
    (tmp_path / "gallery" / "003.png").unlink()
    draw(tmp_path / "gallery" / "004.png", 7)
    found = verify(place / "report", collection, sample=100, gallery=[str(tmp_path / "gallery")])
    assert found.holds
    assert found.compared == GALLERY - 2
    assert words(found, "sample").endswith(
        "; 2 could not be: 003.png: it is not in the gallery; 004.png: its file changed since"
    )


class Facts:
    """A collection that tells other facts."""

    def __init__(self, collection: Collection, **other: Any) -> None:
        self._facts = {**collection.facts(), **other}
        self.index, self.model = collection.index, collection.model

    def facts(self) -> dict[str, Any]:
        return self._facts


def test_a_collection_that_cannot_answer_for_the_audit(place: Path, collection: Collection) -> None:
    def said(**other: Any) -> str:
        with_others: Any = Facts(collection, **other)
        found = verify(place / "report", with_others, gallery=[str(place / "gallery")])
        assert states(found)["sample"] == "not checked"
        return words(found, "sample").removeprefix("no image was attributed again: ")

    facts = collection.facts()
    assert said(images=59) == "the collection changed since: 60 training images then, 59 now"
    assert said(model="x", feature_fingerprint="y") == (
        f"the audit was made with model {facts['model']} ({facts['feature_fingerprint']}), and the "
        "data folder has x (y)"
    )
    tau, b = facts["calibrator"]["tau"], facts["calibrator"]["b"]
    assert said(fingerprint="z", calibrator={"tau": 0.5, "b": 0.0}) == (
        f"the data folder was calibrated anew since: tau {tau:g}, b {b:g} then, tau 0.5, b 0 now"
    )


# -- what the index says otherwise -----------------------------------------------------------


def test_attributions_given_to_another_image(
    report: Path, place: Path, collection: Collection
) -> None:
    """All hashes, sums and shares are right, and still the index says otherwise."""

    def swap(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            other = {"000.png": "001.png", "001.png": "000.png"}.get(row["image"])
            row["image"] = other or row["image"]
        rows.sort(key=lambda row: row["image"])

    alter(report, "attributions.parquet", swap)

    def follow(rows: list[dict[str, Any]]) -> None:
        kept = ("image", "path", "sha256", "prompt", "metadata")
        first, second = ({name: row[name] for name in kept} for row in rows[:2])
        rows[0], rows[1] = {**rows[1], **first}, {**rows[0], **second}

    alter(report, "images.parquet", follow)
    found = verify(report, collection, sample=100, gallery=[str(place / "gallery")])
    assert states(found)["sample"] == "fails"
    assert words(found, "sample").startswith(
        "of 40 of 40 images attributed again, 2 moved by more than 1% of influence: "
    )
    assert words(found, "sample").endswith(
        "; the audit was altered, or the collection was without its size changing"
    )


# -- the command -------------------------------------------------------------------------------


def invoke(*args: object) -> Any:
    app = typer.Typer()
    app.command()(verify_command)
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_command_says_what_was_checked(report: Path) -> None:
    files = read_manifest(report).files
    done = invoke(report)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"files      holds        all {len(files)} files are those of manifest.json",
        "signature  not checked  the audit is not signed",
        "images     holds        40 images: influence and what remains sum to 1 within 1e-09, and "
        "images.parquet follows from attributions.parquet",
        "shares     holds        creators.parquet follows from attributions.parquet, intervals and "
        "all",
        "summary    holds        summary.json follows from the tables; limits and flags are told "
        "as this attrib does",
        "report     holds        report.html shows what the tables say; its pictures were not "
        "compared",
        "inputs     not checked  inputs_sha256 follows from the tables, but the gallery was not "
        "read: no gallery was given; --gallery names it",
        "records    not checked  no data folder was given; --data names it",
        "sample     not checked  no image was attributed again: no data folder was given; --data "
        "names it, or --server a service",
        f"{report} holds, as far as it was checked",
    ]


def test_the_command_fails_where_the_audit_does(report: Path) -> None:
    (report / "rejects.parquet").unlink()
    done = invoke(report, "--json")
    assert done.exit_code == 1
    assert done.stderr == ""  # it did what it is for
    found = json.loads(done.stdout)
    assert found["holds"] is False
    assert found["checks"][0] == {
        "name": "files",
        "state": "fails",
        "words": "rejects.parquet is missing",
        "lines": [],
    }


def test_signed_audits(report: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    pem, public = tmp_path / "key.pem", tmp_path / "public.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    sign(report, pem)
    done = invoke(report)
    assert "there is one, but no --public-key to check it by" in done.stdout
    done = invoke(report, "--public-key", public)
    assert done.exit_code == 0
    assert f"manifest.json was signed with the key of {public}" in done.stdout
    (report / "manifest.json").write_text((report / "manifest.json").read_text() + "\n")
    done = invoke(report, "--public-key", public)
    assert done.exit_code == 1
    assert "signature  fails        manifest.sig was not made with key" in done.stdout


def test_wrong_calls(tmp_path: Path, place: Path) -> None:
    with pytest.raises(UsageError, match="--sample must be at least 0, not -1"):
        verify(place / "report", None, sample=-1)
    with pytest.raises(RunError, match="is no finished audit"):
        verify(tmp_path, None)
    done = invoke(tmp_path)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1


def test_calibrated_anew_in_earnest(place: Path, tmp_path: Path) -> None:
    with Collection.open(_copied(place, tmp_path)) as copied:
        copied.adopt(fake.FakeEmbedder())  # type: ignore[arg-type]
        copied.recalibrate(Calibrator(0.2, 0.0, "made up"))
        gallery: Sequence[str] = [str(place / "gallery")]
        found = verify(place / "report", copied, gallery=gallery)
        assert "the data folder was calibrated anew since" in words(found, "sample")
