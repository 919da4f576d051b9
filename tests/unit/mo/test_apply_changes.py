"""ApplyChanges on the real tree: NewConfigs are collected, applied and let go (R-053, R-054, R-060 to R-062)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from dom0_agent.mo.apply_changes import ApplyChangesNode, settle
from dom0_agent.mo.virmo import VirMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.resources.apply import Applied, Wish
from dom0_agent.vm.model import Allocation
from tests.unit.mo.engines import MemoryVms

SERVER = "srv"
EXEC = "./VirMO/Operations/ApplyChanges"
CONFIG = "RAM=268435456&Storage=1048576&CPU=30&Network=10"


class Changes:
    """Notes what it is asked for, and ends with ``result``; never while that is ``None``."""

    def __init__(self) -> None:
        self.result: OperationResult | None = OperationResult(200)
        self.refusal: OperationRefused | None = None
        self.wishes: list[tuple[Wish, Origin | None]] = []

    def submit(self, wish: Wish, origin: Origin | None) -> OperationHandle:
        if self.refusal is not None:
            raise self.refusal
        self.wishes.append((wish, origin))
        handle = OperationHandle(origin)
        if self.result is not None:
            handle.finish(self.result)
        return handle


class Device:
    """A tree with VMs ``a`` and ``b``."""

    def __init__(self) -> None:
        self.changes = Changes()
        vms = MemoryVms()
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        node = ApplyChangesNode(self.tree, self.changes, answer_limit=0.0)
        virmo = VirMO(vms, self.tree.stored_value, lambda: (1, 1), 0.0, apply_changes=node.execute)
        self.tree.mount(virmo)
        self.tree.device_set_acl(("VirMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")
        for name in ("a", "b"):
            self.tree.add(SERVER, f"./VirMO/{name}", ItemValue(format=Format.NODE))

    def vmid(self, name: str) -> UUID:
        return UUID(self.tree.stored_value(("VirMO", name, "VMID")) or "")

    def want(self, name: str, text: str) -> None:
        self.tree.add(SERVER, f"./VirMO/{name}/Resources/NewConfig", ItemValue(text))

    def wanted(self, name: str) -> str | None:
        return self.tree.stored_value(("VirMO", name, "Resources", "NewConfig"))

    def has(self, name: str) -> bool:
        return self.tree.exists(("VirMO", name, "Resources", "NewConfig"))

    def execute(self) -> int:
        return self.tree.execute(SERVER, EXEC, "", "c1")


@pytest.fixture
def device() -> Device:
    return Device()


def test_all_new_configs_are_applied_and_go(device: Device) -> None:
    """R-060, R-062; zero-length ones go too (A-15)."""
    device.want("a", CONFIG + "&CPUCap=50&Colour=dark%20red")
    device.want("b", "")
    assert device.execute() == 200
    ((wish, origin),) = device.changes.wishes
    vendor = (("CPUCap", "50"), ("Colour", "dark red"))
    assert wish.allocations == {device.vmid("a"): Allocation(268435456, 1048576, 30, 10, vendor)}
    assert origin == Origin(SERVER, EXEC, "c1")
    assert not device.has("a")
    assert not device.has("b")


def test_without_any_new_config_there_is_nothing_to_do(device: Device) -> None:
    """A-17."""
    assert device.execute() == 200
    assert device.changes.wishes[0][0] == Wish({}, {})


@pytest.mark.parametrize(
    "text",
    [
        "RAM=1&Storage=1&CPU=1",
        CONFIG + "&CPU=30",
        CONFIG.replace("CPU=30", "CPU=101"),
        CONFIG.replace("Network=10", "Network=101"),
        CONFIG.replace("RAM=268435456", "RAM=-1"),
        CONFIG.replace("RAM=268435456", "RAM=256M"),
        CONFIG.replace("RAM=268435456", "RAM="),
        CONFIG.replace("RAM=268435456", "RAM=9999999999999999999"),
        CONFIG.replace("CPU", "cpu"),
        CONFIG + "&VCPUs=0",
        CONFIG + "&CPUCap=many",
        CONFIG + "&NetworkBps=1.5",
        CONFIG + "&%FF=1",
        "nonsense",
    ],
)
def test_a_malformed_new_config_is_412_and_stays(text: str, device: Device) -> None:
    """A-14, A-18: and no other VM is changed either."""
    device.want("a", CONFIG)
    device.want("b", text)
    with pytest.raises(DMError) as error:
        device.execute()
    assert error.value.status == 412
    assert "./VirMO/b/Resources/NewConfig" in str(error.value)
    assert device.changes.wishes == []
    assert (device.wanted("a"), device.wanted("b")) == (CONFIG, text)


@pytest.mark.parametrize("status", [403, 417, 420])
def test_a_refusal_keeps_all_new_configs(status: int, device: Device) -> None:
    """A-16."""
    device.want("a", CONFIG)
    device.changes.refusal = OperationRefused(status, "no")
    with pytest.raises(DMError) as error:
        device.execute()
    assert error.value.status == status
    assert device.wanted("a") == CONFIG


def test_a_failure_keeps_all_new_configs(device: Device) -> None:
    """A-16."""
    device.want("a", CONFIG)
    device.changes.result = OperationResult(500, "the balloon stands still")
    with pytest.raises(DMError, match="balloon"):
        device.execute()
    assert device.wanted("a") == CONFIG


def test_past_the_answer_limit_it_is_202_and_the_nodes_go_at_the_end(device: Device) -> None:
    """R-121, A-27: but for one that a server has rewritten meanwhile, which is not what was applied."""
    device.want("a", CONFIG)
    device.want("b", CONFIG)
    device.changes.result = None
    assert device.execute() == 202
    ((wish, origin),) = device.changes.wishes
    rewritten = CONFIG.replace("CPU=30", "CPU=31")
    device.tree.replace(SERVER, "./VirMO/b/Resources/NewConfig", ItemValue(rewritten))
    before = device.tree.node(("VirMO", "a", "Resources", "CurrentConfig"))
    settle(device.tree, Applied(OperationResult(200), origin, wish.nodes, (device.vmid("a"),), None))
    assert not device.has("a")
    assert device.wanted("b") == rewritten
    after = device.tree.node(("VirMO", "a", "Resources", "CurrentConfig"))
    assert before is not None
    assert after is not None
    assert after.verno == before.verno + 1
