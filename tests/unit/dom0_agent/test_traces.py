"""Recorded messages come out as they went in, up to a limit."""

from __future__ import annotations

import json

from dom0_agent.traces import Recorder, play, terminal_trace


def test_what_was_recorded_is_played() -> None:
    recorder = Recorder()
    recorder("sent", b"\x00\xff one")
    recorder("received", b"two")
    played: list[tuple[str, bytes]] = []
    play(json.loads(json.dumps(recorder.as_json())), lambda direction, body: played.append((direction, body)))
    assert played == [("sent", b"\x00\xff one"), ("received", b"two")]


def test_a_long_session_is_recorded_from_its_beginning() -> None:
    recorder = Recorder(limit=10)
    for body in (b"12345", b"1234567", b"1"):
        recorder("sent", body)
    assert (len(recorder.as_json()), recorder.left_out) == (1, 2)


def test_nothing_is_traced_unless_asked() -> None:
    assert terminal_trace("xml", show=False, folder=None) is None
