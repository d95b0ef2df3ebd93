"""Index URLs: every right one reads back as itself, every wrong one says what to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import UsageError
from search.index_url import IndexUrl, api_key, parse_index_url

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
URLS = st.builds(
    IndexUrl,
    host=HOSTS,
    port=st.integers(1, 65_535),
    grpc_port=st.integers(0, 65_535),
    tls=st.booleans(),
    name=st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
)


@given(URLS)
def test_a_url_reads_back_as_itself(url: IndexUrl) -> None:
    assert parse_index_url(str(url)) == url


def _read(text: str) -> IndexUrl | str:
    try:
        return parse_index_url(text)
    except UsageError as error:
        return str(error)


@given(st.text())
def test_anything_else_is_one_line(text: str) -> None:
    for given_text in (text, f"qdrant://{text}", f"qdrant://host{text}"):
        outcome = _read(given_text)
        if isinstance(outcome, str):
            assert outcome.startswith("--index ")
            assert len(outcome.splitlines()) == 1
        else:
            assert parse_index_url(str(outcome)) == outcome


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("qdrant://localhost", IndexUrl("localhost", 6333, 6334, False, "")),
        ("qdrants://a.example:443/laion", IndexUrl("a.example", 443, 6334, True, "laion")),
        ("qdrant://[::1]:7000?grpc_port=0", IndexUrl("::1", 7000, 0, False, "")),
        ("qdrant://10.0.0.7/x/?grpc_port=16334", IndexUrl("10.0.0.7", 6333, 16334, False, "x")),
    ],
)
def test_forms(text: str, url: IndexUrl) -> None:
    assert parse_index_url(text) == url


def test_addresses() -> None:
    assert IndexUrl("h").rest == "http://h:6333"
    assert IndexUrl("::1", 443, tls=True, name="n").rest == "https://[::1]:443"
    assert IndexUrl("::1", 443, tls=True, name="n").server == "qdrants://[::1]:443"
    assert str(IndexUrl("h", 1, 0, False, "n")) == "qdrant://h:1/n?grpc_port=0"


FORM = "write it as qdrant://host[:port], or qdrants://host[:port] for TLS"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"--index '' will not do: {FORM}"),
        ("http://host", f"--index 'http://host' will not do: {FORM}"),
        ("qdrant://", f"--index 'qdrant://' will not do: it names no host; {FORM}"),
        ("qdrant://a b", f"--index 'qdrant://a b' will not do: it has a blank in it; {FORM}"),
        ("qdrant://h:0", f"--index 'qdrant://h:0' will not do: there is no port 0; {FORM}"),
        (
            "qdrant://h:99999",
            f"--index 'qdrant://h:99999' will not do: Port out of range 0-65535; {FORM}",
        ),
        (
            "qdrant://me:secret@h",
            "--index 'qdrant://...@h' will not do: keys do not belong in a URL; set "
            "ATTRIB_QDRANT_API_KEY in the environment",
        ),
        (
            "qdrant://h/a/b",
            "--index 'qdrant://h/a/b' will not do: 'a/b' cannot name a collection: up to 100 "
            "letters, digits, '.', '_' and '-'",
        ),
        (
            "qdrant://h?api_key=x",
            "--index 'qdrant://h?api_key=...' will not do: it has an unknown option 'api_key'; "
            "grpc_port is the only one",
        ),
        (
            "qdrant://h?grpc_port=x",
            "--index 'qdrant://h?grpc_port=x' will not do: grpc_port must be 0 to 65535, not 'x'",
        ),
        ("qdrant://h#x", f"--index 'qdrant://h#x' will not do: it has a part after '#'; {FORM}"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_index_url(text)
    assert str(error.value) == message


def test_the_key_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTRIB_QDRANT_API_KEY", raising=False)
    assert api_key() is None
    monkeypatch.setenv("ATTRIB_QDRANT_API_KEY", "")
    assert api_key() is None
    monkeypatch.setenv("ATTRIB_QDRANT_API_KEY", "k")
    assert api_key() == "k"
