"""Downloads from web servers that do everything wrong: the right result or failure, never wrong bytes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from dom0_agent.images.errors import LoaderError, NetworkLost
from tests.unit.images.images_testing import DownloadClient, Handler, file_script, right, serving

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB + 17)


@pytest.fixture
def client(tmp_path: Path) -> DownloadClient:
    return DownloadClient(tmp_path)


# Broken connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [64 * 1024 + 1, 300_000, 2 * MIB])
def test_server_that_hangs_up_every_n_bytes(client: DownloadClient, piece: int) -> None:
    """Each try goes on where the last one ended; tries that bring something are not counted against the limit."""
    with serving(file_script(DATA, drop_after=piece)) as server:
        downloaded = client.get(server.url)
        right(downloaded, client, DATA)
        assert downloaded.spliced
        assert len(server.requests) == -(-len(DATA) // piece) > client.config.retries - 3
        assert all(request.headers["If-Range"] == '"v1"' for request in server.requests[1:])


def test_reset_keeps_what_came_before_it(client: DownloadClient) -> None:
    """A connection that is reset in the middle of a read loses nothing of what had arrived."""
    sizes: list[int] = []

    def script(handler: Handler) -> None:
        sizes.append(client.partial.size)
        if len(sizes) > 1:
            return file_script(DATA)(handler)
        handler.send_response(200)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:1_000_001])
        time.sleep(0.2)  # let it arrive: a reset may overtake what is still in the buffers
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        handler.connection.close()
        return None

    with serving(script) as server:
        right(client.get(server.url), client, DATA)
    assert sizes == [0, 1_000_001]


def test_without_strong_etag_it_begins_again(client: DownloadClient) -> None:
    """A weak ETag promises nothing about bytes: no Range, everything again."""
    tries: list[str | None] = []

    def script(handler: Handler) -> None:
        tries.append(handler.headers.get("Range"))
        file_script(DATA, etag='W/"v1"', drop_after=MIB if len(tries) < 3 else None)(handler)

    with serving(script) as server:
        downloaded = client.get(server.url)
    right(downloaded, client, DATA)
    assert tries == [None, None, None] and not downloaded.spliced


def test_gives_up_after_tries_that_bring_nothing(client: DownloadClient) -> None:
    """retries + 1 tries without progress, with doubled and capped pauses; 500 by NetworkLost."""
    with serving(file_script(DATA, etag="", drop_after=1000)) as server:
        with pytest.raises(NetworkLost, match="given up after 4 tries without progress, at 1000 bytes"):
            client.get(server.url)
        # the first try got 1000 bytes further; then come as many as images.retries, and one
        assert len(server.requests) == 5
    assert client.pauses == [0.001, 0.001, 0.002, 0.004]


def test_pause_is_capped_and_spread(tmp_path: Path) -> None:
    client = DownloadClient(tmp_path, retries=12)
    client.downloader.chance = lambda: 0.0
    with serving(lambda handler: handler.answer(503)) as server, pytest.raises(NetworkLost):
        client.get(server.url)
    assert client.pauses[:5] == [0.0005, 0.001, 0.002, 0.004, 0.005] and max(client.pauses) == 0.005


def test_nobody_listens(client: DownloadClient) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(NetworkLost, match=f"cannot connect to 127.0.0.1:{port}"):
        client.get(f"http://127.0.0.1:{port}/")


def test_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Partial data and its note are on the disk; a new process asks for the rest only, and hashes all of it."""
    first = DownloadClient(tmp_path, retries=0)
    with serving(file_script(DATA, drop_after=MIB)) as server:
        uri = server.url

        def end(size: int, total: int | None, fresh: int) -> None:
            if size > 2 * MIB:
                raise LoaderError("the test ends it")

        first.watcher.received = end  # type: ignore[method-assign]
        with pytest.raises(LoaderError):
            first.get(uri)
        server.script = file_script(DATA)
        server.requests.clear()
        second = DownloadClient(tmp_path)
        right(second.get(uri), second, DATA)
        assert len(server.requests) == 1
        assert int(server.requests[0].headers["Range"].strip("bytes=-")) > 2 * MIB
        second.partial.checkpoint()
        server.requests.clear()
        third = DownloadClient(tmp_path)
        right(third.get(uri), third, DATA)
        assert server.requests == [], "it was complete"


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", b'{"uri":1}', b'{"durable":-5,"uri":"u"}'])
def test_damaged_note_means_a_fresh_start(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "body.part").write_bytes(b"rubbish")
    (tmp_path / "body.json").write_bytes(note)
    client = DownloadClient(tmp_path)
    with serving(file_script(DATA)) as server:
        right(client.get(server.url), client, DATA)
        assert "Range" not in server.requests[0].headers


def test_bytes_beyond_the_note_are_not_trusted(tmp_path: Path) -> None:
    """A power cut may leave anything behind the last checkpoint."""
    (tmp_path / "body.part").write_bytes(DATA[:1000] + b"\0" * 5000)
    client = DownloadClient(tmp_path)
    with serving(file_script(DATA)) as server:
        note = f'{{"uri": "{server.url}", "via": "", "etag": "\\"v1\\"", "total": {len(DATA)}, "durable": 1000}}'
        (tmp_path / "body.json").write_text(note)
        right(client.get(server.url), client, DATA)
        assert server.requests[0].headers["Range"] == "bytes=1000-"


# Wrong partial answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-{last}/{size}",
        "bytes {next}-{last}/{size}",
        "bytes {start}-{last}/{more}",
        "bytes {start}-{size}/{size}",
        "bytes {start}-{short}/{size}",
        "bytes {last}-{start}/{size}",
        "bytes */{size}",
        "items {start}-{last}/{size}",
        "",
    ],
)
def test_wrong_content_range_is_not_used(client: DownloadClient, content_range: str) -> None:
    """After one wrong partial answer everything is fetched in one piece."""

    def script(handler: Handler) -> None:
        if "Range" not in handler.headers:
            drop = 1_000_000 if len(handler.server.requests) == 1 else None
            return file_script(DATA, drop_after=drop)(handler)
        start = int(handler.headers["Range"].strip("bytes=-"))
        said = content_range.format(
            start=start, next=start + 1, last=len(DATA) - 1, short=len(DATA) - 5, size=len(DATA), more=len(DATA) + 1
        )
        return handler.answer(206, DATA[start:], ETag='"v1"', Content_Range=said)

    with serving(script) as server:
        downloaded = client.get(server.url)
        assert ["Range" in request.headers for request in server.requests] == [False, True, False]
    right(downloaded, client, DATA)
    assert not downloaded.spliced


def test_changed_etag_begins_again(client: DownloadClient) -> None:
    """The file changed between two tries: If-Range makes the server send all of the new one."""
    new = os.urandom(2 * MIB)

    def script(handler: Handler) -> None:
        if len(handler.server.requests) == 1:
            return file_script(DATA, etag='"old"', drop_after=MIB)(handler)
        return file_script(new, etag='"new"')(handler)

    with serving(script) as server:
        right(client.get(server.url), client, new)
        assert server.requests[1].headers["If-Range"] == '"old"'


def test_part_of_another_representation_is_not_used(client: DownloadClient) -> None:
    """A server that ignores If-Range: 206 with another ETag."""
    new = os.urandom(len(DATA))

    def script(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").strip("bytes=-"))
        if len(handler.server.requests) == 1:
            return file_script(DATA, etag='"old"', drop_after=MIB)(handler)
        if not start:
            return file_script(new, etag='"new"')(handler)
        said = f"bytes {start}-{len(new) - 1}/{len(new)}"
        return handler.answer(206, new[start:], ETag='"new"', Content_Range=said)

    with serving(script) as server:
        right(client.get(server.url), client, new)


def test_unasked_partial_answer_is_refused(client: DownloadClient) -> None:
    def script(handler: Handler) -> None:
        handler.answer(206, b"x", Content_Range="bytes 0-0/9")

    with serving(script) as server, pytest.raises(LoaderError, match="HTTP 206"):
        client.get(server.url)


def test_range_not_satisfiable_begins_again(client: DownloadClient) -> None:
    """416: the file has become shorter than what we have."""

    def script(handler: Handler) -> None:
        if "Range" in handler.headers:
            return handler.answer(416)
        return file_script(DATA, drop_after=MIB if len(handler.server.requests) == 1 else None)(handler)

    with serving(script) as server:
        right(client.get(server.url), client, DATA)


def test_part_may_be_shorter_than_asked(client: DownloadClient) -> None:
    """RFC 9110 15.3.7 allows it; the next request asks for what is still missing."""

    def script(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").strip("bytes=-"))
        if not start:
            return file_script(DATA, drop_after=MIB)(handler)
        end = min(len(DATA), start + MIB)
        return handler.answer(206, DATA[start:end], ETag='"v1"', Content_Range=f"bytes {start}-{end - 1}/{len(DATA)}")

    with serving(script) as server:
        right(client.get(server.url), client, DATA)


def test_more_bytes_than_the_total_are_not_used(client: DownloadClient) -> None:
    """A chunked 206 without a length of its own that does not stop."""

    def script(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").strip("bytes=-"))
        if not start:
            return file_script(DATA, drop_after=MIB if len(handler.server.requests) == 1 else None)(handler)
        handler.send_response(206)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        handler.end_headers()
        return_bytes = DATA[start:] + b"and more"
        handler.wfile.write(return_bytes)
        return None

    with serving(script) as server:
        right(client.get(server.url), client, DATA)
