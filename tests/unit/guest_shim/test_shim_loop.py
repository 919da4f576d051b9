"""The shim's loop, its command line, and what it may depend on."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import guest_shim
from guest_shim import xenstore_transport
from guest_shim.cli import make_transport
from guest_shim.shim import VERSION, Shim
from guest_shim.transport import TransportError
from guest_shim.unix_socket import UnixSocketTransport
from guest_shim.xenbus import open_device
from guest_shim.xenstore_transport import XenStoreTransport

BOOT_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
SOURCES = sorted(Path(guest_shim.__file__).parent.glob("*.py"))


class Wire:
    """A transport that dom0 can forget, and that can fail."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.known = False
        self.broken = False
        self.closed = False

    def announce(self, boot_id: str, version: str, beats: int) -> None:
        assert (boot_id, version) == (BOOT_ID, VERSION)
        if self.broken:
            raise TransportError("nobody there")
        self.known = True
        self.log.append(("announce", beats))

    def beat(self, beats: int) -> bool:
        if self.broken:
            raise TransportError("broken")
        if self.known:
            self.log.append(("beat", beats))
        return self.known

    def close(self) -> None:
        self.closed = True


def test_it_announces_then_beats() -> None:
    wire = Wire()
    shim = Shim(wire, BOOT_ID)
    for _ in range(3):
        shim.step()
    assert wire.log == [("announce", 1), ("beat", 2), ("beat", 3)]


def test_after_a_restore_it_announces_again_with_its_counter() -> None:
    """R-018: the guest goes on; only dom0 has forgotten it."""
    wire = Wire()
    shim = Shim(wire, BOOT_ID, beats=41)
    shim.step()
    wire.known = False
    shim.step()
    shim.step()
    assert wire.log == [("announce", 42), ("announce", 43), ("beat", 44)]


def test_failures_are_said_once_and_outlived(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    shim = Shim(wire, BOOT_ID)
    wire.broken = True
    for _ in range(5):
        shim.step()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    wire.broken = False
    shim.step()
    assert wire.log == [("announce", 6)]


def test_it_ends_when_its_sleep_says_so() -> None:
    wire = Wire()
    ends = iter([False, False, True])
    Shim(wire, BOOT_ID).run(lambda seconds: next(ends))
    assert [what for what, _ in wire.log] == ["announce", "beat", "beat"]
    assert wire.closed


@pytest.mark.parametrize("written", range(1, 5))
def test_a_guest_that_is_saved_while_it_announces_says_all_again(monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """R-018: dom0's directory is a new one from then on, with only what was written after."""
    store = Store(forget_after=written)
    monkeypatch.setattr(xenstore_transport, "XenBus", lambda _device: store)
    monkeypatch.setattr(xenstore_transport, "XenChannel", Channel)
    shim = Shim(XenStoreTransport(lambda: 0, base="b"), BOOT_ID)
    for _ in range(3):
        shim.step()
    assert store.nodes == {"b/boot-id": BOOT_ID, "b/version": VERSION, "b/beats": "3", "b/hello": "1"}


class Store:
    """A guest's own directory, which is a new one after so many writes."""

    def __init__(self, forget_after: int) -> None:
        self.nodes: dict[str, str] = {}
        self._left = forget_after

    def read(self, path: str) -> bytes | None:
        value = self.nodes.get(path)
        return None if value is None else value.encode()

    def write(self, path: str, value: bytes) -> None:
        self.nodes[path] = value.decode()
        self._left -= 1
        if self._left == 0:
            self.nodes.clear()


class Channel:
    """A channel that nobody uses."""

    def __init__(self, *_: object) -> None: ...

    def restart(self, *, resumed: bool) -> None: ...


def test_transports_by_name() -> None:
    assert isinstance(make_transport("xenstore"), XenStoreTransport)
    assert isinstance(make_transport("auto"), XenStoreTransport)
    assert isinstance(make_transport("vchan"), XenStoreTransport)
    assert isinstance(make_transport("xenstore:/dev/xen/xenbus"), XenStoreTransport)
    assert isinstance(make_transport("unix:/run/x"), UnixSocketTransport)
    for text in ("", "unix:", "tcp:1.2.3.4"):
        with pytest.raises(ValueError, match="neither"):
            make_transport(text)


def test_a_machine_without_xenstore_says_so(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="is this a Xen guest"):
        open_device(str(tmp_path / "xenbus"))
    transport = XenStoreTransport(lambda: open_device(str(tmp_path / "xenbus")))
    assert transport.beat(1) is False
    with pytest.raises(TransportError):
        transport.announce(BOOT_ID, VERSION, 1)


def test_the_program_runs_and_obeys_sigterm(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "guest_shim", "--transport", f"unix:{tmp_path}/none", "--verbose"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES[0].parent.parent)}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        assert "cannot be reached" in process.stderr.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_a_wrong_option_is_explained() -> None:
    argv = [sys.executable, "-m", "guest_shim", "--transport", "pigeon"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES[0].parent.parent)}
    result = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=30, check=False)
    assert result.returncode == 2
    assert "pigeon" in result.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_is_python_3_9_with_the_standard_library_alone(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top == "guest_shim" or top in sys.stdlib_module_names, f"{source.name} imports {name}"
