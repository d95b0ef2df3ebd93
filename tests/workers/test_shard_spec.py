"""A shard survives its way as text, whatever its files are called."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decode import DecodeLimits
from ingest.download_settings import DownloadSettings
from ingest.item import Item
from ingest.metadata import Metadata
from ingest.source import TarSource, UrlListSource
from ingest.storage import location
from search.plan import Work
from workers.shard_spec import ShardSpec, dump_spec, load_spec, pack, spec_of, unpack

_NAME = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
_PATH = st.lists(_NAME, min_size=1, max_size=3).map(lambda parts: Path("/", *parts))
_PLACE = st.one_of(
    _PATH,
    st.text(string.ascii_letters, min_size=1).map(lambda name: location(f"memory://b/{name}")),
)
_SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=10)
)
_METADATA = st.builds(
    Metadata,
    st.text(max_size=10),
    st.text(max_size=10),
    st.text(max_size=10),
    st.text(max_size=10),
    st.dictionaries(st.text(max_size=5), _SCALAR, max_size=3),
)
_ITEM = st.builds(
    Item,
    key=st.text(max_size=20),
    path=_PLACE,
    size=st.integers(0, 2**62),
    mtime_ns=st.integers(0, 2**62),
    signature=st.text(max_size=20),
    sidecars=st.lists(_PLACE, max_size=2).map(tuple),
    metadata=_METADATA,
    origin=st.text(max_size=10),
)
_DOWNLOAD = st.builds(
    DownloadSettings,
    concurrency=st.integers(1, 99),
    contact=st.sampled_from(["", "a@b.example"]),
    keep_images=st.none() | _PATH,
)
_SPEC = st.builds(
    ShardSpec,
    number=st.integers(0, 2**40),
    dataset=st.text(max_size=10),
    kind=st.sampled_from(["items", "urls", "tar"]),
    path=_PLACE,
    name=st.text(max_size=10),
    items=st.none() | st.lists(_ITEM, max_size=3).map(tuple),
    signature=st.text(max_size=10),
    batch_size=st.integers(1, 99),
    limits=st.builds(DecodeLimits, st.integers(1, 99), st.integers(1, 99)),
    column=st.none() | st.text(max_size=5),
    download=st.none() | _DOWNLOAD,
)


@given(_SPEC)
def test_a_shard_comes_out_of_its_text_as_it_went_in(spec: ShardSpec) -> None:
    text = pack(dump_spec(spec))
    assert text.isascii()
    assert load_spec(unpack(text)) == spec


@given(st.text(max_size=50))
def test_damaged_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_spec(unpack(text))


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a shard in format 99, from a newer attrib"):
        load_spec({"format": 99})


def test_a_tar_is_known_as_it_was_when_it_was_planned(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 10)
    planned = TarSource(path).signature
    spec = spec_of(3, "set", Work(TarSource(path), None), batch_size=8, limits=DecodeLimits())
    path.write_bytes(b"y" * 11)
    source = load_spec(json.loads(json.dumps(dump_spec(spec)))).work().source
    assert isinstance(source, TarSource)
    assert source.signature == planned != TarSource(path).signature
    assert (source.path, source.name, source.stem) == (path, str(path), "a")


def test_relative_places_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tar").write_bytes(b"x")
    work = Work(TarSource(Path("a.tar")), None)
    spec = spec_of(0, "set", work, batch_size=8, limits=DecodeLimits())
    assert load_spec(dump_spec(spec)).path == tmp_path / "a.tar"


def test_a_list_of_urls_keeps_how_it_is_downloaded(tmp_path: Path) -> None:
    settings = DownloadSettings(per_host=2, allow_private=True)
    source = UrlListSource(tmp_path / "list.parquet", column="URL", settings=settings)
    item = Item("k", source.path, 0, 0, "url", origin="http://a.example/b.jpg")
    spec = spec_of(0, "set", Work(source, (item,)), batch_size=8, limits=DecodeLimits())
    again = load_spec(dump_spec(spec)).work()
    assert isinstance(again.source, UrlListSource)
    assert (again.source.column, again.source.settings) == ("URL", settings)
    assert again.items == (item,)
