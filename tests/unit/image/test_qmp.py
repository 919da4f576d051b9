"""QEMU's control socket: answers are told from events, refusals and a closed socket are errors with words."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image.errors import ImageError
from image.qmp import Qmp


class FakeQemu:
    """Answers each command with the next of `answers`."""

    def __init__(self, path: Path) -> None:
        self.answers: list[list[dict[str, Any]]] = []
        self.commands: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer, peer.makefile("rwb") as file:
            self._say(file, {"QMP": {"version": {}}})
            for line in file:
                self.commands.append(json.loads(line))
                first = self.commands[-1]["execute"] == "qmp_capabilities"
                if not first and not self.answers:
                    return
                for answer in [{"return": {}}] if first else self.answers.pop(0):
                    self._say(file, answer)

    @staticmethod
    def _say(file: Any, message: dict[str, Any]) -> None:
        file.write(json.dumps(message).encode() + b"\n")
        file.flush()

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[tuple[FakeQemu, Qmp]]:
    fake = FakeQemu(tmp_path / "qmp")
    with Qmp(tmp_path / "qmp") as qmp:
        yield fake, qmp
    fake.close()


def test_events_are_read_past(qemu: tuple[FakeQemu, Qmp]) -> None:
    fake, qmp = qemu
    fake.answers.append([{"event": "STOP"}, {"return": {"status": "running"}}])
    assert qmp.execute("query-status") == {"status": "running"}
    assert fake.commands[-1] == {"execute": "query-status", "arguments": {}}


def test_a_refusal_names_the_command(qemu: tuple[FakeQemu, Qmp]) -> None:
    fake, qmp = qemu
    fake.answers.append([{"error": {"class": "GenericError", "desc": "no such thing"}}])
    with pytest.raises(ImageError, match="QEMU refused frob: no such thing"):
        qmp.execute("frob")


def test_a_monitor_line(qemu: tuple[FakeQemu, Qmp]) -> None:
    fake, qmp = qemu
    fake.answers.append([{"return": "could not\r\n"}])
    assert qmp.monitor("hostfwd_add x") == "could not\r\n"
    assert fake.commands[-1]["arguments"] == {"command-line": "hostfwd_add x"}


def test_qemu_gone(qemu: tuple[FakeQemu, Qmp]) -> None:
    _fake, qmp = qemu
    with pytest.raises(ImageError, match="QEMU closed its control socket"):
        qmp.execute("query-status")
