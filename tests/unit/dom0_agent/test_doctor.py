"""The doctor: each thing that is wrong is seen, and comes with what to do."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from dom0_agent import cli, doctor
from dom0_agent.config import AccountConfig, AgentConfig, CredentialConfig
from dom0_agent.config_schema import parse
from dom0_agent.doctor import CHECKS, Finding, Level, examine
from dom0_agent.hypervisor import xl_devices
from dom0_agent.resources.peripheral_names import PeripheralName
from dom0_agent.transport.tls import TlsConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "agent.yaml"
    made.touch(mode=0o600)
    made.write_text(
        f'device: {{id: "urn:uuid:1"}}\nstate_dir: {tmp_path / "state"}\n'
        "hypervisor: {backend: sim}\nimages: {reserve: 0}\n"
    )
    return made


@pytest.fixture
def config(file: Path) -> AgentConfig:
    return parse(AgentConfig, file.read_bytes(), file)


def found(config: AgentConfig, file: Path) -> dict[str, Finding]:
    return dict(examine(config, file))


def with_server(config: AgentConfig, port: int, ca_file: Path | None = None) -> AgentConfig:
    account = AccountConfig(
        "srv",
        f"https://127.0.0.1:{port}/dm",
        CredentialConfig("board", "s"),
        CredentialConfig("srv", "t"),
        TlsConfig(ca_file=ca_file),
    )
    return replace(config, dm=replace(config.dm, accounts=(account,)))


def test_a_healthy_board_has_nothing_to_mend(config: AgentConfig, file: Path) -> None:
    findings = found(config, file)
    assert {name for name, finding in findings.items() if finding.level is Level.FAIL} == set()
    assert findings["DM servers"].level is Level.WARN  # nobody can manage it yet


def test_secrets_that_others_can_read_are_a_failure(config: AgentConfig, file: Path) -> None:
    file.chmod(0o644)
    finding = found(config, file)["configuration file"]
    assert (finding.level, finding.remedy) == (Level.FAIL, f"chmod 0600 {file}")


def test_a_full_disk_is_a_failure(config: AgentConfig, file: Path) -> None:
    full = replace(config, images=replace(config.images, reserve=1 << 60))
    assert found(full, file)["free space"].level is Level.FAIL


def test_missing_programs_are_named_with_their_package(
    config: AgentConfig, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    finding = found(config, file)["tools"]
    assert finding.level is Level.FAIL
    assert "zstd (zstd)" in finding.remedy


def test_an_unreachable_server_is_a_failure(config: AgentConfig, file: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        finding = found(with_server(config, closed.getsockname()[1]), file)["DM servers"]
    assert finding.level is Level.FAIL
    assert "srv at 127.0.0.1" in finding.seen


def test_a_missing_ca_file_is_a_failure(config: AgentConfig, file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        finding = found(with_server(config, port, tmp_path / "none.pem"), file)["DM servers"]
    assert finding.level is Level.FAIL
    assert "none.pem" in finding.seen


def test_without_xen_every_failure_says_what_to_do(config: AgentConfig, file: Path) -> None:
    """This machine is no dom0: what the doctor says of it must help, not crash."""
    bare = replace(config, hypervisor=replace(config.hypervisor, backend="xl"))
    findings = found(bare, file)
    assert len(findings) == len(CHECKS)
    assert findings["Xen"].level is Level.FAIL
    assert all(finding.remedy for finding in findings.values() if finding.level is not Level.OK)


def test_the_command_prints_and_tells_by_its_exit_status(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(file), "doctor"]) == 0
    assert "OK    tools:" in capsys.readouterr().out
    file.chmod(0o644)
    assert cli.main(["--config", str(file), "doctor", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows if row["level"] == "fail"] == ["configuration file"]


def test_a_configuration_that_cannot_be_used_is_exit_status_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("device: 5\n")
    assert cli.main(["--config", str(file), "doctor"]) == 2
    assert "line 1: device: expected a mapping, got 5" in capsys.readouterr().err


def test_a_missing_device_model_is_told_with_what_cannot_start(
    config: AgentConfig, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a warning: pv and pvh guests need none, and Arm has no hvm."""
    x86: Literal["x86_64"] = "x86_64"
    arm: Literal["arm64"] = "arm64"
    for arch, found, level in ((x86, False, Level.WARN), (x86, True, Level.OK), (arm, False, Level.OK)):
        program = tmp_path / f"model-{found}"
        if found:
            program.touch()
        monkeypatch.setattr(doctor, "_DEVICE_MODELS", (program,))
        asked = replace(config, images=replace(config.images, arch=arch))
        finding = doctor._device_model(asked, file)
        assert finding.level is level
        assert bool(finding.remedy) == (level is Level.WARN)


def test_devices_that_cannot_be_given_to_vms_are_told(
    config: AgentConfig, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HLF-06: a PCI device that is not bound to pciback is to be mended, an empty USB port may be meant so."""
    monkeypatch.setattr(xl_devices, "ASSIGNABLE", tmp_path / "pciback")
    monkeypatch.setattr(xl_devices, "USB_DEVICES", tmp_path / "usb")
    monkeypatch.setattr(doctor, "CHECKS", [c for c in CHECKS if c.name == "peripherals"])
    names = (
        PeripheralName("pci:0000:03:00.0", "Wi-Fi"),
        PeripheralName("usb:1-2", "NFC"),
        PeripheralName("vif0", "LAN"),
    )
    config = replace(
        config,
        hypervisor=replace(config.hypervisor, backend="xl"),
        resources=replace(config.resources, peripherals=names),
    )
    finding = found(config, file)["peripherals"]
    assert (finding.level, "xl pci-assignable-add 0000:03:00.0" in finding.remedy) == (Level.FAIL, True)
    (tmp_path / "pciback" / "0000:03:00.0").mkdir(parents=True)
    finding = found(config, file)["peripherals"]
    assert (finding.level, "NFC (port 1-2)" in finding.seen) == (Level.WARN, True)
    port = tmp_path / "usb" / "1-2"
    port.mkdir(parents=True)
    for leaf in ("busnum", "devnum"):
        (port / leaf).write_text("1")
    assert found(config, file)["peripherals"] == Finding(Level.OK, "Wi-Fi, NFC, LAN")
