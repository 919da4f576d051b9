"""Where a download ends: final statuses, redirects that lead astray, sizes, slowness."""

from __future__ import annotations

import gzip
import os
import threading
import time
from pathlib import Path

import pytest

from dom0_agent.images.download import Downloader
from dom0_agent.images.errors import Cancelled, LoaderError, NetworkLost, SizeMismatch, TooLarge
from tests.unit.images.images_testing import DownloadClient, Handler, file_script, right, serving

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB + 17)


@pytest.fixture
def client(tmp_path: Path) -> DownloadClient:
    return DownloadClient(tmp_path)


# Status codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 451, 204, 304])
def test_final_status(client: DownloadClient, status: int) -> None:
    """One request, no retry (a device that asks a fleet server for a missing file must not do so for ever)."""
    with serving(lambda handler: handler.answer(status)) as server:
        with pytest.raises(LoaderError, match=f"HTTP {status}"):
            client.get(server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_transient_status(client: DownloadClient, status: int) -> None:
    def script(handler: Handler) -> None:
        if len(handler.server.requests) < 3:
            return handler.answer(status, Retry_After="1000000")
        return file_script(DATA)(handler)

    with serving(script) as server:
        right(client.get(server.url), client, DATA)
    assert client.pauses == [client.config.backoff_max] * 2, "Retry-After is heard, within our own cap"


# Redirects ------------------------------------------------------------------------------------------------------------


def test_redirects_are_followed_with_the_range(client: DownloadClient) -> None:
    """Credentials of one host are not sent to another; the range is asked for where the data is."""
    with serving(file_script(DATA, drop_after=2 * MIB)) as target:
        location = target.url.replace("127.0.0.1", "localhost") + "/real?secret=1"
        with serving(lambda handler: handler.answer(302, Location=location)) as server:
            downloaded = client.get(server.url.replace("://", "://me:pw@"))
            assert "Authorization" in server.requests[0].headers
        right(downloaded, client, DATA)
        assert str(downloaded.url).endswith("/real?…")
        assert [request.path for request in target.requests] == ["/real?secret=1"] * 2
        assert not any("Authorization" in request.headers for request in target.requests)
        assert "Range" in target.requests[1].headers


def test_redirect_loop_ends(client: DownloadClient) -> None:
    with serving(lambda handler: handler.answer(301, Location="/again")) as server:
        with pytest.raises(LoaderError, match="more than 5 redirects"):
            client.get(server.url)
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/shadow", "ftp://host/x", "gopher:x", "http://[", "", "http://h:0/", "http://a b/"]
)
def test_redirect_to_where_it_must_not_lead(client: DownloadClient, location: str) -> None:
    """A-39: http and https only, also after a redirect."""
    with serving(lambda handler: handler.answer(302, Location=location)) as server:
        with pytest.raises(LoaderError, match="redirects"):
            client.get(server.url)
        assert len(server.requests) == 1
    assert not client.partial.path.exists() or client.bytes() == b""


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_endless_body_is_cut(client: DownloadClient) -> None:
    """No length, no end: stopped at the limit, not at the end of the disk."""

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(64 * 1024))

    with serving(script) as server, pytest.raises(TooLarge, match=r"images\.max_size"):
        client.get(server.url, max_size=MIB)
    assert client.partial.path.stat().st_size <= MIB + 256 * 1024


def test_announced_size_beyond_the_limit_is_refused_before_the_body(client: DownloadClient) -> None:
    with serving(file_script(DATA)) as server, pytest.raises(TooLarge):
        client.get(server.url, max_size=MIB)
    assert client.watcher.highest == 0


@pytest.mark.parametrize("expected", [len(DATA) - 1, len(DATA) + 1])
@pytest.mark.parametrize("announced", [True, False])
def test_size_other_than_expected(client: DownloadClient, expected: int, announced: bool) -> None:
    """A download descriptor's size is binding (DLOTA 905)."""

    def script(handler: Handler) -> None:
        if announced:
            return file_script(DATA)(handler)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(DATA)
        return None

    with serving(script) as server, pytest.raises(SizeMismatch, match=str(expected)):
        client.get(server.url, expected=expected)


def test_nothing_at_all_is_not_an_image(client: DownloadClient) -> None:
    with serving(file_script(b"")) as server, pytest.raises(SizeMismatch):
        client.get(server.url)


def test_content_encoding_is_not_undone(client: DownloadClient) -> None:
    """A gzip bomb in Content-Encoding stays what it is on the wire; identity is asked for."""
    bomb = gzip.compress(bytes(50 * MIB))

    def script(handler: Handler) -> None:
        handler.answer(200, bomb, Content_Encoding="gzip")

    with serving(script) as server:
        right(client.get(server.url, max_size=MIB), client, bomb)
        assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("broken", [False, True])
def test_chunked_body(client: DownloadClient, broken: bool) -> None:
    """A chunked body has a known end; one that breaks off keeps what came, and goes on."""

    def script(handler: Handler) -> None:
        if "Range" in handler.headers:
            return file_script(DATA)(handler)
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        for start in range(0, MIB if broken else len(DATA), 100_000):
            piece = DATA[start : start + 100_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if not broken:
            handler.wfile.write(b"0\r\n\r\n")
        return None

    with serving(script) as server:
        downloaded = client.get(server.url)
        right(downloaded, client, DATA)
        assert downloaded.delimited
        assert [int(r.headers["Range"].strip("bytes=-")) > MIB - 1 for r in server.requests[1:]] == [True] * broken


# Slow servers ---------------------------------------------------------------------------------------------------------


def test_slow_body_counts_as_lost(tmp_path: Path) -> None:
    """Slow loris: a byte now and then never meets a read timeout; the speed limit does. It then goes on elsewhere."""
    client = DownloadClient(tmp_path, min_speed=10_000, speed_window=0.3)

    def script(handler: Handler) -> None:
        if "Range" in handler.headers:
            return file_script(DATA)(handler)
        handler.send_response(200)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        for index in range(200):
            handler.wfile.write(DATA[index : index + 1])
            time.sleep(0.05)
        return None

    with serving(script) as server:
        begun = time.monotonic()
        right(client.get(server.url), client, DATA)
        assert time.monotonic() - begun < 5


def test_slow_header_counts_as_lost(tmp_path: Path) -> None:
    client = DownloadClient(tmp_path, header_timeout=0.3, retries=1)

    def script(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(200):
            handler.wfile.write(b"X-Slow: 1\r\n")
            time.sleep(0.05)

    with serving(script) as server, pytest.raises(NetworkLost, match=r"no complete answer within 0.3 s"):
        begun = time.monotonic()
        client.get(server.url)
    assert time.monotonic() - begun < 5


def test_silence_counts_as_lost(tmp_path: Path) -> None:
    client = DownloadClient(tmp_path, read_timeout=0.2, retries=0)
    done = threading.Event()

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        done.wait(10)

    with serving(script) as server, pytest.raises(NetworkLost, match=r"silent for 0.2 s"):
        client.get(server.url)
    done.set()


@pytest.mark.parametrize("manner", ["hangs up after each byte", "does not end"])
def test_whole_download_has_a_deadline(tmp_path: Path, manner: str) -> None:
    """A server that always brings a little more would be followed for ever."""
    client = DownloadClient(tmp_path, deadline=0.5)

    def slowly(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1000))
            time.sleep(0.01)

    script = slowly if manner == "does not end" else file_script(DATA, drop_after=1)
    with serving(script) as server, pytest.raises(NetworkLost, match=r"given up after 0.5 s \(images.deadline\)"):
        client.get(server.url)


def test_cancel_is_noticed_while_nothing_comes(client: DownloadClient) -> None:
    done = threading.Event()

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        threading.Timer(0.1, client.cancel.set).start()
        done.wait(10)

    with serving(script) as server, pytest.raises(Cancelled):
        begun = time.monotonic()
        client.get(server.url)
    assert time.monotonic() - begun < 3
    done.set()


def test_bandwidth_limit(tmp_path: Path) -> None:
    """The pauses add up to what the limit asks for."""
    client = DownloadClient(tmp_path, bandwidth_limit=10 * MIB)
    now = [0.0]
    client.downloader = Downloader(
        client.config,
        clock=lambda: now[0],
        wait=lambda cancel, seconds: bool(now.__setitem__(0, now[0] + seconds)),
    )
    with serving(file_script(DATA)) as server:
        right(client.get(server.url), client, DATA)
    assert now[0] == pytest.approx(len(DATA) / (10 * MIB), rel=0.01)
