"""The HTTPS transport against a real server on loopback, with real certificates."""

from __future__ import annotations

import datetime
import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dom0_agent.transport.http import MAX_RESPONSE, HttpTransport, TransportError
from dom0_agent.transport.tls import TlsConfig

XML = "application/vnd.syncml.dm+xml"


def self_signed(folder: Path, name: str, address: str = "127.0.0.1") -> Path:
    """A PEM file with a key and a certificate for ``address`` that is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Served:
    """A loopback server whose next answer a test decides."""

    url: str
    certificate: Path
    answer: Answer
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def ok(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    reply(handler, 200, b"answer to " + body, Content_Type=f"{XML}; charset=utf-8", X_Syncml_Hmac="mac")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(self_signed(tmp_path, "server")) as state:
        yield state


@contextmanager
def serving(certificate: Path) -> Iterator[Served]:
    state = Served("", certificate, ok)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            state.answer(self, body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"https://127.0.0.1:{server.server_port}/dm"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def transport(served: Served) -> Iterator[HttpTransport]:
    made = HttpTransport(TlsConfig(ca_file=served.certificate), connect_timeout=2, answer_timeout=2)
    yield made
    made.close()


def failure(transport: HttpTransport, url: str) -> TransportError:
    with pytest.raises(TransportError) as caught:
        transport.post(url, b"x", XML)
    return caught.value


def test_a_message_is_answered(served: Served, transport: HttpTransport) -> None:
    answer = transport.post(served.url, b"hello", XML, {"x-syncml-hmac": "ours"})
    assert (answer.body, answer.media_type) == (b"answer to hello", XML)
    assert answer.headers["x-syncml-hmac"] == "mac"
    path, headers, body = served.requests[0]
    assert (path, body, headers["content-type"], headers["accept"]) == ("/dm", b"hello", XML, XML)
    assert headers["x-syncml-hmac"] == "ours"


def test_an_unknown_ca_is_named_and_final(served: Served, tmp_path: Path) -> None:
    transport = HttpTransport(TlsConfig(ca_file=self_signed(tmp_path, "another")), connect_timeout=2)
    error = failure(transport, served.url)
    assert error.final
    assert "showed a certificate that is not trusted by" in str(error)
    assert "another.pem (tls.ca_file)" in str(error)
    assert served.requests == []
    transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_another_host_is_refused(tmp_path: Path, host: str) -> None:
    certificate = self_signed(tmp_path, "elsewhere", "192.0.2.1")
    with serving(certificate) as served:
        transport = HttpTransport(TlsConfig(ca_file=certificate), connect_timeout=2)
        error = failure(transport, served.url.replace("127.0.0.1", host))
        assert error.final
        assert served.requests == []
        transport.close()


def test_an_unreachable_server_can_be_tried_again(transport: HttpTransport) -> None:
    error = failure(transport, "https://127.0.0.1:9/dm")
    assert not error.final
    assert "127.0.0.1:9 cannot be reached" in str(error)
    assert "refused" in str(error)


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="does not exist"):
        HttpTransport(TlsConfig(ca_file=tmp_path / "none.pem"))


@pytest.mark.parametrize(("status", "final"), [(404, True), (401, True), (500, False), (503, False), (408, False)])
def test_http_errors_say_whether_to_try_again(
    served: Served, transport: HttpTransport, status: int, final: bool
) -> None:
    served.answer = lambda handler, _: reply(handler, status)
    error = failure(transport, served.url)
    assert (error.final, f"HTTP {status}" in str(error)) == (final, True)


def test_plain_http_is_refused(transport: HttpTransport) -> None:
    assert "only https" in str(failure(transport, "http://127.0.0.1:9/dm"))


def test_a_redirect_on_the_same_host_is_followed(served: Served, transport: HttpTransport) -> None:
    def redirect_once(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        served.answer = ok
        reply(handler, 307, Location="/elsewhere")

    served.answer = redirect_once
    assert transport.post(served.url, b"x", XML).body == b"answer to x"
    assert served.requests[1][0] == "/elsewhere"


@pytest.mark.parametrize("location", ["https://example.invalid/dm", "http://127.0.0.1/dm", "file:///etc/passwd"])
def test_a_redirect_elsewhere_is_refused(served: Served, transport: HttpTransport, location: str) -> None:
    served.answer = lambda handler, _: reply(handler, 302, Location=location)
    error = failure(transport, served.url)
    assert error.final
    assert "another host" in str(error)


def test_a_redirect_loop_ends(served: Served, transport: HttpTransport) -> None:
    served.answer = lambda handler, _: reply(handler, 302, Location="/dm")
    assert "redirects" in str(failure(transport, served.url))


def test_an_endless_body_is_cut(served: Served, transport: HttpTransport) -> None:
    served.answer = lambda handler, _: reply(handler, 200, b"x" * (MAX_RESPONSE + 1))
    assert "more than" in str(failure(transport, served.url))


def test_an_answer_that_ends_early_can_be_tried_again(served: Served, transport: HttpTransport) -> None:
    def end_early(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    served.answer = end_early
    assert not failure(transport, served.url).final


def test_a_dripping_answer_meets_its_deadline(served: Served, transport: HttpTransport) -> None:
    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _second in range(8):
            try:
                handler.wfile.write(b"." * 80)
            except OSError:
                return
            time.sleep(0.5)

    served.answer = drip
    began = time.monotonic()
    assert not failure(transport, served.url).final
    assert time.monotonic() - began < 4.5


@pytest.mark.parametrize(
    "address",
    [
        "https://[::1",
        "https://a..b/dm",
        f"https://{'a' * 70}.example/dm",
        "https://",
        "https://host:99999/dm",
        "https://ho st/dm",
        "https://h\0st/dm",
        "https://\udcff/dm",
        "https://*.example/dm",
        "",
    ],
)
def test_addresses_that_are_none_are_a_failure_like_others(transport: HttpTransport, address: str) -> None:
    """A server can write anything into DMAcc or RespURI; the agent must be able to start again after it."""
    assert str(failure(transport, address))


@pytest.mark.parametrize("location", ["https://[::1", "https://a..b/dm"])
def test_a_redirect_to_no_address_is_refused(served: Served, transport: HttpTransport, location: str) -> None:
    served.answer = lambda handler, _body: reply(handler, 307, Location=location)
    assert failure(transport, served.url).final


@pytest.mark.parametrize("value", ["\u010d", "a\r\nX-Other: b", "a\0b"])
def test_a_header_that_http_cannot_carry_is_a_failure_like_others(transport: HttpTransport, value: str) -> None:
    with pytest.raises(TransportError):
        transport.post("https://127.0.0.1:1/dm", b"x", XML, {"x-syncml-hmac": value})


def test_packed_answers_are_not_unpacked(served: Served, transport: HttpTransport) -> None:
    bomb = gzip.compress(bytes(30 << 20))
    served.answer = lambda handler, _body: reply(handler, 200, bomb, Content_Encoding="gzip")
    assert "packed" in str(failure(transport, served.url))
    assert served.requests[0][1]["accept-encoding"] == "identity"
