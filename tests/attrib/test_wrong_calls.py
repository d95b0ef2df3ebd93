"""Everything a user can do wrong ends in one line and the right exit code, and leaves no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def wrong(invoke: Run, code: int, line: str, *arguments: str | Path) -> None:
    done = invoke(*arguments)
    assert done.stderr == f"attrib: {line}\n"
    assert done.returncode == code
    assert done.stdout == ""


def test_sources(invoke: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    nowhere = tmp_path / "no where"
    wrong(invoke, 1, f"no such file or folder: {nowhere}", "ingest", nowhere, "--data", data)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = invoke("ingest", empty, "--data", data)
    assert done.returncode == 1
    assert done.stderr.startswith(f"attrib: no images in {empty} (looked for ")
    assert len(done.stderr.splitlines()) == 1
    assert not data.exists()


def test_models(invoke: Run, tmp_path: Path, training: Path) -> None:
    line = "unknown model 'clip-vitb23'; did you mean 'clip-vitb32'? `attrib models list` shows all"
    data = tmp_path / "data"
    wrong(invoke, 2, line, "ingest", training, "--data", data, "--model", "clip-vitb23")
    wrong(invoke, 2, line, "models", "show", "clip-vitb23")
    assert not data.exists()


def test_missing_weights_name_the_file_and_its_place(
    invoke: Run, tmp_path: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIB_WEIGHTS", str(tmp_path / "weights"))
    data = tmp_path / "data"
    done = invoke("ingest", training, "--data", data, "--model", "mocov3-vitb16")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "weights" / "mocov3-vitb16") in done.stderr


def test_queries(invoke: Run, built: Path, generated: Path, tmp_path: Path) -> None:
    data = ("--data", built)
    wrong(invoke, 2, "k must be at least 1, not 0", "query", generated, *data, "--k", "0")
    text = tmp_path / "text.png"
    text.write_text("words")
    wrong(invoke, 1, f"not an image: {text}", "query", text, *data)
    gone = tmp_path / "gone.png"
    wrong(invoke, 1, f"cannot read {gone}: No such file or directory", "query", gone, *data)
    line = "--where 'creator' will not do: write it as field=value"
    wrong(invoke, 2, line, "query", generated, *data, "--where", "creator")
    line = "--without 'creator' will not do: write it as field=value"
    wrong(invoke, 2, line, "query", generated, *data, "--without", "creator")
    line = "mass must be above 0 and at most 1, not 99"
    wrong(invoke, 2, line, "query", generated, *data, "--mass", "99")
    done = invoke("query", generated, *data, "--without", "dataset=clipart")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "attrib: all 49 training images match dataset=clipart: without them none is left to "
        "attribute to"
    ]
    done = invoke("query", generated, *data, "--where", "colour=red")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "colour" in done.stderr
    assert "creator" in done.stderr


def test_another_model_shows_both_fingerprints(invoke: Run, built: Path, generated: Path) -> None:
    facts = json.loads(invoke("info", "--data", built, "--json").stdout)
    done = invoke("query", generated, "--data", built, "--model", "vit-b16-384")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"was built with efficientnet-lite0 ({facts['feature_fingerprint']})" in done.stderr
    assert "not with vit-b16-384 (" in done.stderr


def test_data_folders(invoke: Run, own: Path, generated: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    line = f"{none} is no attrib data folder; make one with `attrib ingest SOURCE --data {none}`"
    for command in (("query", generated), ("info",), ("rejects",), ("delete", "--key", "a")):
        wrong(invoke, 1, line, *command, "--data", none)
    settings = next(own.glob("collections/*/index/index.json"))
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "format": 99}))
    done = invoke("query", generated, "--data", own)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "newer attrib (index format 99" in done.stderr
    wrong(invoke, 2, "say what to delete: --key, --creator or --where", "delete", "--data", own)


def test_an_unknown_option_is_a_wrong_call(invoke: Run) -> None:
    done = invoke("query", "--colour")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """Not a timed test: what makes help slow is what it imports."""
    code = (
        "import sys; sys.argv = ['attrib', '--help']\n"
        "from attrib.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'open_clip', 'numpy', 'pyarrow', 'PIL', 'qdrant_edge',"
        " 'matplotlib', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "ingest" in done.stdout


@pytest.mark.parametrize(
    "command", [["models", "list"], ["models", "show", "dino-vitb16"], ["info"], ["rejects"]]
)
def test_commands_that_embed_nothing_import_no_torch(
    command: list[str], built: Path, tmp_path: Path
) -> None:
    data = ["--data", str(built)] if command[0] in ("info", "rejects") else []
    code = (
        f"import sys; sys.argv = ['attrib', *{command + data!r}]\n"
        "from attrib.__main__ import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_ingest_of_unchanged_images_imports_no_torch(own: Path, training: Path) -> None:
    arguments = ["ingest", str(training), "--data", str(own), "--dataset", "clipart"]
    code = (
        f"import sys; sys.argv = ['attrib', *{arguments!r}]\n"
        "from attrib.__main__ import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "49 unchanged" in done.stdout
