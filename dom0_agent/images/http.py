"""One HTTP GET (or POST) over a connection whose every phase has a deadline.

Built on ``http.client``, not on requests: requests knows a timeout for each single read only, so that a server that
sends a byte every few seconds (in its header, or in its body) holds a thread for ever, and cannot be told to stop. Here
all bytes come through :class:`_Wire`, which watches the clock, the speed and the cancel event, and the body goes
straight into the caller's buffer. No cookies, no content decoding, no environment, no redirects: each is the caller's
decision. Must not know images, files or retries.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from dom0_agent.images.errors import Cancelled, ImageError, LoaderError, NetworkLost
from dom0_agent.images.urls import Url, parse_url

#: how long a read blocks before the clock and the cancel event are looked at
_SLICE = 0.5
_BUFFER = 64 * 1024
USER_AGENT = "virmo-agent"


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines, in seconds, and the least speed, in bytes a second."""

    connect: float = 30.0
    header: float = 60.0  #: from the request to the end of the response's header
    read: float = 60.0  #: silence
    min_speed: int = 1024  #: 0: any
    speed_window: float = 60.0


@dataclass(frozen=True, slots=True)
class Network:
    """How this device reaches web servers."""

    limits: Limits = Limits()
    ca_file: Path | None = None  #: None: the system's CAs
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    clock: Callable[[], float] = field(default=time.monotonic)

    def proxy_for(self, url: Url) -> Url | None:
        """The proxy to use for ``url``; ``no_proxy`` names hosts and their sub-domains."""
        if self.proxy is None:
            return None
        for name in self.no_proxy:
            domain = name.lower().lstrip(".")
            if url.host == domain or url.host.endswith("." + domain):
                return None
        return parse_url(self.proxy)


class Response:
    """A response whose header has been read. ``close`` it, or use it as a context manager."""

    def __init__(self, url: Url, wire: _Wire, raw: http.client.HTTPResponse) -> None:
        self.url = url
        self.status: int = raw.status
        self.reason: str = "".join(char if char.isprintable() else "?" for char in raw.reason)[:80]
        self._wire = wire
        self._raw = raw
        #: bytes of the body; ``None`` when it ends with a chunk or with the connection
        self.length: int | None = raw.length
        #: whether an early end of the body can be told from its real end
        self.delimited: bool = raw.length is not None or bool(raw.chunked)
        self._left = raw.length

    def header(self, name: str) -> str | None:
        """The value of a header that is there exactly once; of one that is repeated, the first."""
        value: str | None = self._raw.headers.get(name)
        return value

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as possible; 0 is the end of the body.

        What came before the connection broke is returned first; the error comes with the next call.

        :raises NetworkLost: broken, silent or too slow; :raises Cancelled: the cancel event was set
        """
        if self._wire.failure is not None:
            raise self._wire.failure
        try:
            count = self._raw.readinto(buffer)
        except http.client.IncompleteRead as error:
            buffer[: len(error.partial)] = error.partial
            count = len(error.partial)
            self._wire.fail(NetworkLost("the connection ended in the middle of the body"))
            if count == 0:
                raise self._wire.failure or error from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise self._wire.failure or NetworkLost(f"the body cannot be read: {_reason(error)}") from error
        if self._left is not None:
            self._left -= count
        if count == 0 and (self._wire.failure is not None or self._left):
            raise self._wire.failure or NetworkLost(f"the connection ended {self._left} bytes before the body's end")
        return count

    def close(self) -> None:
        """End the connection."""
        self._raw.close()
        self._wire.shut()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def send(
    network: Network,
    url: Url,
    *,
    headers: Mapping[str, str],
    cancel: threading.Event,
    method: str = "GET",
    body: bytes | None = None,
) -> Response:
    """Send one request and read the response's header.

    :raises NetworkLost: it may work later; :raises LoaderError: it will not (TLS trust, malformed response)
    :raises Cancelled: the cancel event was set
    """
    proxy = network.proxy_for(url)
    wire: _Wire | None = None
    sock = _connect(network, proxy or url)
    try:
        if proxy is not None and url.scheme == "https":
            wire = _Wire(sock, network, cancel)
            _tunnel(wire, url, proxy)
        if url.scheme == "https":
            sock = _secure(network, sock, url)
        wire = _Wire(sock, network, cancel)
        connection = http.client.HTTPConnection(url.host, url.port)
        connection.sock = wire
        target = url.text if proxy is not None and url.scheme == "http" else url.target
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in _all_headers(url, proxy, headers, body).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        raw = http.client.HTTPResponse(wire, method=method)  # type: ignore[arg-type]
        raw.begin()
        wire.begin_body()
        return Response(url, wire, raw)
    except ImageError:
        sock.close()
        raise
    except http.client.RemoteDisconnected as error:
        sock.close()
        raise (wire.failure if wire else None) or NetworkLost(f"{url}: the server closed the connection") from error
    except http.client.HTTPException as error:
        sock.close()
        if wire is not None and wire.failure is not None:
            raise wire.failure from error
        raise LoaderError(f"{url}: the answer is not HTTP: {_reason(error)}") from error
    except OSError as error:
        sock.close()
        raise (wire.failure if wire else None) or NetworkLost(f"{url}: {_reason(error)}") from error


def _all_headers(url: Url, proxy: Url | None, headers: Mapping[str, str], body: bytes | None) -> dict[str, str]:
    merged = {"Host": url.authority, "User-Agent": USER_AGENT, "Connection": "close"}
    if url.user is not None:
        merged["Authorization"] = _basic(url)
    if proxy is not None and proxy.user is not None and url.scheme == "http":
        merged["Proxy-Authorization"] = _basic(proxy)
    if body is not None:
        merged["Content-Length"] = str(len(body))
    return {**merged, **headers}


def _basic(url: Url) -> str:
    return "Basic " + b64encode(f"{url.user}:{url.password}".encode()).decode("ascii")


def _connect(network: Network, peer: Url) -> socket.socket:
    try:
        sock = socket.create_connection((peer.host, peer.port), timeout=network.limits.connect)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise NetworkLost(f"cannot connect to {peer.host}:{peer.port}: {_reason(error)}") from error
    return sock


def _secure(network: Network, sock: socket.socket, url: Url) -> socket.socket:
    """TLS with the certificate checked. A failed check is final: a retry would meet the same certificate."""
    try:
        context = ssl.create_default_context(cafile=None if network.ca_file is None else str(network.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise LoaderError(f"the CA file {network.ca_file} (images.ca_file) cannot be used: {_reason(error)}") from error
    try:
        sock.settimeout(network.limits.connect)  # of the whole handshake
        return context.wrap_socket(sock, server_hostname=url.host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise LoaderError(
            f"the certificate of {url.host}:{url.port} is not trusted: {error.verify_message}; "
            "is its CA in images.ca_file?"
        ) from error
    except (ssl.SSLError, OSError) as error:
        sock.close()
        raise NetworkLost(f"TLS with {url.host}:{url.port} failed: {_reason(error)}") from error


def _tunnel(wire: _Wire, url: Url, proxy: Url) -> None:
    """Ask the proxy for a way to ``url`` (RFC 9110 9.3.6)."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
    if proxy.user is not None:
        lines.append(f"Proxy-Authorization: {_basic(proxy)}")
    wire.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = http.client.HTTPResponse(wire, method="CONNECT")  # type: ignore[arg-type]
    answer.begin()
    if answer.status != 200:
        raise LoaderError(f"the proxy {proxy} refuses the way to {url.host}:{url.port}: HTTP {answer.status}")


class _Wire(io.RawIOBase):
    """The receiving end of a connection. Stands in for the socket that ``http.client`` expects.

    A failure looks like the end of the stream to the buffers above, so that they hand out what came before it; the
    reason stays in :attr:`failure`.
    """

    def __init__(self, sock: socket.socket, network: Network, cancel: threading.Event) -> None:
        super().__init__()
        sock.settimeout(min(_SLICE, network.limits.read))
        self._sock = sock
        self._limits = network.limits
        self._clock = network.clock
        self._cancel = cancel
        self.failure: ImageError | None = None
        now = self._clock()
        self._header_end: float | None = now + network.limits.header
        self._heard = now  #: when the last bytes came
        self._window_start = now
        self._window_bytes = 0

    def begin_body(self) -> None:
        """The header is complete: from here on it is the speed that counts."""
        self._header_end = None
        self._heard = self._window_start = self._clock()
        self._window_bytes = 0

    def fail(self, reason: ImageError) -> None:
        """Remember the first reason."""
        self.failure = self.failure or reason

    def makefile(self, mode: str) -> io.BufferedReader:
        """What ``http.client`` asks of a socket."""
        return io.BufferedReader(self, _BUFFER)

    def sendall(self, data: bytes) -> None:
        """Send a request, within the header's deadline."""
        self._sock.settimeout(self._limits.header)
        self._sock.sendall(data)
        self._sock.settimeout(min(_SLICE, self._limits.read))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self.failure is None:
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                count = -1
            except OSError as error:
                self.fail(NetworkLost(f"the connection broke: {_reason(error)}"))
                return 0
            self._watch(count)
            if count >= 0:
                return count
        return 0

    def _watch(self, count: int) -> None:
        """Look at the clock after ``count`` new bytes (-1: none came)."""
        now = self._clock()
        if self._cancel.is_set():
            self.fail(Cancelled("the download was cancelled"))
        if self._header_end is not None and now > self._header_end:
            self.fail(NetworkLost(f"no complete answer within {self._limits.header:g} s"))
        if count > 0:
            self._heard = now
            self._window_bytes += count
        elif count < 0 and now - self._heard > self._limits.read:
            self.fail(NetworkLost(f"the server was silent for {self._limits.read:g} s"))
        window = now - self._window_start
        if self._header_end is None and window > self._limits.speed_window:
            if self._window_bytes < self._limits.min_speed * window:
                self.fail(NetworkLost(f"slower than {self._limits.min_speed} bytes/s over {window:.0f} s"))
            self._window_start, self._window_bytes = now, 0

    def shut(self) -> None:
        """Close the connection itself; ``close`` only ends this view of it."""
        self._sock.close()


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
