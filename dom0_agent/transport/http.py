"""One DM message to the server and its answer back, over HTTPS (oma-dm digest 12).

Knows no SyncML: bytes, a media type and headers go out and come in. Turns every failure of the network into a
:class:`TransportError` whose message tells a person what to do.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from dom0_agent.transport.tls import TlsConfig

MAX_RESPONSE = 8 << 20  #: bytes; above any MaxMsgSize that we announce
MAX_REDIRECTS = 3
CHUNK = 64 << 10


class TransportError(Exception):
    """The message was not answered. ``final`` is true where trying again without a change is useless."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP 200 answer. Header names are lower case."""

    body: bytes
    media_type: str
    headers: Mapping[str, str]


class HttpTransport:
    """Posts messages over one keep-alive connection. Close it when the session ends."""

    def __init__(
        self,
        tls: TlsConfig,
        *,
        connect_timeout: float = 10.0,
        answer_timeout: float = 60.0,
        user_agent: str = "virmo-agent",
    ) -> None:
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._session = requests.Session()
        self._session.headers["User-Agent"] = user_agent
        # A few packed octets can become gigabytes, before anybody counts them.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.trust_env = False  # a proxy or netrc from root's environment is not the board's configuration
        if tls.client_certificate is not None:
            key = tls.client_key or tls.client_certificate
            self._session.cert = (str(tls.client_certificate), str(key))
        if tls.ca_file is not None:
            if not tls.ca_file.is_file():
                raise TransportError(f"CA file {tls.ca_file} does not exist", final=True)
            self._session.verify = str(tls.ca_file)
        self._guard = _DeadlineGuard()
        self._session.mount("https://", _Adapter(self._guard))
        self._session.mount("http://", _Adapter(self._guard))

    def post(self, url: str, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Send one message; :class:`TransportError` when no HTTP 200 answer came within the deadline."""
        sent = {
            "Content-Type": media_type,
            "Accept": media_type.partition(";")[0],
            "Accept-Charset": "utf-8",
            "Cache-Control": "no-store, private",
            **(headers or {}),
        }
        return self._exchange("POST", url, body, sent)

    def get(self, url: str) -> HttpAnswer:
        """Fetch what is at ``url``; the same rules and errors as for a message."""
        return self._exchange("GET", url, None, {})

    def _exchange(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        target = url
        with self._guard.within(self._answer_timeout):
            for _ in range(MAX_REDIRECTS + 1):
                try:
                    self._check_url(target)
                    answer, location = self._once(method, target, body, headers)
                    if answer is not None:
                        return answer
                    target = self._redirected(target, location)
                except ValueError as error:  # of urlsplit, IDNA and header fields: servers choose addresses and names
                    raise TransportError(f"{target!a} cannot be used as an address: {error}", final=True) from error
        raise TransportError(f"{url}: more than {MAX_REDIRECTS} redirects", final=True)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _once(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[HttpAnswer | None, str]:
        host = urlsplit(url).netloc
        timeout = (self._connect_timeout, self._answer_timeout)
        try:
            with self._session.request(
                method, url, data=body, headers=dict(headers), timeout=timeout, stream=True, allow_redirects=False
            ) as response:
                if response.is_redirect:
                    return None, response.headers["Location"]
                if response.status_code != requests.codes.ok:
                    raise TransportError(
                        f"{url} answered HTTP {response.status_code} {response.reason}: "
                        "is this address the server's DM endpoint, and is the server well?",
                        final=response.status_code in _FINAL_STATUSES,
                    )
                if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
                    raise TransportError(f"{url} packed its answer, which it was not asked for", final=True)
                untrusted_body = _read_capped(response, url)
                if self._guard.cut:
                    raise self._too_slow(host)
                untrusted_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return HttpAnswer(untrusted_body, untrusted_type, lowered), ""
        except requests.exceptions.SSLError as error:
            if self._guard.cut:
                raise self._too_slow(host) from error
            raise TransportError(_explain_tls(host, error, self._tls.ca_file), final=True) from error
        except requests.exceptions.Timeout as error:
            raise TransportError(f"{host} did not answer in time") from error
        except (requests.exceptions.RequestException, OSError) as error:
            if self._guard.cut:
                raise self._too_slow(host) from error
            raise TransportError(f"{host} cannot be reached: {_root_cause(error)}") from error

    def _too_slow(self, host: str) -> TransportError:
        return TransportError(f"{host} did not finish its answer in {self._answer_timeout:.0f} s")

    def _check_url(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme == "https" or (scheme == "http" and self._tls.allow_plain_http):
            return
        raise TransportError(
            f"{url}: only https addresses are used (tls.allow_plain_http permits http, for tests)", final=True
        )

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        before, after = urlsplit(url), urlsplit(target)
        if after.hostname != before.hostname or after.scheme != before.scheme:
            raise TransportError(
                f"{url} redirects to {after.scheme}://{after.netloc}, which is another host", final=True
            )
        return target


#: answers that only a change on our or the server's side can turn into success
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 410, 411, 413, 415})


def _read_capped(response: requests.Response, url: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(CHUNK):
        size += len(part)
        if size > MAX_RESPONSE:
            raise TransportError(f"{url} answered more than {MAX_RESPONSE} bytes", final=True)
        parts.append(part)
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and size < int(announced):
        # Version 1.26 of urllib3 takes a connection that ends early for the end of the body.
        raise TransportError(f"{url} ended its answer after {size} of {announced} bytes")
    return b"".join(parts)


class _DeadlineGuard:
    """Shuts the sockets that are in use when a whole exchange takes too long.

    The library's timeouts are for each read: a server that sends a byte now and then would hold a session for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.cut = False

    def note(self, connected: socket.socket) -> None:
        """A connection was made."""
        with self._lock:
            self._sockets = [known for known in self._sockets if known.fileno() >= 0] + [connected]

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut what is still connected after ``seconds`` in this block."""
        self.cut = False
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        with self._lock:
            self.cut = True
            for known in self._sockets:
                with suppress(OSError):
                    # Below TLS: an orderly TLS close would wait for the peer.
                    socket.socket.shutdown(known, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """TLS 1.2 or newer, and connections that the guard knows of."""

    def __init__(self, guard: _DeadlineGuard) -> None:
        self._guard = guard
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # urllib3's own context: it decides with the connection how names and addresses are checked, which a foreign
        # context of the standard library does not let version 1.26 do for an IP address.
        context = create_urllib3_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        super().init_poolmanager(*args, ssl_context=context, **kwargs)
        note = self._guard.note

        class Https(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                note(self.sock)

        class Http(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                note(self.sock)

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        self.poolmanager.pool_classes_by_scheme = {"https": HttpsPool, "http": HttpPool}


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _explain_tls(host: str, error: Exception, ca_file: Path | None) -> str:
    reason = _root_cause(error)
    if "CERTIFICATE_VERIFY_FAILED" not in reason and "certificate" not in reason.lower():
        return f"TLS with {host} failed: {reason}"
    known = f"{ca_file} (tls.ca_file)" if ca_file is not None else "the system's CAs (tls.ca_file is not set)"
    return f"{host} showed a certificate that is not trusted by {known}: {reason}"
