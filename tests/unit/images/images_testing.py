"""What the image tests share: bundles made by hand, a web server that follows a script, and a table in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.download import Downloaded, Downloader, Order
from dom0_agent.images.model import ImageEvent
from dom0_agent.images.partial import Partial
from dom0_agent.operation import Origin
from dom0_agent.store.images import StoredImage

ORIGIN = Origin("server", "./VMImgMO/x/Operations/Download", "corr-1")

# Bundles --------------------------------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_document(kernel: bytes, ramdisk: bytes, **changes: object) -> dict[str, object]:
    document: dict[str, object] = {
        "format": 1,
        "name": "sample-guest",
        "arch": "x86_64",
        "type": "pv",
        "vcpus": 1,
        "memory": 134217728,
        "cmdline": "console=hvc0",
        "kernel": {"file": "vmlinux", "sha256": sha256(kernel), "size": len(kernel)},
        "ramdisk": {"file": "initramfs.gz", "sha256": sha256(ramdisk), "size": len(ramdisk)},
        "disks": [],
    }
    return document | changes


def tar_of(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def bundle(kernel: bytes = b"kernel" * 1000, ramdisk: bytes = b"ramdisk" * 1000, **changes: object) -> bytes:
    document = manifest_document(kernel, ramdisk, **changes)
    return tar_of({"vm.yaml": yaml.safe_dump(document).encode(), "vmlinux": kernel, "initramfs.gz": ramdisk})


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True, timeout=30).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


def mbr_disk(size: int = 1024 * 1024) -> bytes:
    """A raw disk with the mark of a master boot record."""
    return bytes(510) + b"\x55\xaa" + b"data" * 128 + bytes(size - 1024)


# The web server -------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Gives every request to the server's script."""

    server: ScriptedServer
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        self.server.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has had enough
            self.server.script(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.requests.append(Request(self.command, self.path, dict(self.headers.items()), body))
        self.close_connection = True
        self.server.script(self)

    def do_CONNECT(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        ).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Script = Callable[[Handler], None]


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many tests are about."""


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def file_script(
    data: bytes, *, etag: str = '"v1"', drop_after: int | None = None, content_type: str = "application/octet-stream"
) -> Script:
    """An honest file server with ranges; ``drop_after`` bytes of each answer it hangs up."""

    def script(handler: Handler) -> None:
        start = 0
        wanted = handler.headers.get("Range")
        if wanted is not None and handler.headers.get("If-Range") in (None, etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(data) - start))
        if etag:
            handler.send_header("ETag", etag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        end = len(data) if drop_after is None else start + drop_after
        handler.wfile.write(data[start:end])

    return script


# Clients and records -----------------------------------------------------------------------------------------------


class MemoryRows:
    """Rows as the database would keep them."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredImage] = {}

    def list(self) -> tuple[StoredImage, ...]:
        return tuple(self.rows.values())

    def put(self, image: StoredImage) -> None:
        self.rows[image.img_id] = image

    def delete(self, img_id: str) -> bool:
        return self.rows.pop(img_id, None) is not None


def quick_config(folder: Path, **changes: object) -> ImagesConfig:
    """Short times, no reserve; the architecture is fixed so that tests do not depend on the machine."""
    values: dict[str, object] = {
        "dir": folder,
        "reserve": 0,
        "retries": 3,
        "backoff_first": 0.001,
        "backoff_max": 0.01,
        "arch": "x86_64",
    }
    return ImagesConfig(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Recorder:
    """A listener that remembers, and waits."""

    events: list[ImageEvent] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, event: ImageEvent) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait_for(self, fits: Callable[[ImageEvent], bool], seconds: float = 10.0) -> ImageEvent:
        with self._news:
            assert self._news.wait_for(lambda: any(map(fits, self.events)), seconds), "the event did not come"
            return next(event for event in self.events if fits(event))

    def results(self) -> list[ImageEvent]:
        return [event for event in self.events if event.result is not None]


class _Silent:
    """Follows nothing, refuses nothing."""

    def __init__(self) -> None:
        self.highest = 0

    def begins(self, content_type: str, missing: int | None) -> None:
        pass

    def received(self, size: int, total: int | None, fresh: int) -> None:
        self.highest = max(self.highest, size)


class DownloadClient:
    """A downloader, its file, and the pauses it made."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.pauses: list[float] = []
        self.partial = Partial(folder)
        self.config: ImagesConfig = quick_config(folder, **config)
        self.downloader = Downloader(self.config, wait=self._wait, chance=lambda: 1.0)
        self.cancel = threading.Event()
        self.watcher = _Silent()

    def _wait(self, cancel: threading.Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        return cancel.is_set()

    def get(self, uri: str, max_size: int = 1 << 26, *, expected: int | None = None, resume: bool = True) -> Downloaded:
        order = Order(uri, max_size, expected, resume=resume)
        return self.downloader.fetch(order, self.partial, self.watcher, self.cancel)

    def bytes(self) -> bytes:
        return self.partial.path.read_bytes()


def right(downloaded: Downloaded, client: DownloadClient, data: bytes) -> None:
    """The download is exactly ``data``, and says so."""
    assert downloaded.size == len(data)
    assert downloaded.sha256 == sha256(data)
    assert client.bytes() == data
