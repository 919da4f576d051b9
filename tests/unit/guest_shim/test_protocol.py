"""Frames between shim and agent: what is sent arrives; what breaks a cap is refused at its first byte."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_shim.protocol import (
    DEPTH_CAP,
    HEADER_CAP,
    PAYLOAD_CAP,
    PIECE_KEPT,
    Frame,
    FrameReader,
    ProtocolError,
    choose_version,
    encode,
)

values = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.text(max_size=30))
frames = st.builds(
    Frame,
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=10).filter(lambda key: key not in ("type", "payload")), values, max_size=5),
    st.binary(max_size=300),
)


def raw(header: bytes, payload: bytes = b"") -> bytes:
    """A frame of any header."""
    return struct.pack(">I", len(header)) + header + payload


def joined(frame: Frame) -> Frame:
    """With its payload in one piece."""
    return frame._replace(payload=b"".join((frame.payload, *frame.more)), more=())


@given(st.lists(frames, max_size=5), st.integers(1, 50))
def test_what_is_sent_arrives_however_it_is_cut(sent: list[Frame], size: int) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    reader, got = FrameReader(), []
    for start in range(0, len(stream), size):
        got += reader.feed(stream[start : start + size])
    assert list(map(joined, got)) == list(map(joined, sent))


@pytest.mark.parametrize("size", [2, PIECE_KEPT - 1, PIECE_KEPT + 1, 50_000])
def test_what_trickles_is_held_in_few_pieces(size: int) -> None:
    """A small piece costs many times its bytes; all of a frame's but the last are large."""
    stream, reader = encode(Frame("x", {}, bytes(range(256)) * 512)), FrameReader()
    got = [frame for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
    (frame,) = got
    pieces = (frame.payload, *frame.more)
    assert b"".join(pieces) == bytes(range(256)) * 512
    assert all(len(piece) >= PIECE_KEPT for piece in pieces[:-1])
    assert frame.size() == 256 * 512


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    try:
        FrameReader().feed(data)
    except ProtocolError:
        return


def test_a_long_header_is_refused_when_it_is_announced() -> None:
    with pytest.raises(ProtocolError, match="announced"):
        FrameReader().feed(struct.pack(">I", HEADER_CAP + 1))
    with pytest.raises(ProtocolError, match="over the caps"):
        encode(Frame("x", {"text": "x" * HEADER_CAP}))


@pytest.mark.parametrize("length", [-1, PAYLOAD_CAP + 1, True, "1", 1.0, None])
def test_a_wrong_payload_length_is_refused(length: object) -> None:
    with pytest.raises(ProtocolError, match="payload"):
        FrameReader().feed(raw(json.dumps({"type": "x", "payload": length}).encode()))


def test_a_large_payload_is_refused_when_it_is_sent() -> None:
    assert FrameReader().feed(encode(Frame("x", {}, bytes(PAYLOAD_CAP))))[0].payload == bytes(PAYLOAD_CAP)
    with pytest.raises(ProtocolError, match="over the caps"):
        encode(Frame("x", {}, bytes(PAYLOAD_CAP + 1)))


@pytest.mark.parametrize(
    "header", [b"", b"1", b"[]", b"{}", b'{"type": 1}', b"\xff", b'{"type": "x"', b'{"type":"x"}}']
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(raw(header))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_deep_header_is_refused_before_a_parser_sees_it(opening: str) -> None:
    depth = HEADER_CAP // 8
    closing = "]" if opening == "[" else "}"
    header = '{"type":"x","v":' + opening * depth + "1" + closing * depth + "}"
    with pytest.raises(ProtocolError, match="nested"):
        FrameReader().feed(raw(header.encode()))


def test_brackets_in_strings_neither_deepen_nor_hide() -> None:
    (frame,) = FrameReader().feed(raw(json.dumps({"type": "x", "v": '[[[[[[[[[[[[\\"[[['}).encode()))
    assert frame.fields["v"].startswith("[[[")
    hidden = '{"type":"x","v":' + '["]",' * (DEPTH_CAP + 2) + "1" + "]" * (DEPTH_CAP + 2) + "}"
    with pytest.raises(ProtocolError, match="nested"):
        FrameReader().feed(raw(hidden.encode()))


def test_versions() -> None:
    assert choose_version([3, 2, 1]) == 1
    for offered in ([], [2], "1", None, {"1": 1}):
        with pytest.raises(ProtocolError, match="version"):
            choose_version(offered)
