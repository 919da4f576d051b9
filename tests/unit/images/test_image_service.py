"""The image service against a real web server: states, results, failures, restarts (R-080 to R-125, A-34 to A-39)."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from dom0_agent.images.model import ImageRecord, ImageState, VerifiedImage
from dom0_agent.images.service import LocalImageService
from dom0_agent.images.space import SpaceLedger
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable, StoredImage
from tests.unit.images.images_testing import (
    ORIGIN,
    PACKERS,
    Handler,
    MemoryRows,
    Recorder,
    bundle,
    file_script,
    manifest_document,
    mbr_disk,
    quick_config,
    serving,
    sha256,
    tar_of,
)

BUNDLE_TYPE = "application/vnd.virmo.bundle+tar"


class Device:
    """A service, its table, its listener."""

    def __init__(self, folder: Path, rows: MemoryRows | None = None, free: int = 1 << 40, **config: object) -> None:
        self.folder = folder
        self.rows = rows or MemoryRows()
        self.events = Recorder()
        settings = quick_config(folder, **config)
        self.service = LocalImageService(
            settings, self.rows, ledger=SpaceLedger(folder, settings.reserve, lambda _: free)
        )
        self.service.subscribe(self.events)
        self.service.start()

    def deliver(self, uri: str, media_type: str = BUNDLE_TYPE) -> tuple[str, OperationResult]:
        img_id = self.service.add()
        return img_id, finished(self.service.download(img_id, uri, media_type, ORIGIN))

    def record(self, img_id: str) -> ImageRecord:
        record = self.service.get(img_id)
        assert record is not None
        return record

    def files(self) -> list[str]:
        """Every file and folder below the store's own four folders."""
        return sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.relative_to(self.folder).parts[1:]
        )


def finished(handle: OperationHandle) -> OperationResult:
    result = handle.wait(20)
    assert result is not None, "the download did not end"
    return result


@contextmanager
def device(folder: Path, rows: MemoryRows | None = None, free: int = 1 << 40, **config: object) -> Iterator[Device]:
    made = Device(folder / "store", rows, free, **config)
    try:
        yield made
    finally:
        made.service.close()


@pytest.mark.parametrize("packer", PACKERS)
def test_download_makes_a_verified_image(tmp_path: Path, packer: str) -> None:
    """R-091, R-092, R-103, R-108, R-109: 0 → 1 → 2, DownloadedLocation only then; each compression."""
    data = PACKERS[packer](bundle())
    with serving(file_script(data)) as server, device(tmp_path) as here:
        img_id = here.service.add()
        assert here.record(img_id) == ImageRecord(img_id, ImageState.NOT_DOWNLOADED)
        result = finished(here.service.download(img_id, server.url + "/a.tar", BUNDLE_TYPE, ORIGIN))
        assert result.ok, result.message
        record = here.record(img_id)
        assert record.state is ImageState.DOWNLOADED and record.location is not None and record.progress == 100
        image = here.service.verified(img_id)
        assert image == VerifiedImage(
            img_id=img_id,
            name="sample-guest",
            arch="x86_64",
            type="pv",
            vcpus=1,
            memory=134217728,
            cmdline="console=hvc0",
            kernel=record.location / "kernel",
            ramdisk=record.location / "ramdisk",
            disks=(),
        )
        assert image.kernel is not None and image.kernel.read_bytes() == b"kernel" * 1000
        states = [event.record.state for event in here.events.events if event.record is not None]
        assert sorted(set(states)) == [0, 1, 2] and states == sorted(states)
        (end,) = here.events.results()
        assert end.awaited and end.origin == ORIGIN and end.record == record
        assert not any(name.startswith(("downloads/", "staging/")) for name in here.files())


def test_end_of_an_abandoned_wait_is_an_event(tmp_path: Path) -> None:
    """A-27, A-28: nobody waits any more, so an alert with the origin is due."""
    go = threading.Event()

    def script(handler: Handler) -> None:
        go.wait(10)
        file_script(bundle())(handler)

    with serving(script) as server, device(tmp_path) as here:
        img_id = here.service.add()
        assert here.service.download(img_id, server.url, BUNDLE_TYPE, ORIGIN).wait(0) is None
        go.set()
        end = here.events.wait_for(lambda event: event.result is not None)
        assert end.origin == ORIGIN and not end.awaited and end.result is not None and end.result.ok


def test_wrong_state_is_refused(tmp_path: Path) -> None:
    """A-34: 417 while downloading, 405 when downloaded; 404 for an unknown image."""
    go = threading.Event()

    def script(handler: Handler) -> None:
        go.wait(10)
        file_script(bundle())(handler)

    with serving(script) as server, device(tmp_path) as here:
        img_id = here.service.add()
        handle = here.service.download(img_id, server.url, BUNDLE_TYPE)
        with pytest.raises(OperationRefused) as refused:
            here.service.download(img_id, server.url, BUNDLE_TYPE)
        assert refused.value.status == 417
        with pytest.raises(OperationRefused) as refused:
            here.service.verified(img_id)
        assert refused.value.status == 405
        go.set()
        handle.wait(10)
        here.events.wait_for(lambda event: event.result is not None)
        with pytest.raises(OperationRefused) as refused:
            here.service.download(img_id, server.url, BUNDLE_TYPE)
        assert refused.value.status == 405
        with pytest.raises(OperationRefused) as refused:
            here.service.download("nobody", server.url, BUNDLE_TYPE)
        assert refused.value.status == 404


@pytest.mark.parametrize("uri", ["", " ", "file:///etc/passwd", "ftp://host/x", "http://", "/a", "http://a b/", "x"])
def test_uri_must_be_http(tmp_path: Path, uri: str) -> None:
    """A-34, A-39: 412, and nothing changed."""
    with device(tmp_path) as here:
        img_id = here.service.add()
        with pytest.raises(OperationRefused) as refused:
            here.service.download(img_id, uri, BUNDLE_TYPE)
        assert refused.value.status == 412
        assert here.record(img_id).state is ImageState.NOT_DOWNLOADED


def test_not_found_names_the_url_without_its_secrets(tmp_path: Path) -> None:
    """A URL that answers 404 is final: State 3, 500, one request."""
    with serving(lambda handler: handler.answer(404)) as server, device(tmp_path) as here:
        url = server.url.replace("://", "://user:hunter2@") + "/missing.tar?token=hunter3"
        img_id, result = here.deliver(url)
        assert result.status == 500
        assert result.message.startswith(f"{server.url}/missing.tar?…: HTTP 404")
        assert "hunter" not in result.message
        record = here.record(img_id)
        assert record.state is ImageState.DOWNLOAD_FAILED and record.location is None
        assert record.last_error == result.message
        assert len(server.requests) == 1
        assert server.requests[0].headers["Authorization"].startswith("Basic ")


def test_wrong_sha256_names_the_member_and_both_digests(tmp_path: Path) -> None:
    """A corrupt image: 424, State 3, nothing of it stays on the disk, nothing of it can be used."""
    kernel, ramdisk = b"k" * 5000, b"r" * 5000
    document = manifest_document(kernel, ramdisk)
    damaged = tar_of({"vm.yaml": yaml.safe_dump(document).encode(), "vmlinux": b"K" * 5000, "initramfs.gz": ramdisk})
    with serving(file_script(damaged)) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url)
        assert result.status == 424
        assert "vmlinux" in result.message
        assert sha256(kernel) in result.message and sha256(b"K" * 5000) in result.message
        assert here.record(img_id).state is ImageState.DOWNLOAD_FAILED
        assert here.files() == []
        with pytest.raises(OperationRefused):
            here.service.verified(img_id)


def test_disk_too_small_says_what_is_needed(tmp_path: Path) -> None:
    """420 before the body is fetched; the message has the needed, free, and kept bytes."""
    data = bundle(kernel=b"k" * 3_000_000)
    with serving(file_script(data)) as server, device(tmp_path, free=2_500_000, reserve=1_000_000) as here:
        img_id, result = here.deliver(server.url)
        assert result.status == 420
        for number in (len(data), 2_500_000, 1_000_000):
            assert str(number) in result.message
        assert here.record(img_id).state is ImageState.DOWNLOAD_FAILED


def test_space_for_unpacking_is_reserved_while_downloading(tmp_path: Path) -> None:
    """The archive itself fits, its content does not: 420, and the members were never begun."""
    kernel = bytes(8_000_000)
    data = PACKERS["gzip"](bundle(kernel=kernel))
    assert len(data) < 100_000
    with serving(file_script(data)) as server, device(tmp_path, free=5_000_000) as here:
        _, result = here.deliver(server.url)
        assert result.status == 420
        assert "for unpacking: needs 800" in result.message
        assert not any(name.startswith(("content/", "staging/")) and name.endswith("kernel") for name in here.files())


def test_media_type_must_fit(tmp_path: Path) -> None:
    """A-38: 415 for a type that is not known and for content of another type."""
    with serving(file_script(bundle())) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url, "image/jpeg")
        assert result.status == 415 and server.requests == []
        assert here.record(img_id).state is ImageState.DOWNLOAD_FAILED
        _, result = here.deliver(server.url, "application/x-qemu-disk")
        assert result.status == 415 and "bundle" in result.message
        _, result = here.deliver(server.url, "Application/Octet-Stream; x=1")
        assert result.ok


def test_page_for_people_is_not_an_image(tmp_path: Path) -> None:
    """A captive portal answers 200 with a page: 415."""
    script = file_script(b"<html>" * 512, content_type="text/html; charset=utf-8")
    with serving(script) as server, device(tmp_path) as here:
        _, result = here.deliver(server.url, "")
        assert result.status == 415 and "text/html" in result.message


@pytest.mark.parametrize("packer", PACKERS)
def test_bare_raw_disk(tmp_path: Path, packer: str) -> None:
    """A raw disk, also compressed, becomes an hvm image with one disk; holes stay holes."""
    disk = mbr_disk(4 * 1024 * 1024)
    with serving(file_script(PACKERS[packer](disk))) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url, "application/octet-stream")
        assert result.ok, result.message
        image = here.service.verified(img_id)
        assert (image.type, image.kernel, len(image.disks)) == ("hvm", None, 1)
        assert image.disks[0].path.read_bytes() == disk
        assert (image.disks[0].device, image.disks[0].format, image.disks[0].virtual_size) == ("xvda", "raw", len(disk))
        assert not any(name.startswith(("downloads/", "staging/")) for name in here.files())


def test_unmarked_bytes_are_a_disk_only_when_called_so(tmp_path: Path) -> None:
    with serving(file_script(b"nothing known" * 512)) as server, device(tmp_path) as here:
        assert here.deliver(server.url, "application/octet-stream")[1].status == 415
        assert here.deliver(server.url, "application/x-raw-disk-image")[1].ok


def test_image_for_another_architecture_is_refused(tmp_path: Path) -> None:
    with serving(file_script(bundle(arch="arm64", type="pvh"))) as server, device(tmp_path) as here:
        _, result = here.deliver(server.url)
        assert result.status == 415 and "arm64" in result.message and "x86_64" in result.message


def test_same_content_is_stored_once_and_stays_until_its_last_image_goes(tmp_path: Path) -> None:
    """Different files with the same manifest are the same content."""
    plain, packed = bundle(), PACKERS["gzip"](bundle())

    def script(handler: Handler) -> None:
        file_script(packed if handler.path == "/gz" else plain)(handler)

    with serving(script) as server, device(tmp_path) as here:
        first, second = here.deliver(server.url)[0], here.deliver(server.url + "/gz")[0]
        location = here.record(first).location
        assert location == here.record(second).location and location is not None
        here.service.delete(first)
        assert here.service.verified(second).kernel is not None and location.is_dir()
        here.service.delete(second)
        assert here.files() == [] and here.rows.rows == {}


def test_delete_aborts_a_download(tmp_path: Path) -> None:
    """R-094, R-095, A-36: 214 for the one who waits, the data gone, at once for everybody else."""
    begun = threading.Event()

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10000000")
        handler.end_headers()
        handler.wfile.write(bundle())
        begun.set()
        threading.Event().wait(3)

    with serving(script) as server, device(tmp_path) as here:
        img_id = here.service.add()
        handle = here.service.download(img_id, server.url, BUNDLE_TYPE, ORIGIN)
        assert begun.wait(5)
        here.service.delete(img_id)
        assert here.service.get(img_id) is None and here.rows.rows == {}
        assert finished(handle).status == 214
        end = here.events.wait_for(lambda event: event.result is not None)
        assert end.record is None and end.origin == ORIGIN
        assert here.files() == []
        with pytest.raises(OperationRefused) as refused:
            here.service.delete(img_id)
        assert refused.value.status == 404


def test_waiting_downloads_are_bounded_and_can_be_deleted(tmp_path: Path) -> None:
    """No more connections than images.parallel_downloads; the rest is State 1 and waits."""
    go = threading.Event()

    def script(handler: Handler) -> None:
        go.wait(10)
        file_script(bundle())(handler)

    with serving(script) as server, device(tmp_path, parallel_downloads=2) as here:
        ids = [here.service.add() for _ in range(5)]
        handles = [here.service.download(img_id, server.url, BUNDLE_TYPE) for img_id in ids]
        here.service.delete(ids[4])
        assert finished(handles[4]).status == 214
        assert [here.record(img_id).state for img_id in ids[:4]] == [ImageState.DOWNLOADING] * 4
        assert len(server.requests) <= 2
        go.set()
        assert all(finished(handle).ok for handle in handles[:4])


def test_interrupted_download_is_failed_at_start_and_goes_on_when_asked(tmp_path: Path) -> None:
    """A-56, and resumption over a restart: State 3 with its origin told; Exec Download again asks only for the rest."""
    data = bundle(kernel=bytes(range(256)) * 8000)
    rows = MemoryRows()
    hold = threading.Event()

    def stalling(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        handler.wfile.write(data[:1_500_000])
        hold.wait(10)

    with serving(stalling) as server:
        with device(tmp_path, rows) as before:
            img_id = before.service.add()
            before.service.download(img_id, server.url, BUNDLE_TYPE, ORIGIN)
            body = before.folder / "downloads" / img_id / "body.part"
            before.events.wait_for(lambda event: event.record is not None and event.record.progress > 50)
            before.service.close()
            assert rows.rows[img_id].record.state is ImageState.DOWNLOADING
            assert body.stat().st_size > 1_000_000
        hold.set()
        with device(tmp_path, rows) as after:
            (end,) = after.events.results()
            assert end.origin == ORIGIN and not end.awaited and end.result is not None and end.result.status == 500
            assert after.record(img_id).state is ImageState.DOWNLOAD_FAILED
            assert after.record(img_id).size > 1_000_000
            server.script = file_script(data)
            assert finished(after.service.download(img_id, server.url, BUNDLE_TYPE)).ok
            assert server.requests[-1].headers["If-Range"] == '"v1"'
            assert int(server.requests[-1].headers["Range"].strip("bytes=-")) > 1_000_000


def test_interrupted_download_goes_on_by_itself_when_configured(tmp_path: Path) -> None:
    rows = MemoryRows()
    with serving(file_script(bundle())) as server:
        record = ImageRecord("i1", ImageState.DOWNLOADING)
        rows.put(StoredImage(record, uri=server.url, media_type=BUNDLE_TYPE, origin=ORIGIN))
        with device(tmp_path, rows, resume_at_start=True) as here:
            end = here.events.wait_for(lambda event: event.result is not None)
            assert end.origin == ORIGIN and end.result is not None and end.result.ok and not end.awaited


def wrong_rest(data: bytes, more: str = "") -> Callable[[Handler], None]:
    """A server that breaks off once, and whose partial answers have every header right and the wrong bytes."""

    def script(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").strip("bytes=-"))
        body = data[start:] if not start else bytes(len(data) - start)
        headers = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        handler.send_response(206 if start else 200)
        headers |= {"Content-Length": str(len(body)), "ETag": '"v1"', "Repr-Digest": more}
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body[: 4000 if len(handler.server.requests) == 1 else None])

    return script


@pytest.mark.parametrize("packer", PACKERS)
def test_right_part_with_wrong_bytes(tmp_path: Path, packer: str) -> None:
    """The worst server: nothing but the SHA-256 can tell. The image is fetched again, in one piece."""
    data = PACKERS[packer](bundle(kernel=random.Random(1).randbytes(50_000)))
    with serving(wrong_rest(data)) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url)
        assert result.ok, result.message
        assert ["Range" in request.headers for request in server.requests] == [False, True, False]
        assert here.service.verified(img_id).kernel is not None


def test_right_part_with_wrong_bytes_of_a_bare_disk(tmp_path: Path) -> None:
    """A bare disk has no manifest; the server's own digest of it (RFC 9530) is believed, when there is one."""
    disk = mbr_disk()
    digest = base64.b64encode(bytes.fromhex(sha256(disk))).decode()
    with serving(wrong_rest(disk, f"md5=:AAAA:, sha-256=:{digest}:")) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url, "application/octet-stream")
        assert result.ok, result.message
        assert here.service.verified(img_id).disks[0].path.read_bytes() == disk


def test_digest_of_the_server_must_fit(tmp_path: Path) -> None:
    data = bundle()
    other = base64.b64encode(bytes(32)).decode()

    def script(handler: Handler) -> None:
        handler.answer(200, data, Repr_Digest=f"sha-256=:{other}:")

    with serving(script) as server, device(tmp_path) as here:
        _, result = here.deliver(server.url)
        assert result.status == 424 and sha256(data) in result.message and "00000000" in result.message
        assert len(server.requests) == 1 and here.files() == []


def test_orphans_go_at_start_and_the_rest_stays(tmp_path: Path) -> None:
    """What a crash left: staging, trash, downloads and content that no record refers to."""
    rows = MemoryRows()
    with serving(file_script(bundle())) as server, device(tmp_path, rows) as before:
        kept, result = before.deliver(server.url)
        assert result.ok
    store = tmp_path / "store"
    expected = before.files()
    for orphan in ("staging/x", "trash/y", "downloads/z", "content/" + "0" * 64):
        (store / orphan).mkdir()
        (store / orphan / "file").write_text("left over")
    (store / "staging" / "link").symlink_to("/etc")
    with device(tmp_path, rows) as after:
        assert after.files() == expected
        assert after.service.verified(kept).kernel is not None


def test_content_lost_by_the_disk_is_noticed(tmp_path: Path) -> None:
    """State 2 is only shown when the content is there (R-086)."""
    rows = MemoryRows()
    with serving(file_script(bundle())) as server, device(tmp_path, rows) as before:
        img_id, _ = before.deliver(server.url)
        kernel = before.service.verified(img_id).kernel
        assert kernel is not None
        kernel.write_bytes(b"short")
        with pytest.raises(OperationRefused) as refused:
            before.service.verified(img_id)
        assert refused.value.status == 510
        before_location = before.record(img_id).location
        assert before_location is not None
        for path in before_location.iterdir():
            path.unlink()
        before_location.rmdir()
    with device(tmp_path, rows) as after:
        assert after.record(img_id).state is ImageState.DOWNLOAD_FAILED


def test_works_with_the_real_table(tmp_path: Path) -> None:
    """A-56: images survive a restart of the agent."""
    database = Database(tmp_path / "agent.db")
    config = quick_config(tmp_path / "store")
    with serving(file_script(bundle())) as server:
        service = LocalImageService(config, ImageTable(database))
        service.start()
        img_id = service.add()
        assert finished(service.download(img_id, server.url, BUNDLE_TYPE, ORIGIN)).ok
        service.close()
    again = LocalImageService(config, ImageTable(database))
    again.start()
    assert [record.state for record in again.list()] == [ImageState.DOWNLOADED]
    assert again.verified(img_id).name == "sample-guest"
    again.close()
    database.close()
