"""The files laid over Debian's in dom0 and in the guest: scripts parse, units point at what is there, no secrets."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest

import image
from image import dom0
from image.errors import ImageError

FILES = Path(str(image.__file__)).parent / "files"
SCRIPTS = [path for path in sorted(FILES.rglob("*")) if path.is_file() and path.read_bytes().startswith(b"#!")]
UNITS = sorted((FILES / "dom0/etc/systemd/system").rglob("*.service"))


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_parse(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_have_a_description_and_a_program(path: Path) -> None:
    found = unit(path)
    assert found["Unit"]["Description"]
    assert found["Service"]["ExecStart"].startswith("/")


def test_the_agent_starts_after_xen_and_only_with_a_configuration() -> None:
    found = unit(FILES / "dom0/etc/systemd/system/virmo-agent.service")
    assert "xen.service" in found["Unit"]["After"].split()
    assert found["Service"]["ExecStart"] == "/usr/bin/virmo-agent --config /etc/virmo-agent/agent.yaml run"
    assert (
        "ConditionPathExists=/etc/virmo-agent/agent.yaml"
        in (FILES / "dom0/etc/systemd/system/virmo-agent.service").read_text()
    )


def test_nobody_logs_in_with_a_password() -> None:
    settings = (FILES / "dom0/etc/ssh/sshd_config.d/virmo.conf").read_text().splitlines()
    assert "PasswordAuthentication no" in settings
    assert "PermitRootLogin prohibit-password" in settings


def test_autoballoon_is_off() -> None:
    assert 'autoballoon="off"' in (FILES / "dom0/etc/xen/xl.conf").read_text().splitlines()


def debian_tree(root: Path, started: str = "QEMU=/usr/libexec/xen-qemu-system-i386") -> None:
    """As much of Debian as is settled."""
    for folder in ("etc/init.d", "usr", "var/lib", "root"):
        (root / folder).mkdir(parents=True)
    (root / "etc/init.d/xen").write_text(f'#!/bin/sh\n{started}\n[ -x "$QEMU" ] && exec "$QEMU"\n')


def test_files_are_settled_into_a_tree(tmp_path: Path) -> None:
    debian_tree(tmp_path)
    dom0.settle(tmp_path, "ssh-ed25519 AAAA somebody")
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants/virmo-agent.service"
    assert str(wants.readlink()) == "/etc/systemd/system/virmo-agent.service"
    assert str((tmp_path / "etc/systemd/system/xendomains.service").readlink()) == "/dev/null"
    assert (tmp_path / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "var/lib/virmo-agent").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/.updated").stat().st_mtime == (tmp_path / "usr").stat().st_mtime


def test_without_a_key_nobody_is_let_in(tmp_path: Path) -> None:
    debian_tree(tmp_path)
    dom0.settle(tmp_path, "")
    assert not (tmp_path / "root/.ssh").exists()


def test_xen_starts_no_device_model_for_dom0(tmp_path: Path) -> None:
    """One is installed, for hvm guests. Where Debian starts it otherwise, the build fails instead of wasting memory."""
    debian_tree(tmp_path / "root")
    dom0.settle(tmp_path / "root", "")
    script = tmp_path / "root/etc/init.d/xen"
    assert subprocess.run(["sh", script], check=False).returncode == 1
    assert "exec" in script.read_text()
    debian_tree(tmp_path / "changed", started="QEMU=/usr/bin/another")
    with pytest.raises(ImageError, match=r"etc/init\.d/xen has changed"):
        dom0.settle(tmp_path / "changed", "")
