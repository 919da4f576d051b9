"""The control socket: answers, refusals, and what a person is told when nobody listens."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0_agent.control import MAX_REQUEST, ControlServer
from dom0_agent.control_client import ControlError, call


def _add(parameters: Mapping[str, Any]) -> int:
    return int(parameters["a"]) + int(parameters["b"])


def _refuse(_: Mapping[str, Any]) -> None:
    raise ControlError("no such VM")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    served = ControlServer(tmp_path / "run" / "control.sock", {"add": _add, "refuse": _refuse})
    yield served
    served.close()


def raw(path: Path, request: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            answer: dict[str, Any] = json.loads(stream.readline())
            return answer


def test_a_call_is_answered(server: ControlServer) -> None:
    assert call(server.path, "add", a=1, b=2) == 3


def test_a_refusal_reaches_the_person(server: ControlServer) -> None:
    with pytest.raises(ControlError, match="no such VM"):
        call(server.path, "refuse")


def test_an_unknown_call_lists_the_known_ones(server: ControlServer) -> None:
    with pytest.raises(ControlError, match="known are add, refuse"):
        call(server.path, "nonsense")


def test_only_root_may_use_it(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("request_bytes", [b"nonsense\n", b"[1]\n", b'{"call": 5}\n', b"{" * (MAX_REQUEST + 1)])
def test_bad_requests_are_answered_and_the_server_lives_on(server: ControlServer, request_bytes: bytes) -> None:
    assert "error" in raw(server.path, request_bytes)
    assert call(server.path, "add", a=2, b=2) == 4


def test_a_silent_socket_names_the_service(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="is virmo-agent running"):
        call(tmp_path / "none.sock", "add")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.touch()
    server = ControlServer(path, {"add": _add})
    assert call(path, "add", a=0, b=1) == 1
    server.close()
    assert not path.exists()
