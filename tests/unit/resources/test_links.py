"""The kernel's word that a guest's interface has come: real rtnetlink, and messages that are none."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.resources.links import Links, new_links

NAME = "vift4711.0"


@pytest.fixture
def hints() -> Iterator[threading.Event]:
    """Set when interfaces have changed; nothing is left of the one that the test makes."""
    heard = threading.Event()
    links = Links(heard.set, prefix="vift4711")
    yield heard
    links.close()
    subprocess.run(["ip", "link", "delete", NAME], check=False, capture_output=True, timeout=30)


def ip(*words: str) -> None:
    subprocess.run(["ip", "link", *words], check=True, timeout=30)


def test_an_interface_that_comes_is_heard_at_once(hints: threading.Event) -> None:
    """Not only at the next look at everything, half a minute later."""
    ip("add", "other4711", "type", "veth", "peer", "name", "rehto4711")
    ip("delete", "other4711")
    assert not hints.wait(0.3), "that was nobody's of ours"
    ip("add", NAME, "type", "veth", "peer", "name", "peer4711")
    assert hints.wait(5)


@given(st.binary(max_size=200))
def test_no_message_makes_it_fail(message: bytes) -> None:
    assert all(isinstance(name, str) for name in new_links(message))
