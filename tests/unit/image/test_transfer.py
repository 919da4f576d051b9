"""Bulk data past ssh: all of it arrives, and a transfer nobody fetches ends in an error, not in a hang."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from image.errors import ImageError
from image.transfer import Channel

DATA = bytes(range(256)) * 20000


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


def test_what_is_sent_arrives() -> None:
    got = bytearray()
    with Channel(5).sending(io.BytesIO(DATA)) as channel, dial(channel.port) as peer:
        while block := peer.recv(1 << 16):
            got += block
    assert bytes(got) == DATA
    assert channel.moved == len(DATA)


def test_what_comes_is_written(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as target, Channel(5).receiving(target) as channel, dial(channel.port) as peer:
        peer.sendall(DATA)
    assert (tmp_path / "x").read_bytes() == DATA


def test_nobody_comes() -> None:
    with pytest.raises(ImageError, match="broke off after 0 bytes"), Channel(0.2).sending(io.BytesIO(DATA)):
        pass


def test_the_other_side_stops_half_way() -> None:
    with pytest.raises(ImageError, match="broke off"), Channel(1).sending(io.BytesIO(DATA * 10)) as channel:
        dial(channel.port).close()
