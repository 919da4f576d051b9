"""DLOTA: a descriptor instead of the image, and its report (R-084, R-107, management-objects 7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.images.dlota import Descriptor, is_descriptor, parse_descriptor
from dom0_agent.images.errors import BadDescriptor, BadDescriptorVersion
from dom0_agent.images.model import ImageState
from dom0_agent.images.urls import parse_url
from tests.unit.images.images_testing import (
    Handler,
    ScriptedServer,
    bundle,
    file_script,
    serving,
)
from tests.unit.images.test_image_service import BUNDLE_TYPE, Device, device, finished

DD = "application/vnd.oma.dd+xml"
NAMESPACE = "http://www.openmobilealliance.org/xmlns/dd"
BASE = parse_url("http://h/d/x.dd")
DATA = bundle()


def descriptor(
    *,
    size: object = len(DATA),
    kind: str = BUNDLE_TYPE,
    uri: str = "image.tar",
    notify: str = "/notify",
    more: str = "",
    version: str = "1.0",
) -> bytes:
    return (
        f'<?xml version="1.0"?>\n<media xmlns="{NAMESPACE}"><!-- made by hand --><DDVersion>{version}</DDVersion>'
        f"<name>Sample</name><type>{kind}</type><size> {size} </size>\n<objectURI>{uri}</objectURI>"
        f"<installNotifyURI>{notify}</installNotifyURI>{more}</media>"
    ).encode()


class Vendor:
    """A web server with a descriptor, an image, and an ear."""

    def __init__(self, dd: bytes, image: bytes = DATA, dd_type: str = DD, notify_status: int = 200) -> None:
        self.dd, self.image, self.dd_type, self.notify_status = dd, image, dd_type, notify_status

    def __call__(self, handler: Handler) -> None:
        match handler.path:
            case "/x.dd":
                handler.answer(200, self.dd, Content_Type=self.dd_type)
            case "/notify":
                handler.answer(self.notify_status)
            case "/image.tar":
                file_script(self.image)(handler)
            case _:
                handler.answer(404)


def breaking_off(vendor: Vendor, after: int) -> Callable[[Handler], None]:
    """The vendor's server, but the image breaks off once and is gone then."""

    def script(handler: Handler) -> None:
        if handler.path != "/image.tar":
            vendor(handler)
        elif "Range" in handler.headers:
            handler.answer(404)
        else:
            file_script(vendor.image, drop_after=after)(handler)

    return script


def reports(server: ScriptedServer) -> list[str]:
    return [request.body.decode() for request in server.requests if request.method == "POST"]


def state(here: Device, img_id: str) -> ImageState:
    return here.record(img_id).state


@pytest.mark.parametrize("dd_type", [DD, DD.upper() + "; charset=utf-8", "application/xml", "text/xml", ""])
def test_descriptor_leads_to_the_image(tmp_path: Path, dd_type: str) -> None:
    """By media type or by root element; success is reported with 900."""
    with serving(Vendor(descriptor(), dd_type=dd_type)) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url + "/x.dd")
        assert result.ok, result.message
        assert state(here, img_id) is ImageState.DOWNLOADED
        assert here.service.verified(img_id).name == "sample-guest"
        assert [request.path for request in server.requests] == ["/x.dd", "/image.tar", "/notify"]
        assert reports(server) == ["900 Success"]


def test_media_type_of_the_descriptor_itself_is_fine(tmp_path: Path) -> None:
    with serving(Vendor(descriptor())) as server, device(tmp_path) as here:
        assert here.deliver(server.url + "/x.dd", DD)[1].ok


@pytest.mark.parametrize(
    ("vendor", "status", "report"),
    [
        (Vendor(descriptor(size=len(DATA) + 1)), 424, "905 Attribute mismatch"),
        (Vendor(descriptor(size=len(DATA) - 1)), 424, "905 Attribute mismatch"),
        (Vendor(descriptor(size=1 << 50)), 413, "901 Insufficient memory"),
        (Vendor(descriptor(size=900_000_000)), 424, "905 Attribute mismatch"),
        (Vendor(descriptor(kind="audio/mpeg")), 415, "953 Non-Acceptable Content"),
        (Vendor(descriptor(kind="application/x-qemu-disk")), 415, "905 Attribute mismatch"),
        (Vendor(descriptor(version="2.0")), 500, "951 Invalid DDVersion"),
        (Vendor(descriptor(size="many")), 500, "906 Invalid descriptor"),
        (Vendor(descriptor(uri="")), 500, "906 Invalid descriptor"),
        (Vendor(descriptor(uri="file:///etc/shadow")), 500, "906 Invalid descriptor"),
        (Vendor(descriptor(more="<size>3</size>")), 500, "906 Invalid descriptor"),
        (Vendor(descriptor(uri="missing")), 500, "954 Loader Error"),
        (Vendor(descriptor(), image=DATA[:700] + b"!" + DATA[701:]), 415, "953 Non-Acceptable Content"),
        (Vendor(descriptor(), image=DATA[:2000] + b"!" + DATA[2001:]), 424, "905 Attribute mismatch"),
        (Vendor(descriptor(), notify_status=404), 500, "900 Success"),
    ],
)
def test_failures_have_their_codes(tmp_path: Path, vendor: Vendor, status: int, report: str) -> None:
    """The table of 7.3: State 3, the DM status, and the line for the vendor."""
    with serving(vendor) as server, device(tmp_path) as here:
        img_id, result = here.deliver(server.url + "/x.dd")
        assert (result.status, state(here, img_id)) == (status, ImageState.DOWNLOAD_FAILED), result.message
        assert reports(server)[0] == report


def test_report_is_tried_again_and_is_part_of_the_installation(tmp_path: Path) -> None:
    """DLOTA 1.0: without its acknowledgement an object is not installed."""
    vendor = Vendor(descriptor(), notify_status=503)
    with serving(vendor) as server, device(tmp_path) as here:
        here.service._tools.downloader.wait = lambda cancel, seconds: False
        img_id, result = here.deliver(server.url + "/x.dd")
        assert result.status == 500 and state(here, img_id) is ImageState.DOWNLOAD_FAILED
        assert reports(server)[:3] == ["900 Success"] * 3
        assert not any(name.startswith(("content/", "staging/")) for name in here.files())
        vendor.notify_status = 204
        server.requests.clear()
        assert finished(here.service.download(img_id, server.url + "/x.dd", BUNDLE_TYPE)).ok
        assert [request.path for request in server.requests] == ["/x.dd", "/notify"], "the image was there already"


def test_object_goes_on_after_a_failure(tmp_path: Path) -> None:
    """The descriptor is read again, the image from where it broke off."""
    data = bundle(kernel=bytes(range(256)) * 4000)
    vendor = Vendor(descriptor(size=len(data)), image=data)
    with serving(vendor) as server, device(tmp_path, retries=1) as here:
        server.script = breaking_off(vendor, 300_000)
        img_id, result = here.deliver(server.url + "/x.dd")
        assert result.status == 500 and here.record(img_id).size == 300_000
        assert reports(server) == ["954 Loader Error"]
        server.script = vendor
        server.requests.clear()
        assert finished(here.service.download(img_id, server.url + "/x.dd", BUNDLE_TYPE)).ok
        assert server.requests[1].headers["Range"] == "bytes=300000-"


def test_descriptor_that_became_an_image(tmp_path: Path) -> None:
    """The operator replaced the descriptor by the image itself, between two tries."""
    vendor = Vendor(descriptor())
    with serving(vendor) as server, device(tmp_path, retries=1) as here:
        server.script = breaking_off(vendor, 5000)
        img_id, result = here.deliver(server.url + "/x.dd")
        assert result.status == 500
        server.script = file_script(DATA)
        assert finished(here.service.download(img_id, server.url + "/x.dd", BUNDLE_TYPE)).ok


def test_endless_descriptor(tmp_path: Path) -> None:
    with serving(Vendor(b"<media>" + b" " * 200_000)) as server, device(tmp_path) as here:
        _, result = here.deliver(server.url + "/x.dd")
        assert result.status == 500 and "larger than" in result.message


# Parsing --------------------------------------------------------------------------------------------------------------


def test_parse() -> None:
    assert parse_descriptor(descriptor(uri="../a/b.tar?x=1"), BASE).object_uri == "http://h/a/b.tar?x=1"
    parsed = parse_descriptor(descriptor(uri="http://u:p@other/i", notify="https://n/x"), BASE)
    assert parsed == Descriptor("http://u:p@other/i", len(DATA), (BUNDLE_TYPE,), parse_url("https://n/x"))
    without = b"<media><size>5</size><type>a/b</type><type>c/d</type><objectURI>x</objectURI></media>"
    assert parse_descriptor(without, BASE) == Descriptor("http://h/d/x", 5, ("a/b", "c/d"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<media>",
        b"<media/>",
        b"<other/>",
        b'<x:media xmlns:x="urn:other"/>',
        b"<media><size>1</size><objectURI>x</objectURI></media>",
        b"<!DOCTYPE media><media/>",
        b'<!DOCTYPE media [<!ENTITY e SYSTEM "file:///etc/passwd">]><media><objectURI>&e;</objectURI></media>',
        b"<media>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</media>",
        b"\xff\xfe<media/>",
    ],
)
def test_bad_descriptors(text: bytes) -> None:
    problem = parse_descriptor(text, BASE).problem
    assert isinstance(problem, BadDescriptor) and problem.notify == 906 and problem.status == 500


def test_address_for_the_report_is_found_in_bad_descriptors() -> None:
    parsed = parse_descriptor(descriptor(version="3"), BASE)
    assert isinstance(parsed.problem, BadDescriptorVersion) and parsed.notify == parse_url("http://h/notify")
    parsed = parse_descriptor(descriptor(notify="gopher://x"), BASE)
    assert parsed.notify is None and parsed.problem is not None


def test_https_descriptor_does_not_lead_to_http() -> None:
    parsed = parse_descriptor(descriptor(uri="http://h/x", notify="https://h/n"), parse_url("https://h/x.dd"))
    assert parsed.problem is not None and "unprotected" in str(parsed.problem)


@given(st.binary(max_size=400) | st.builds(lambda b: b"<media>" + b + b"</media>", st.binary(max_size=60)))
def test_any_bytes(data: bytes) -> None:
    assert parse_descriptor(data, BASE).problem is not None
    is_descriptor("", data)
