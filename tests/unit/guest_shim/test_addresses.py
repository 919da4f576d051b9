"""Addresses as the kernel tells them: beside what ``ip`` prints of this machine."""

from __future__ import annotations

import json
import struct
import subprocess

import pytest

from guest_shim import addresses as module
from guest_shim.addresses import addresses


def test_they_are_those_that_ip_prints() -> None:
    printed = subprocess.run(["ip", "-j", "address", "show"], capture_output=True, check=True, timeout=30).stdout
    said = {
        link["ifname"]: sorted(address["local"] for address in link["addr_info"])
        for link in json.loads(printed)
        if link.get("addr_info")
    }
    assert said, "this machine has a loopback at least"
    assert {name: sorted(known) for name, known in addresses().items()} == said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("=IHHII", 0, 20, 0, 0, 0),  # a length that would never end
        struct.pack("=IHHII", 16, 2, 0, 0, 0),
        struct.pack("=IHHIIBBBBIHH", 28, 20, 0, 0, 0, 2, 8, 0, 0, 1, 0, 2),  # an attribute of no length
    ],
)
def test_an_answer_that_is_none_says_nothing(data: bytes) -> None:
    found: dict[str, list[str]] = {}
    module._read(data, found)
    assert found == {}
