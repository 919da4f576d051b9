"""A guest may write anything: what is not well formed is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.guest.facts import NO_FACTS, parse_facts

BOOT_ID = b"0f0e0d0c-0b0a-4908-8706-050403020100"


def test_well_formed_facts_are_taken() -> None:
    facts = parse_facts(BOOT_ID, b"17", b"0.1.0")
    assert (facts.boot_id, facts.beats, facts.shim_version) == (BOOT_ID.decode(), 17, "0.1.0")


@pytest.mark.parametrize("boot_id", [b"", b"x", BOOT_ID + b"\n", BOOT_ID.upper(), BOOT_ID * 50, b"\xff" * 36])
def test_strange_boot_ids_are_nothing(boot_id: bytes) -> None:
    assert parse_facts(boot_id, None, None) == NO_FACTS


@pytest.mark.parametrize("beats", [b"", b"-1", b"1.5", b"1e9", b"9" * 16, b" 1", b"0x10", "٣".encode()])
def test_strange_beats_are_nothing(beats: bytes) -> None:
    assert parse_facts(None, beats, None) == NO_FACTS


@pytest.mark.parametrize("version", [b"", b"1\n2", b"v" * 41, b"<b>", b"\x1b[2J", b".1"])
def test_strange_versions_are_nothing(version: bytes) -> None:
    assert parse_facts(None, None, version) == NO_FACTS


@given(st.binary(max_size=3000), st.binary(max_size=100), st.binary(max_size=100))
def test_nothing_a_guest_writes_makes_it_fail(boot_id: bytes, beats: bytes, version: bytes) -> None:
    parse_facts(boot_id, beats, version)
