"""What people and programs see of a running agent's resources: ``virmoctl resources``, its plan, and the metrics."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dom0_agent import virmoctl
from dom0_agent.config import AgentConfig
from dom0_agent.config_schema import parse
from dom0_agent.daemon import Agent
from dom0_agent.images.model import VerifiedImage
from dom0_agent.mo.key_value import format_allocation
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.vm.model import Primitive
from tests.contract.support import MIB, eventually

CONFIG = """
device: {{id: "urn:uuid:1"}}
state_dir: {folder}/state
hypervisor: {{backend: sim}}
control: {{socket: {folder}/control.sock}}
metrics: {{port: {port}}}
vm: {{storage_reserve: 0, default_cpu: 30, default_storage: 2097152, shutdown_wait: 1}}
resources:
  peripherals: [{{device: display, name: Display, group: Input/Output}}]
"""
SERVER = "srv"


class Running:
    """An agent that serves, with VM ``web`` Running and VM ``db`` PoweredOff."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.socket = folder / "control.sock"
        text = CONFIG.format(folder=folder, port=self.port)
        self.agent = Agent(parse(AgentConfig, text, folder / "agent.yaml"))
        kernel = folder / "kernel"
        kernel.write_bytes(b"kernel")
        image = VerifiedImage("img-1", "test", "x86_64", "pvh", 1, 128 * MIB, "", kernel, None, ())
        monkeypatch.setattr(self.agent.images, "verified", lambda _: image)
        self.agent.start()
        self.tree = self.agent.tree
        self.tree.device_set_acl(("VirMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")
        self.web = self._create("web", Primitive.CREATE, Devices="Display")
        self.db = self._create("db", Primitive.CREATE_AND_POWER_OFF)
        self.thread = threading.Thread(target=self.agent.serve)
        self.thread.start()
        eventually(self.socket.exists, 10, "the agent listens")
        eventually(lambda: str(self.db) in self.agent.overview.nodes, 10, "the agent has named the VMs' nodes")

    def _create(self, name: str, primitive: Primitive, **vendor: str) -> UUID:
        self.tree.add(SERVER, f"./VirMO/{name}", ItemValue(format=Format.NODE))
        vmid = UUID(self.tree.stored_value(("VirMO", name, "VMID")) or "")
        result = self.agent.vms.submit(vmid, primitive, img_id="img-1", vendor=vendor).wait(30)
        assert result is not None
        assert result.ok, result.message
        return vmid

    def want(self, name: str, **what: int) -> None:
        """A server's NewConfig."""
        vmid = self.web if name == "web" else self.db
        record = self.agent.vms.get(vmid)
        assert record is not None
        text = format_allocation(replace(record.allocation, **what))  # type: ignore[arg-type]
        uri = f"./VirMO/{name}/Resources/NewConfig"
        (self.tree.replace if self.tree.exists(("VirMO", name, "Resources", "NewConfig")) else self.tree.add)(
            SERVER, uri, ItemValue(text)
        )

    def virmoctl(self, *words: str) -> int:
        return virmoctl.main(["--socket", str(self.socket), *words])

    def close(self) -> None:
        self.agent.stop()
        self.thread.join(30)
        for domain in self.agent.hypervisor.domains():
            self.agent.hypervisor.destroy(domain.uuid)
        self.agent.close()


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    made = Running(tmp_path, monkeypatch)
    yield made
    made.close()


def test_resources_and_their_plan_are_shown(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """Configured, effective and measured, in words and as JSON; the plan is what ApplyChanges would do, or why not."""
    assert running.virmoctl("resources") == 0
    lines = capsys.readouterr().out.splitlines()
    (web,) = [line for line in lines if "./VirMO/web" in line]
    (db,) = [line for line in lines if "./VirMO/db" in line]
    assert "30 %" in web
    assert "300/60" in web
    assert "POWERED_OFF" in db
    assert running.virmoctl("resources", "--json") == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    rows = {row["node"]: row for row in shown["vms"]}
    assert rows["./VirMO/web"]["used"]["memory"] == 128 * MIB
    assert rows["./VirMO/web"]["effective"]["devices"] == ["display", "xvdb"]
    assert rows["./VirMO/web"]["used"]["disk"] >= 2 * MIB
    assert rows["./VirMO/db"]["effective"] == {}

    assert running.virmoctl("resources", "plan") == 0
    assert "no VM has a NewConfig" in capsys.readouterr().out
    running.want("web", cpu=20, storage=3 * MIB)
    running.want("db", ram=64 * MIB)
    assert running.virmoctl("resources", "plan") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"CPU of VM {running.web}: 30 % → 20 %",
        f"RAM of VM {running.db}: {128 * MIB} bytes → {64 * MIB} bytes  (at its next start)",
        f"Storage of VM {running.web}: {2 * MIB} bytes → {3 * MIB} bytes",
    ]
    running.want("web", cpu=71)
    assert running.virmoctl("resources", "plan") == 0
    assert "would be refused (420)" in capsys.readouterr().out
    assert running.agent.vms.get(running.web).allocation.cpu == 30, "to plan changes nothing"  # type: ignore[union-attr]


def test_the_metrics_tell_the_same(running: Running) -> None:
    """On the loopback address, where the configuration asks for it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    web, db = (f'{{vmid="{vmid}"}}' for vmid in (running.web, running.db))
    assert f"virmo_vm_memory_bytes{web} {128 * MIB}" in lines
    assert f"virmo_vm_cpu_share_percent{db} 30" in lines
    assert not [line for line in lines if line.startswith(f"virmo_vm_memory_bytes{db}")]
    name = "virmo_vm_cpu_seconds_total"
    assert [float(line.split()[1]) >= 0 for line in lines if line.startswith(f"{name}{{")] == [True]
