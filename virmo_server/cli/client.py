"""HTTP client of the server's API; turns every failure into one sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from virmo_server.cli.settings import Settings

Json = Any
#: Answers of the API take milliseconds; past this the server or the network is broken.
TIMEOUT_SECONDS = 30
#: An upload's answer comes after the server has written and synced the file.
UPLOAD_TIMEOUT_SECONDS = 600
BLOCK_BYTES = 1 << 20
#: The server says something at least every 15 s.
EVENTS_TIMEOUT_SECONDS = 45


class ClientError(Exception):
    """A request failed; the message is for the person at the terminal. ``status`` is HTTP's, if one came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def file_content(path: Path) -> bytes:
    """What a small file holds that is to be sent; :class:`ClientError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed on the server."""

    id: int
    kind: str
    data: dict[str, Any]


class Client:
    """One connection to the server's API."""

    def __init__(self, settings: Settings) -> None:
        self._base = f"{settings.server}/api/v1"
        self._settings = settings
        self._session = requests.Session()
        self._session.trust_env = False  # proxies and netrc of the environment are not for this
        self._session.verify = settings.ca_file or True
        # A connection that was kept may be to a worker that has ended since; what only reads is asked again.
        retry = Retry(connect=0, read=2, redirect=0, status=0, backoff_factor=0.1, allowed_methods=["GET"])
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        if settings.token:
            self._session.headers["Authorization"] = f"Bearer {settings.token}"

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._session.close()

    def get(self, path: str, **query: object) -> Json:
        """GET; the decoded answer."""
        return self._request("GET", path, params=_given(query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """POST a JSON body."""
        return self._request("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """PATCH with a JSON body."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE."""
        self._request("DELETE", path)

    def upload(self, path: Path, size: int, query: Mapping[str, str], progress: Callable[[int], None]) -> Json:
        """POST a file to the image library; ``progress`` is told the bytes sent so far."""
        with path.open("rb") as file:
            return self._request(
                "POST",
                "/images",
                params=dict(query),
                data=_ReportingFile(file, size, progress),
                headers={"Content-Type": "application/octet-stream"},
                timeout=UPLOAD_TIMEOUT_SECONDS,
            )

    def events(self, **query: object) -> Iterator[Event]:
        """What changes on the server, until it ends the stream; :class:`ClientError` when that breaks."""
        url = f"{self._base}/events"
        timeout = (TIMEOUT_SECONDS, EVENTS_TIMEOUT_SECONDS)
        try:
            with self._session.get(
                url, params=_given(query), stream=True, timeout=timeout, allow_redirects=False
            ) as response:
                if not response.ok:
                    self._decode(response)
                yield from read_events(response.iter_lines(decode_unicode=True))
        except requests.exceptions.RequestException as error:
            raise ClientError(f"the events of {self._settings.server} broke off ({_reason(error)})") from error

    def _request(self, method: str, path: str, timeout: float = TIMEOUT_SECONDS, **arguments: Any) -> Json:
        try:
            response = self._session.request(
                method, self._base + path, timeout=timeout, allow_redirects=False, **arguments
            )
        except requests.exceptions.SSLError as error:
            raise ClientError(self._tls_message(error)) from error
        except requests.exceptions.Timeout as error:
            raise ClientError(f"{self._settings.server} did not answer within {timeout:g} s") from error
        except requests.exceptions.ConnectionError as error:
            raise ClientError(
                f"{self._settings.server} cannot be reached ({_reason(error)}): is 'virmo-server serve' running there,"
                " and is the address right?"
            ) from error
        return self._decode(response)

    def _decode(self, response: requests.Response) -> Json:
        if response.status_code == requests.codes.no_content:
            return None
        try:
            body = response.json()
        except requests.exceptions.JSONDecodeError as error:
            if response.status_code >= requests.codes.server_error:
                raise ClientError(
                    f"{self._settings.server} failed ({response.status_code}): its log says why", response.status_code
                ) from error
            raise ClientError(
                f"{self._settings.server} answered {response.status_code} without JSON: is this a VirMO Server?",
                response.status_code,
            ) from error
        if response.ok:
            return body
        detail = body.get("detail") if isinstance(body, dict) else None
        raise ClientError(str(detail or f"the server answered {response.status_code}"), response.status_code)

    def _tls_message(self, error: Exception) -> str:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" not in text:
            return f"no TLS connection to {self._settings.server}: {_reason(error)}"
        if "Hostname mismatch" in text or "IP address mismatch" in text:
            return f"the certificate of {self._settings.server} is for another host: use the name it was made for"
        trusted = self._settings.ca_file or "the system's certificate authorities"
        return (
            f"the certificate of {self._settings.server} is not signed by a CA that you trust ({trusted}):"
            " set VIRMO_CA to the server's ca.pem"
        )


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Server-sent events from the lines of a stream; comments are left out."""
    number, kind, data = "", "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        match name:
            case "id":
                number = value
            case "event":
                kind = value
            case "data":
                data = value
            case "" if kind:
                yield Event(int(number), kind, json.loads(data))
                kind = ""
            case _:
                pass


class _ReportingFile:
    """A file object for requests that tells how far it was read; ``len`` makes requests send Content-Length."""

    def __init__(self, file: BinaryIO, size: int, progress: Callable[[int], None]) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self._sent = 0

    def __len__(self) -> int:
        return self._size

    def read(self, _size: int = -1) -> bytes:
        """The next block; http.client asks for small ones, which would make uploads slow."""
        block = self._file.read(BLOCK_BYTES)
        self._sent += len(block)
        self._progress(self._sent)
        return block


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _given(query: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps what matters several times."""
    inner: BaseException = error
    while True:
        reason = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(reason, BaseException):
            break
        inner = reason
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    text = str(inner)
    return text.rpartition("] ")[2] if "[Errno " in text else text.rpartition(": ")[2] or text
