"""TLS, proxies, and answers that are not HTTP at all."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dom0_agent.images.errors import ImageError, LoaderError, NetworkLost
from tests.unit.images.images_testing import DownloadClient, Handler, file_script, quick_config, right, serving

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB + 17)


@pytest.fixture
def client(tmp_path: Path) -> DownloadClient:
    return DownloadClient(tmp_path)


# Not HTTP, not trusted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    ],
)
def test_answer_that_is_not_http(client: DownloadClient, answer: bytes) -> None:
    def script(handler: Handler) -> None:
        handler.wfile.write(answer)

    with serving(script) as server, pytest.raises(ImageError):
        client.get(server.url)


class Https:
    """A web server with a certificate of its own CA."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.key, self.cert = folder / "ca.pem", folder / "key.pem", folder / "cert.pem"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost"]
        make += ["-keyout", str(self.key), "-out", str(self.cert)]
        subprocess.run(make, check=True, capture_output=True, timeout=30)
        self.ca.write_bytes(self.cert.read_bytes())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.cert, self.key)


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Https]:
    yield Https(tmp_path_factory.mktemp("https"))


def test_https_is_checked_against_the_configured_ca(tmp_path: Path, https: Https) -> None:
    with serving(file_script(DATA, drop_after=2 * MIB)) as server:
        server.socket = https.context.wrap_socket(server.socket, server_side=True)
        port = server.server_address[1]
        trusting = DownloadClient(tmp_path / "a", ca_file=https.ca)
        right(trusting.get(f"https://localhost:{port}/x"), trusting, DATA)
        with pytest.raises(LoaderError, match=r"not trusted.*images.ca_file"):
            DownloadClient(tmp_path / "b").get(f"https://localhost:{port}/x")
        with pytest.raises(LoaderError, match="not trusted"):
            DownloadClient(tmp_path / "c", ca_file=https.ca).get(f"https://127.0.0.1:{port}/x")
        with pytest.raises(LoaderError, match="cannot be used"):
            DownloadClient(tmp_path / "d", ca_file=tmp_path / "missing.pem").get(f"https://localhost:{port}/x")


def test_redirect_does_not_leave_https(tmp_path: Path, https: Https) -> None:
    with serving(lambda handler: handler.answer(302, Location="http://127.0.0.1:1/")) as server:
        server.socket = https.context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(LoaderError, match="unprotected"):
            DownloadClient(tmp_path, ca_file=https.ca).get(f"https://localhost:{server.server_address[1]}/x")


def test_http_through_a_proxy(tmp_path: Path) -> None:
    """The proxy is given the whole URL and its own credentials; no_proxy hosts are reached directly."""
    with serving(file_script(DATA)) as proxy:
        client = DownloadClient(tmp_path, proxy=proxy.url.replace("://", "://u:p@"), no_proxy=("internal",))
        right(client.get("http://images.example/a?b=c"), client, DATA)
        assert proxy.requests[0].path == "http://images.example/a?b=c"
        assert proxy.requests[0].headers["Host"] == "images.example"
        assert proxy.requests[0].headers["Proxy-Authorization"] == "Basic dTpw"
        with pytest.raises(NetworkLost, match=r"cannot connect to web.internal"):
            client.get("http://web.internal:1/")


def test_https_through_a_proxy(tmp_path: Path, https: Https) -> None:
    """CONNECT, then TLS with the web server itself: the proxy sees no path and no credentials of it."""
    with serving(file_script(DATA)) as server:
        server.socket = https.context.wrap_socket(server.socket, server_side=True)
        port = server.server_address[1]

        def connect(handler: Handler) -> None:
            handler.send_response(200)
            handler.end_headers()
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                threading.Thread(target=pump, args=(handler.connection, upstream), daemon=True).start()
                pump(upstream, handler.connection)

        with serving(connect) as proxy:
            client = DownloadClient(tmp_path, proxy=proxy.url, ca_file=https.ca)
            right(client.get(f"https://me:pw@localhost:{port}/x"), client, DATA)
            assert proxy.requests[0].path == f"localhost:{port}"
            assert "Authorization" not in proxy.requests[0].headers
            proxy.script = lambda handler: handler.answer(403)
            with pytest.raises(LoaderError, match="refuses the way"):
                DownloadClient(tmp_path / "b", proxy=proxy.url, ca_file=https.ca).get(f"https://localhost:{port}/x")


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        return


def test_config_is_not_changed_by_the_tests_of_it(tmp_path: Path) -> None:
    """What cannot work together is refused when the configuration is read."""
    config = quick_config(tmp_path)
    for change in ({"backoff_first": 10.0}, {"require_signature": True}, {"proxy": "socks5://x"}):
        with pytest.raises(ValueError, match=r"must be|needs"):
            replace(config, **change)
