"""How a restart of dom0 is begun: by the init system's own program, whose refusal is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.firmware.service import RestartFailed
from dom0_agent.firmware.wiring import restart_dom0


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "systemctl"


def program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_it_is_asked_for_and_not_waited_for(systemctl: Path) -> None:
    program(systemctl, f'echo "$@" >{systemctl.parent}/asked')
    restart_dom0()
    assert (systemctl.parent / "asked").read_text() == "reboot --no-block\n"


def test_a_refusal_is_told_in_its_own_words(systemctl: Path) -> None:
    program(systemctl, "echo Access denied >&2; exit 1")
    with pytest.raises(RestartFailed, match="Access denied"):
        restart_dom0()


def test_without_an_init_system(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(systemctl.parent))
    with pytest.raises(RestartFailed, match="systemctl"):
        restart_dom0()
