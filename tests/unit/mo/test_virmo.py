"""The Virtualisation MO on the real tree: nodes, access, VMID, primitives (OMA-ER-VirMO 8, 10.2, 10.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from dom0_agent.mo.virmo import VirMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tnds import XML_TYPE, TndsNode, encode_tnds
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.operation import OperationResult, Origin
from dom0_agent.vm.model import Primitive, SuspendKind, VmRecord, VmState
from tests.unit.mo.engines import MemoryVms

SERVER = "srv"
NODE = ItemValue(format=Format.NODE)
CONFIG = "RAM=1073741824&Storage=0&CPU=10&Network=10"


class Device:
    """A tree with VirMO on engines in memory."""

    def __init__(self) -> None:
        self.vms = MemoryVms()
        self.tree = ManagementTree(MemoryNodeStore(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tree.mount(VirMO(self.vms, self.tree.stored_value, lambda: (1 << 33, 1 << 36), answer_limit=0.0))
        self.tree.device_set_acl(("VirMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")

    def add(self, uri: str, value: ItemValue = NODE) -> None:
        self.tree.add(SERVER, uri, value)

    def replace(self, uri: str, text: str) -> None:
        self.tree.replace(SERVER, uri, ItemValue(text))

    def get(self, uri: str) -> str:
        (result,) = self.tree.get(SERVER, uri)
        assert isinstance(result.value.data, str)
        return result.value.data

    def children(self, uri: str) -> set[str]:
        return set(filter(None, self.get(uri).split("/")))

    def execute(self, uri: str, correlator: str | None = None) -> int:
        return self.tree.execute(SERVER, uri, "", correlator)

    def created(self, name: str = "a") -> None:
        self.add(f"./VirMO/{name}")
        self.replace(f"./VirMO/{name}/CreateParams", "ImgID=i1")
        assert self.execute(f"./VirMO/{name}/Operations/Create") == 200


@pytest.fixture
def device() -> Device:
    return Device()


def status_of(call: object, *arguments: object) -> int:
    assert callable(call)
    with pytest.raises(DMError) as caught:
        call(*arguments)
    return caught.value.status


def test_the_root_carries_its_moid(device: Device) -> None:
    """R-031, VirMO-T-001."""
    assert device.get("./VirMO?prop=Type") == "urn:oma:mo:oma-virmo:1.0"


def test_required_nodes_are_made_with_the_entry(device: Device) -> None:
    """R-112, R-113, VirMO-T-002, A-23."""
    device.add("./VirMO/a")
    assert device.children("./VirMO") == {"a", "Operations", "DeviceResources"}
    assert device.children("./VirMO/a") == {
        "VMID", "Description", "State", "CreateParams", "Resources", "Operations", "UI", "Ext",
    }  # fmt: skip
    assert device.children("./VirMO/a/Operations") == {
        "Create", "Delete", "Suspend", "Resume", "PowerOn", "PowerOff", "ExecUICmd",
    }  # fmt: skip
    assert device.get("./VirMO/a/Resources") == "CurrentConfig"


def test_vmid_is_assigned_by_the_client_and_unique(device: Device) -> None:
    """R-032, R-033, R-114, VirMO-C-001."""
    device.add("./VirMO/a")
    device.add("./VirMO/b")
    vmids = {UUID(device.get("./VirMO/a/VMID")), UUID(device.get("./VirMO/b/VMID"))}
    assert vmids == set(device.vms.records)
    assert len(vmids) == 2


def test_a_new_entry_is_not_created_and_holds_nothing(device: Device) -> None:
    """R-115, A-12."""
    device.add("./VirMO/a")
    assert device.get("./VirMO/a/State") == "0"
    assert device.get("./VirMO/a/State?prop=Format") == "int"
    assert device.get("./VirMO/a/Resources/CurrentConfig") == "RAM=0&Storage=0&CPU=0&Network=0"


def test_vmid_survives_a_rename(device: Device) -> None:
    """A-25."""
    device.created()
    vmid = device.get("./VirMO/a/VMID")
    device.replace("./VirMO/a?prop=Name", "b")
    assert device.get("./VirMO/b/VMID") == vmid
    assert device.get("./VirMO/b/State") == "2"


@pytest.mark.parametrize("name", ["Operations", "DeviceResources"])
def test_names_of_siblings_are_reserved(device: Device, name: str) -> None:
    """A-24."""
    assert status_of(device.add, f"./VirMO/{name}") == 418


@pytest.mark.parametrize("leaf", ["VMID", "State", "Resources/CurrentConfig"])
def test_client_owned_leaves_cannot_be_replaced(device: Device, leaf: str) -> None:
    """R-034, A-05."""
    device.add("./VirMO/a")
    assert status_of(device.replace, f"./VirMO/a/{leaf}", "1") == 405


def test_device_resources_are_told(device: Device) -> None:
    """R-064 to R-066, A-54."""
    assert device.get("./VirMO/DeviceResources") == "RAM=8589934592&Storage=68719476736"
    assert status_of(device.replace, "./VirMO/DeviceResources", "RAM=1") == 405


@pytest.mark.parametrize(
    ("params", "primitive", "state"),
    [
        ("ImgID=i1", Primitive.CREATE, VmState.RUNNING),
        ("ImgID=i1&Running=true", Primitive.CREATE, VmState.RUNNING),
        ("ImgID=i1&Running=false", Primitive.CREATE_AND_POWER_OFF, VmState.POWERED_OFF),
    ],
)
def test_create_follows_create_params(device: Device, params: str, primitive: Primitive, state: VmState) -> None:
    """R-041 to R-043, R-056, R-119, R-120, VirMO-C-003."""
    device.add("./VirMO/a")
    device.replace("./VirMO/a/CreateParams", params)
    assert device.execute("./VirMO/a/Operations/Create") == 200
    assert device.vms.submitted[0][:2] == (primitive, "i1")
    assert device.get("./VirMO/a/State") == str(int(state))


def test_create_params_may_be_set_by_add_once(device: Device) -> None:
    """A-23."""
    device.add("./VirMO/a")
    device.add("./VirMO/a/CreateParams", ItemValue("ImgID=i1"))
    assert device.get("./VirMO/a/CreateParams") == "ImgID=i1"
    assert status_of(device.add, "./VirMO/a/CreateParams", ItemValue("ImgID=i2")) == 418


def test_bad_create_params_are_412_at_create(device: Device) -> None:
    """A-20."""
    device.add("./VirMO/a")
    device.replace("./VirMO/a/CreateParams", "nonsense")
    assert status_of(device.execute, "./VirMO/a/Operations/Create") == 412
    assert device.get("./VirMO/a/State") == "0"


@pytest.mark.parametrize("operation", ["Delete", "Suspend", "Resume", "PowerOn", "PowerOff"])
def test_wrong_states_are_405(device: Device, operation: str) -> None:
    """A-07, A-08."""
    device.add("./VirMO/a")
    assert status_of(device.execute, f"./VirMO/a/Operations/{operation}") == 405
    assert device.get("./VirMO/a/State") == "0"


def test_each_operation_is_its_primitive(device: Device) -> None:
    """R-058, VirMO-C-002, C-005 to C-008."""
    device.created()
    states = []
    for operation in ("Suspend", "Resume", "PowerOff", "PowerOn"):
        assert device.execute(f"./VirMO/a/Operations/{operation}") == 200
        states.append(device.get("./VirMO/a/State"))
    assert states == ["3", "2", "1", "2"]


def test_delete_takes_the_sub_tree_with_it(device: Device) -> None:
    """R-124, R-125, A-06, VirMO-C-004."""
    device.created()
    assert device.execute("./VirMO/a/Operations/Delete") == 200
    assert status_of(device.get, "./VirMO/a") == 404
    assert device.vms.records == {}


def test_a_failed_operation_keeps_sub_tree_and_state(device: Device) -> None:
    """R-012, A-08."""
    device.created()
    device.vms.result = OperationResult(500, "xl destroy failed")
    assert status_of(device.execute, "./VirMO/a/Operations/Delete") == 500
    assert device.get("./VirMO/a/State") == "2"


def test_a_long_operation_is_answered_202_and_carries_its_origin(device: Device) -> None:
    """R-121, A-27."""
    device.created()
    device.vms.result = None
    assert device.execute("./VirMO/a/Operations/Suspend", "c1") == 202
    assert device.vms.submitted[-1][3] == Origin(SERVER, "./VirMO/a/Operations/Suspend", "c1")


def test_dm_delete_leaves_an_entry_whose_vm_is_being_created(device: Device) -> None:
    """A-07, R-012: Create would end with a VM that no node stands for, and no server could manage."""
    device.add("./VirMO/a")
    device.replace("./VirMO/a/CreateParams", "ImgID=i1")
    device.vms.result = None
    assert device.execute("./VirMO/a/Operations/Create") == 202
    assert status_of(device.tree.delete, SERVER, "./VirMO/a") == 417
    assert device.get("./VirMO/a/State") == "0"
    assert len(device.vms.records) == 1


def test_dm_delete_removes_only_entries_that_were_never_created(device: Device) -> None:
    """A-07."""
    device.add("./VirMO/a")
    device.tree.delete(SERVER, "./VirMO/a")
    assert device.vms.records == {}
    device.created("b")
    assert status_of(device.tree.delete, SERVER, "./VirMO/b") == 405
    assert device.get("./VirMO/b/State") == "2"


def test_operation_nodes_are_exec_only(device: Device) -> None:
    """A-04."""
    device.add("./VirMO/a")
    assert status_of(device.get, "./VirMO/a/Operations/Create") == 405


def test_a_rolled_back_add_leaves_no_entry(device: Device) -> None:
    """R-010: what the engine made for the Atomic is undone with it."""
    with device.tree.atomic() as atomic:
        device.add("./VirMO/a")
        assert atomic.rollback() == [True]
    assert device.vms.records == {}
    assert status_of(device.get, "./VirMO/a") == 404


def test_a_rolled_back_delete_keeps_the_entry(device: Device) -> None:
    device.add("./VirMO/a")
    vmid = device.get("./VirMO/a/VMID")
    with device.tree.atomic() as atomic:
        device.tree.delete(SERVER, "./VirMO/a")
        atomic.rollback()
    assert device.get("./VirMO/a/VMID") == vmid
    assert UUID(vmid) in device.vms.records


def test_new_config_can_be_added_and_deleted(device: Device) -> None:
    """R-053, A-03."""
    device.add("./VirMO/a")
    device.add("./VirMO/a/Resources/NewConfig", ItemValue("RAM=1&Storage=0&CPU=0&Network=0"))
    assert device.children("./VirMO/a/Resources") == {"CurrentConfig", "NewConfig"}
    device.tree.delete(SERVER, "./VirMO/a/Resources/NewConfig")
    assert device.children("./VirMO/a/Resources") == {"CurrentConfig"}


def test_a_correlator_free_exec_needs_the_servers_right(device: Device) -> None:
    device.created()
    device.tree.device_set_acl(("VirMO",), "Add=*&Get=*&Exec=other")
    assert status_of(device.execute, "./VirMO/a/Operations/Suspend") == 425


def test_vendor_nodes_tell_what_the_specification_does_not(device: Device) -> None:
    """R-068: how the VM is suspended, its domain's UUID, progress, last error; 404 where there is nothing to tell."""
    device.add("./VirMO/a")
    vmid = next(iter(device.vms.records))
    nodes = ("DomainUUID", "SuspendKind", "RunningStep", "Progress", "LastError")
    assert {status_of(device.get, f"./VirMO/a/Ext/{name}") for name in nodes} == {404}
    device.vms.records[vmid] = VmRecord(
        vmid, VmState.SUSPENDED, running_step="saving", progress=40, last_error="oops", suspend_kind=SuspendKind.SAVE
    )
    assert {name: device.get(f"./VirMO/a/Ext/{name}") for name in nodes} == {
        "DomainUUID": str(vmid),
        "SuspendKind": "save",
        "RunningStep": "saving",
        "Progress": "40",
        "LastError": "oops",
    }


def test_a_whole_entry_comes_as_one_document(device: Device) -> None:
    """A-23, R-112 to R-115: TNDS; what the client owns stays the client's, whatever the document says of it."""
    leaves = {"Description": "the web", "CreateParams": "ImgID=i1", "VMID": "chosen by the server"}
    document = TndsNode(
        "web",
        Format.NODE,
        children=(
            *(TndsNode(name, Format.CHR, "text/plain", value) for name, value in leaves.items()),
            TndsNode("State", Format.INT, "text/plain", "2"),
            TndsNode(
                "Resources",
                Format.NODE,
                children=(
                    TndsNode("CurrentConfig", Format.CHR, "text/plain", CONFIG),
                    TndsNode("NewConfig", Format.CHR, "text/plain", CONFIG),
                ),
            ),
        ),
    )
    device.add("./VirMO", ItemValue(encode_tnds([document]), Format.XML, XML_TYPE))
    (vmid,) = device.vms.records
    assert device.get("./VirMO/web/VMID") == str(vmid)
    assert device.get("./VirMO/web/State") == "0"
    assert device.get("./VirMO/web/Resources/CurrentConfig") == "RAM=0&Storage=0&CPU=0&Network=0"
    assert device.get("./VirMO/web/Resources/NewConfig") == CONFIG
    assert device.get("./VirMO/web/Description") == "the web"
    assert device.execute("./VirMO/web/Operations/Create") == 200
    assert device.vms.submitted[-1][:2] == (Primitive.CREATE, "i1")


def test_a_document_with_a_mistake_makes_no_entry(device: Device) -> None:
    """All or nothing: a node that VirMO does not have, and a reserved name (A-24)."""
    unknown = TndsNode("web", Format.NODE, children=(TndsNode("Colour", Format.CHR, "text/plain", "red"),))
    reserved = TndsNode("DeviceResources", Format.CHR, "text/plain", "RAM=1")
    for document in (unknown, reserved):
        value = ItemValue(encode_tnds([document]), Format.XML, XML_TYPE)
        assert status_of(device.add, "./VirMO", value) >= 400
    assert device.vms.records == {}
    assert device.children("./VirMO") == {"Operations", "DeviceResources"}
