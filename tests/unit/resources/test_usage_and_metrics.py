"""What virmoctl shows of resources, the plan as a value, and the Prometheus endpoint."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.resources.config import MetricsConfig
from dom0_agent.resources.metrics import MetricsServer, render
from dom0_agent.resources.usage import Usage
from dom0_agent.resources.views import show_plan, show_usage
from dom0_agent.store.database import Database
from dom0_agent.store.vms import VmTable
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.model import Primitive
from tests.contract.support import MIB, Rig, SimBackend

ROW = {
    "vmid": "11111111-2222-4333-8444-555555555555",
    "node": "./VirMO/a",
    "state": "RUNNING",
    "configured": {"ram": 268435456, "storage": 0, "cpu": 70, "network": 10, "CPUCap": "50"},
    "effective": {"weight": 700, "cap": 50, "vcpus": 2, "max_vcpus": 2},
    "used": {
        "disk": 4096,
        "cpu_seconds": 1.5,
        "memory": 268435456,
        "vcpus": 1,
        "rate": 8000000,
        "bytes_up": 10,
        "bytes_down": 20,
        "dropped_up": 0,
        "dropped_down": 3,
    },
}
DEVICE = {"cpus": 2, "scheduler": "credit2", "ram": 1 << 32, "storage": 1 << 34, "free_memory": 1 << 31}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    backend = SimBackend(tmp_path, HostSettings(beat_interval=0.05))
    config = VmConfig(storage_reserve=0, default_storage=2 * MIB, default_cpu=30)
    opened = Rig(backend, backend.hypervisor, Database(tmp_path / "agent.db"), config, tmp_path)
    opened.engine.start()
    yield opened
    opened.stop()
    backend.close()


def test_each_vm_has_what_was_asked_for_what_was_set_and_what_it_uses(rig: Rig) -> None:
    running = rig.running()
    off = rig.engine.add()
    assert rig.do(off, Primitive.CREATE_AND_POWER_OFF).ok
    usage = Usage(VmTable(rig.database), rig.hypervisor, rig.sharing)
    first, second = usage.vms()
    assert (first["vmid"], first["configured"]["cpu"]) == (str(running), 30)
    assert first["effective"]["weight"] == 300
    assert first["effective"]["devices"] == ["xvda", "xvdb"]
    assert first["used"]["memory"] == rig.backend.image.memory
    assert first["used"]["disk"] >= 2 * MIB
    assert (second["vmid"], second["effective"]) == (str(off), {})
    assert "memory" not in second["used"]
    assert usage.device()["ram"] == rig.sharing.admission.device().ram
    shown = show_usage({"device": usage.device(), "running_step": None, "vms": [{"node": None, **first}]})
    assert "300/60" in shown


def test_people_see_a_line_a_vm_and_what_apply_changes_is_doing() -> None:
    shown = show_usage({"device": DEVICE, "running_step": "RAM of VM x", "vms": [ROW]})
    assert "ApplyChanges: RAM of VM x" in shown
    line = shown.splitlines()[-1]
    for word in ("./VirMO/a", "RUNNING", "70 %", "700/50", "1 of 2", "1.5 s", "10 % = 8 Mbit/s"):
        assert word in line
    assert "no VMs" in show_usage({"device": DEVICE, "running_step": None, "vms": []})


def test_a_plan_is_its_steps_or_why_there_is_none() -> None:
    assert show_plan({"refused": None, "status": 200, "steps": ["a", "b"]}) == "a\nb"
    assert "no VM has a NewConfig" in show_plan({"refused": None, "status": 200, "steps": []})
    assert "(420): too much" in show_plan({"refused": "too much", "status": 420, "steps": []})


def test_metrics_are_prometheus_text() -> None:
    lines = render(DEVICE, [ROW]).splitlines()
    label = f'vmid="{ROW["vmid"]}"'
    assert f"virmo_vm_cpu_seconds_total{{{label}}} 1.5" in lines
    assert f'virmo_vm_network_bytes_total{{{label},direction="down"}} 20' in lines
    assert f'virmo_vm_network_dropped_total{{{label},direction="down"}} 3' in lines
    assert lines.count("# TYPE virmo_vm_network_bytes_total counter") == 1
    stopped = {**ROW, "effective": {}, "used": {"disk": 4096}}
    assert "virmo_vm_memory_bytes{" not in render(DEVICE, [stopped])


def test_the_endpoint_serves_metrics_and_nothing_else() -> None:
    def broken() -> str:
        raise HypervisorError("no answer")

    for text, path, status in ((lambda: "x 1\n", "/metrics", 200), (lambda: "", "/", 404), (broken, "/metrics", 503)):
        server = MetricsServer(MetricsConfig("127.0.0.1", 0), text)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
                assert (answer.status, answer.read()) == (status, b"x 1\n")
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        except urllib.error.HTTPError as error:
            assert error.code == status
            error.close()
        finally:
            server.close()
