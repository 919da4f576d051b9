"""A bootstrap profile given at Create reaches the guest's own DM client (OMA-ER-VirMO 11.1.3, R-131, R-137)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guest_shim.services import make_dispatcher
from tests.unit.mo.dmtree.guests_testing import GuestDevice, handler

PROFILE = b"\x03\x0bprofile"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path)
    yield made
    made.close()


def give(device: GuestDevice, text: str) -> None:
    """What the engine keeps of CreateParams' vendor keys (A-19)."""
    device.vms.records[device.vmid] = replace(device.vms.records[device.vmid], vendor={"Bootstrap": text})


def test_the_profile_is_there_and_applied_once(device: GuestDevice) -> None:
    places = device.places()
    applied = device.root / "applied"
    handler(places, "bootstrap", "apply", f'cat "$1" >>{applied}')
    give(device, base64.b64encode(PROFILE).decode())
    for _ in range(2):
        device.connect(make_dispatcher(places))
        device.guests.lose(device.vmid)
    assert (places.settings / "bootstrap").read_bytes() == PROFILE
    assert applied.read_bytes() == PROFILE
    give(device, base64.b64encode(b"another").decode())
    device.connect(make_dispatcher(places))
    assert applied.read_bytes() == PROFILE + b"another"


def test_a_profile_that_is_not_taken_is_offered_again(device: GuestDevice) -> None:
    places = device.places()
    handler(places, "bootstrap", "apply", "exit 1")
    give(device, base64.b64encode(PROFILE).decode())
    device.connect(make_dispatcher(places))
    assert not (places.settings / "bootstrap").exists()
    device.guests.lose(device.vmid)
    handler(places, "bootstrap", "apply", "exit 0")
    device.connect(make_dispatcher(places))
    assert (places.settings / "bootstrap").read_bytes() == PROFILE


def test_nothing_is_sent_where_there_is_nothing(device: GuestDevice, caplog: pytest.LogCaptureFixture) -> None:
    device.connect(make_dispatcher(device.places()))
    give(device, "not base64!")
    device.guests.lose(device.vmid)
    device.connect(make_dispatcher(device.places()))
    assert all(request.verb != "bootstrap" for _, request in device.guests.requests)
    assert "bootstrap_unusable" in caplog.text
