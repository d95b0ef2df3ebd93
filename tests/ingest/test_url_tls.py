"""TLS and HTTP/2: certificates are checked for the name, the checked address is connected to."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ingest.download import Downloader
from ingest.download_fetch import Downloaded
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, RejectReason

BODY = b"\xff\xd8\xff" + bytes(50_000)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """(certificate, key) of a host that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


class Secure:
    """An HTTP/2 server that counts its connections and requests, and keeps the names asked for."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.port = 0
        self.connections = 0
        self.asked: list[tuple[str, str]] = []
        self.names: list[str] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(cert, key)
        self._context.set_alpn_protocols(["h2"])
        self._context.sni_callback = lambda _, name, __: self.names.append(str(name))
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Secure:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        link.initiate_connection()
        writer.write(link.data_to_send())
        while data := await reader.read(65536):
            for event in link.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._answer(link, event)
            writer.write(link.data_to_send())
        writer.close()

    def _answer(self, link: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        heads = {bytes(name): bytes(value).decode() for name, value in event.headers}
        path = heads[b":path"]
        self.asked.append((heads[b":authority"], path))
        found = path != "/robots.txt"
        status = "200" if found else "404"
        link.send_headers(event.stream_id, [(":status", status), ("content-type", "image/jpeg")])
        body = BODY[: int(path[1:])] if found else b""
        for start in range(0, len(body), 16_000):
            link.send_data(event.stream_id, body[start : start + 16_000])
        link.end_stream(event.stream_id)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    with Secure(*certificate(tmp_path, "images.example")) as server:
        yield server


@pytest.fixture
def trusted(tmp_path: Path, secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    real = httpx.create_ssl_context
    monkeypatch.setattr(
        httpx, "create_ssl_context", lambda verify=True, **more: (
            trusting if verify is True else real(verify, **more)
        )
    )  # fmt: skip


def download(secure: Secure, host: str, sizes: list[int]) -> list[Downloaded | ImageError]:
    async def here(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    settings = DownloadSettings(allow_private=True, retries=0, timeout_s=5)
    downloader = Downloader(settings, 100_000, here)
    try:
        urls = [(f"https://{host}:{secure.port}/{size}", "") for size in sizes]
        return list(downloader.outcomes(urls))
    finally:
        downloader.close()


@pytest.mark.usefixtures("trusted")
def test_http2_on_one_connection(secure: Secure) -> None:
    outcomes = download(secure, "images.example", [1, 20_000, 3, 40, 5])
    assert [len(found.data) for found in outcomes if isinstance(found, Downloaded)] == [
        1, 20_000, 3, 40, 5
    ]  # fmt: skip
    assert secure.connections == 1
    assert secure.names == ["images.example"]
    authority = f"images.example:{secure.port}"
    assert sorted(secure.asked) == sorted(
        (authority, path) for path in ("/robots.txt", "/1", "/20000", "/3", "/40", "/5")
    )


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_name(secure: Secure) -> None:
    [outcome] = download(secure, "other.example", [1])
    assert isinstance(outcome, ImageError)
    assert outcome.reason is RejectReason.NO_CONNECTION
    assert outcome.detail.startswith("bad certificate: ")
    assert secure.asked == []


def test_a_certificate_that_nobody_vouches_for(secure: Secure) -> None:
    [outcome] = download(secure, "images.example", [1])
    assert isinstance(outcome, ImageError)
    assert outcome.detail.startswith("bad certificate: ")
    assert secure.asked == []
