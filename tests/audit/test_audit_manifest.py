"""The manifest: the files of an audit and no others, and what it says when one of them changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from made_audit import make_audit

from ingest.errors import RunError
from search.audit.manifest import Entry, check_file, file_sha256, read_manifest, write_manifest

TABLES = ["attributions.parquet", "creators.parquet", "images.parquet", "rejects.parquet"]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return make_audit(tmp_path / "report", 3, 0)


def test_files_by_name_with_size_and_hash(report: Path) -> None:
    (report / "report.html").write_text("<p>")
    (report / "report-data").mkdir()
    (report / "report-data" / "0.js").write_text("0")
    written = write_manifest(report)
    assert written == read_manifest(report)
    content = (report / "manifest.json").read_bytes()
    assert json.loads(content)["schema"] == "attrib-audit/1"
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert list(written.files) == sorted(
        [*TABLES, "report-data/0.js", "report.html", "summary.json"]
    )
    assert written.files["report.html"] == Entry(3, hashlib.sha256(b"<p>").hexdigest())
    assert all(check_file(report, name, entry) == "" for name, entry in written.files.items())
    assert not list(report.glob("*.partial"))


def test_what_lies_beside_an_audit_changes_nothing(report: Path) -> None:
    write_manifest(report)
    before = (report / "manifest.json").read_bytes()
    (report / "payout.csv").write_text("x")
    (report / ".work").mkdir()
    write_manifest(report)
    assert (report / "manifest.json").read_bytes() == before


def test_what_happened_to_a_file(report: Path) -> None:
    files = write_manifest(report).files
    path = report / "summary.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"made-up", b"made-in"))
    assert check_file(report, "summary.json", files["summary.json"]) == (
        "summary.json was changed: its SHA-256 is not that of the manifest"
    )
    path.write_bytes(b"{}")
    assert check_file(report, "summary.json", files["summary.json"]) == (
        f"summary.json has 2 bytes, not the {len(content):,} of the manifest"
    )
    path.unlink()
    assert check_file(report, "summary.json", files["summary.json"]) == "summary.json is missing"


def test_an_audit_that_is_not_finished(report: Path) -> None:
    (report / "images.parquet").unlink()
    with pytest.raises(RunError) as caught:
        write_manifest(report)
    assert str(caught.value) == f"{report} is no finished audit: images.parquet is missing"
    with pytest.raises(RunError, match="is no finished audit: it has no manifest"):
        read_manifest(report)


ENTRY = {"bytes": 1, "sha256": "0"}
WHOLE = dict.fromkeys([*TABLES, "summary.json"], ENTRY)


@pytest.mark.parametrize(
    "found",
    [
        [],
        {},
        {"schema": 1},
        {"schema": "attrib-audit/1"},
        {"schema": "attrib-audit/1", "files": []},
        {"schema": "attrib-audit/1", "files": {}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "/etc/passwd": ENTRY}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "a/../../b": ENTRY}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "..\\b": ENTRY}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "a\0": ENTRY}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "a": {"bytes": True, "sha256": ""}}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "a": {"bytes": 1}}},
        {"schema": "attrib-audit/1", "files": {**WHOLE, "a": 1}},
    ],
)
def test_manifests_that_are_damaged(tmp_path: Path, found: Any) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(found))
    with pytest.raises(RunError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == (
        f"{path} is damaged: run the audit again, or take another copy of it"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b" " * ((1 << 24) + 1)])
def test_manifests_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunError, match="is damaged: run the audit again"):
        read_manifest(tmp_path)


def test_an_audit_of_a_later_attrib(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": "attrib-audit/2", "files": WHOLE}))
    with pytest.raises(RunError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == (
        f"{path} is of schema 'attrib-audit/2', and this attrib reads attrib-audit/1: use the "
        "attrib that wrote it"
    )


def test_hash_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        file_sha256(tmp_path / "x")
    assert str(caught.value) == f"cannot read {tmp_path / 'x'}: No such file or directory"
