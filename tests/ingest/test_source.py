"""From what a person types to sources, and every error on the way, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingest.errors import SourceError, UsageError
from ingest.source import FolderSource, ListingSource, TarSource, open_sources


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def error_of(kind: type[Exception], *specs: str) -> str:
    with pytest.raises(kind) as caught:
        open_sources(specs)
    return str(caught.value)


def test_kinds_in_the_order_given(tmp_path: Path) -> None:
    for name in ["one.tar", "two.tar.gz", "list.txt", "list.parquet", "list.csv"]:
        touch(tmp_path / name)
    (tmp_path / "folder").mkdir()
    names = ["list.txt", "one.tar", "folder", "list.parquet", "two.tar.gz", "list.csv"]
    sources = open_sources([str(tmp_path / name) for name in names], max_bytes=7)
    assert [type(source) for source in sources] == [
        ListingSource,
        TarSource,
        FolderSource,
        ListingSource,
        TarSource,
        ListingSource,
    ]
    assert [source.name for source in sources] == [str(tmp_path / name) for name in names]
    assert {source.max_bytes for source in sources} == {7}


def test_brace_patterns(tmp_path: Path) -> None:
    for number in range(12):
        touch(tmp_path / f"{number:05}.tar")
    sources = open_sources([str(tmp_path / "{00002..00010}.tar")])
    assert [source.name for source in sources] == [
        str(tmp_path / f"{number:05}.tar") for number in range(2, 11)
    ]


def test_missing_files_of_a_brace_pattern(tmp_path: Path) -> None:
    for number in (0, 1, 4):
        touch(tmp_path / f"{number:05}.tar")
    spec = str(tmp_path / "{00000..00004}.tar")
    assert error_of(SourceError, spec) == (
        f"2 of the 5 files of {spec} are missing, the first is {tmp_path}/00002.tar"
    )


def test_bad_brace_patterns(tmp_path: Path) -> None:
    spec = f"{tmp_path}/{{a,b.tar"
    assert error_of(UsageError, spec) == f"unbalanced braces in {spec}"
    spec = f"{tmp_path}/{{1..99999999}}.tar"
    assert error_of(UsageError, spec) == f"{spec} stands for more than 1000000 files"


def test_a_path_with_braces_that_exists_is_no_pattern(tmp_path: Path) -> None:
    path = touch(tmp_path / "{1..2} [a].tar")
    assert [source.name for source in open_sources([str(path)])] == [str(path)]


def test_wildcards(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.txt"):
        touch(tmp_path / name)
    found = open_sources([f"{tmp_path}/*.tar"])
    assert [source.name for source in found] == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
    assert error_of(SourceError, f"{tmp_path}/*.zip") == f"no files match {tmp_path}/*.zip"


def test_a_folder_of_tars(tmp_path: Path) -> None:
    for name in ("00001.tar", "00000.tar", "00000.parquet", "00000_stats.json", ".hidden.tar"):
        touch(tmp_path / name)
    first, second, rest = open_sources([str(tmp_path)])
    assert [first.name, second.name] == [f"{tmp_path}/00000.tar", f"{tmp_path}/00001.tar"]
    assert isinstance(rest, FolderSource)
    assert list(rest.items()) == []
    touch(tmp_path / "sub" / "a.jpg")
    assert [item.key for item in rest.items()] == ["sub/a.jpg"]


def test_the_same_path_twice_is_one_source(tmp_path: Path) -> None:
    path = str(touch(tmp_path / "a.tar"))
    assert len(open_sources([path, path, f"{tmp_path}/*.tar"])) == 1


def test_errors(tmp_path: Path) -> None:
    assert error_of(UsageError) == "no source given: name a folder, a tar, a list or an image"
    assert error_of(UsageError, "") == "an empty source name"
    missing = str(tmp_path / "nowhere")
    assert error_of(SourceError, missing) == f"no such file or folder: {missing}"
    too_long = str(tmp_path / ("x" * 5000))
    assert error_of(SourceError, too_long) == f"no such file or folder: {too_long}"
    other = str(touch(tmp_path / "model.ckpt"))
    assert error_of(SourceError, other) == (
        f"cannot tell what {other} is: expected a folder, a tar"
        " (.tar, .tar.gz, .tgz), a list (.txt, .parquet, .csv) or an image"
    )
    url = "ftp://example.org/a.tar"
    assert error_of(UsageError, url) == (
        f"{url}: ftp:// is no storage that attrib reads; "
        "name a local path, or a URL that begins with s3://, gs:// or https://"
    )


def test_ingest_imports_no_torch() -> None:
    code = "import sys, ingest.source, ingest.decode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
