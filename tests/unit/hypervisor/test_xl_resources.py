"""What is asked of xl, losetup and XenStore to share real Xen out, and what is made of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.hypervisor import xl_resources
from dom0_agent.hypervisor.interface import Disk, DomainInfo, DomainState, HypervisorError, NotCapable, Vif
from dom0_agent.hypervisor.resources import MemoryLimits, Scheduling
from dom0_agent.hypervisor.tool import ToolResult
from dom0_agent.hypervisor.xl_resources import XlResources

MIB = 1 << 20
DOMAIN = DomainInfo(UUID("11111111-2222-4333-8444-555555555555"), 7, "virmo-x", DomainState.RUNNING, 128 * MIB, 1, 0.0)
CREDIT2 = """Cpupool Pool-0: ratelimit=1000us
Name                                ID Weight  Cap
virmo-x                              7    256    0
"""


class Store(dict[str, bytes]):
    """XenStore as a flat table."""

    def read(self, path: str) -> bytes | None:
        return self.get(path)

    def write(self, path: str, value: bytes) -> None:
        self[path] = value

    def list(self, path: str) -> tuple[str, ...]:
        below = [key[len(path) + 1 :].split("/")[0] for key in self if key.startswith(path + "/")]
        return tuple(dict.fromkeys(below))


class Tools:
    """Notes calls; ``answers`` maps a command's second word to its output, or to an error."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: dict[str, str | HypervisorError] = {}

    def __call__(self, argv: Sequence[str], deadline: float, call: str) -> ToolResult:
        assert deadline > 0
        self.calls.append(list(argv))
        answer = self.answers.get(argv[1], "")
        if isinstance(answer, HypervisorError):
            raise answer
        return ToolResult(tuple(argv), 0, answer, "")


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def store() -> Store:
    return Store(
        {
            "/local/domain/7/cpu/0/availability": b"online",
            "/local/domain/7/cpu/1/availability": b"offline",
            "/local/domain/7/memory/target": b"131072",
            "/local/domain/7/memory/static-max": b"262144",
            "/local/domain/0/backend/vbd/7/51728/dev": b"xvdb",
            "/local/domain/0/backend/vbd/7/51728/node": b"/dev/loop3",
            "/local/domain/0/backend/vif/7/0/mac": b"00:16:3E:00:00:01",
        }
    )


@pytest.fixture
def resources(store: Store, tools: Tools) -> XlResources:
    return XlResources(store, tools, lambda: "credit2", lambda: None)


def test_without_the_library_xl_sets_and_tells_the_schedulers_parameters(resources: XlResources, tools: Tools) -> None:
    tools.answers["sched-credit2"] = CREDIT2
    assert resources.scheduling(7) == Scheduling(256, 0)
    resources.set_scheduling(7, Scheduling(700, 140))
    assert tools.calls[-1] == ["xl", "sched-credit2", "-d", "7", "-w", "700", "-c", "140"]


def test_a_domain_in_a_cpupool_of_its_own_is_under_that_pools_scheduler(resources: XlResources, tools: Tools) -> None:
    tools.answers["sched-credit2"] = HypervisorError("not in this pool")
    tools.answers["sched-credit"] = CREDIT2
    resources.set_scheduling(7, Scheduling(300, 0))
    assert tools.calls[-1][1] == "sched-credit"


@pytest.mark.parametrize("said", ["", "nonsense", "virmo-x   8   256   0"])
def test_an_answer_that_is_none_is_an_error(said: str, resources: XlResources, tools: Tools) -> None:
    tools.answers |= {"sched-credit2": said, "sched-credit": said}
    with pytest.raises(HypervisorError, match="cannot be understood"):
        resources.scheduling(7)


def test_a_scheduler_without_weights_is_named(store: Store, tools: Tools) -> None:
    tools.answers |= {name: HypervisorError("no") for name in ("sched-credit", "sched-credit2")}
    with pytest.raises(NotCapable, match=r"null.*sched=credit2"):
        XlResources(store, tools, lambda: "null", lambda: None).scheduling(7)


def test_vcpus_are_what_dom0_has_written_of_them(resources: XlResources, store: Store) -> None:
    assert resources.vcpus(DOMAIN) == (1, 2)
    resources.set_vcpus(DOMAIN, 2)
    assert store["/local/domain/7/cpu/1/availability"] == b"online"


def test_an_emulated_machine_is_told_of_vcpus_by_xl(resources: XlResources, store: Store, tools: Tools) -> None:
    store["/local/domain/0/device-model/7/state"] = b"running"
    resources.set_vcpus(DOMAIN, 2)
    assert tools.calls == [["xl", "vcpu-set", "7", "2"]]


def test_memory_is_told_in_kibibytes_and_set_in_mebibytes(resources: XlResources, tools: Tools) -> None:
    assert resources.memory(DOMAIN) == MemoryLimits(128 * MIB, 256 * MIB)
    resources.set_memory_target(DOMAIN, 100 * MIB)
    resources.set_memory_maximum(DOMAIN, 300 * MIB)
    assert tools.calls == [["xl", "mem-set", "7", "100m"], ["xl", "mem-max", "7", "300m"]]


def test_a_number_that_is_none_is_an_error(resources: XlResources, store: Store) -> None:
    store["/local/domain/7/memory/target"] = b"lots"
    with pytest.raises(HypervisorError, match="memory/target"):
        resources.memory(DOMAIN)


def test_a_disk_is_resized_through_its_loop_device(
    resources: XlResources, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xl_resources, "BLOCK_DEVICES", tmp_path)
    (tmp_path / "loop3").mkdir()
    (tmp_path / "loop3" / "size").write_text("4096\n")
    resources.resize_disk(DOMAIN, "xvdb")
    assert tools.calls == [["losetup", "-c", "/dev/loop3"]]
    assert resources.disk_size(DOMAIN, "xvdb") == 2 * MIB


@pytest.mark.parametrize("node", [b"", b"/dev/sda1", b"/dev/loop3/../sda"])
def test_only_a_loop_device_is_resized(node: bytes, resources: XlResources, store: Store) -> None:
    store["/local/domain/0/backend/vbd/7/51728/node"] = node
    with pytest.raises(HypervisorError, match="not on a loop device"):
        resources.resize_disk(DOMAIN, "xvdb")


def test_devices_come_and_go_by_xl(resources: XlResources, tools: Tools) -> None:
    assert resources.attached(DOMAIN) == {"xvdb", "00:16:3e:00:00:01"}
    disk, vif = Disk(Path("/vms/x/xvdb.raw"), "xvdb"), Vif("00:16:3e:00:00:01", "xenbr0")
    resources.attach(DOMAIN, disk)
    resources.attach(DOMAIN, vif)
    resources.detach(DOMAIN, disk, force=False)
    resources.detach(DOMAIN, disk, force=True)
    resources.detach(DOMAIN, vif, force=False)
    assert tools.calls == [
        ["xl", "block-attach", "7", "format=raw,vdev=xvdb,access=w,target=/vms/x/xvdb.raw"],
        ["xl", "network-attach", "7", "mac=00:16:3e:00:00:01", "bridge=xenbr0"],
        ["xl", "block-detach", "7", "xvdb"],
        ["xl", "block-detach", "--force", "7", "xvdb"],
        ["xl", "network-detach", "7", "00:16:3e:00:00:01"],
    ]


def test_only_interfaces_that_are_there_are_told(
    resources: XlResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xl_resources, "NETWORK_DEVICES", tmp_path)
    assert resources.interfaces(DOMAIN) == ()
    for name in ("vif7.0", "vif7.0-emu", "vif8.0"):
        (tmp_path / name).mkdir()
    assert resources.interfaces(DOMAIN) == ("vif7.0", "vif7.0-emu")
