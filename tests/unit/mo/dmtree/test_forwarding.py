"""Objects below VirMO/<x>/DMTree: found by MOID, kept in dom0, forwarded to the shim (11.2, VirMO-C-009-O)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0_agent.mo.dmtree.lawmo_nodes import LAWMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.vm.model import VmState
from guest_shim.dispatch import Answer, Dispatcher, Request, ServedObject
from tests.unit.mo.dmtree.guests_testing import SERVER, GuestDevice, status_of

URI = "./VirMO/a/DMTree/LAWMO"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[GuestDevice]:
    made = GuestDevice(tmp_path)
    yield made
    made.settle()
    made.close()


class Shim:
    """A shim that serves LAWMO and does as it is told here."""

    def __init__(self) -> None:
        self.nodes: dict[str, object] = {"State": "30"}
        self.answer = Answer(1200)
        self.gate: threading.Event | None = None
        self.configured: list[dict[str, str]] = []
        self.executed: list[str] = []
        self.payload: bytes | None = None
        operations = tuple("/".join(path) for path in LAWMO.forwarded)
        self.dispatcher = Dispatcher([ServedObject(LAWMO.moid, ("State",), operations)])
        self.dispatcher.add("read", self._read)
        self.dispatcher.add("configure", self._configure)
        self.dispatcher.add("exec", self._exec)

    def _read(self, request: Request) -> Answer:
        assert request.fields == {"moid": LAWMO.moid}
        return Answer(payload=json.dumps(self.nodes).encode() if self.payload is None else self.payload)

    def _configure(self, request: Request) -> Answer:
        self.configured.append(json.loads(request.payload))
        return Answer()

    def _exec(self, request: Request) -> Answer:
        self.executed.append(request.fields["node"])
        if self.gate is not None:
            self.gate.wait(20)
        return self.answer


def test_nothing_can_be_added_below_dmtree_before_the_vm_is_created(device: GuestDevice) -> None:
    """R-143, A-40: 405 in NotCreated; DMTree itself may be there, and comes by itself afterwards (R-141)."""
    device.add("./VirMO/b")
    moid = ItemValue(format=Format.NODE, type=LAWMO.moid)
    assert status_of(device.tree.add, SERVER, "./VirMO/b/DMTree/LAWMO", moid) == 405
    assert status_of(device.get, "./VirMO/b/DMTree") == 404
    device.add("./VirMO/b/DMTree")
    assert status_of(device.tree.add, SERVER, "./VirMO/b/DMTree/x", ItemValue("text")) == 405
    assert device.get("./VirMO/b/DMTree") == ""
    device.add_object("LAWMO", LAWMO)
    assert device.children("./VirMO/a/DMTree") == {"LAWMO"}


def test_an_object_is_found_by_its_moid_not_its_name(device: GuestDevice) -> None:
    """A-42, R-144."""
    device.connect()
    uri = device.add_object("whatever", LAWMO)
    assert device.get(f"{uri}?prop=Type") == LAWMO.moid
    assert device.execute(f"{uri}/Operations/FullyLock") == 1200
    assert device.get(f"{uri}/State") == "10"


def test_an_unknown_moid_is_plain_storage(device: GuestDevice) -> None:
    """A-42."""
    device.add("./VirMO/a/DMTree/X", ItemValue(format=Format.NODE, type="urn:vendor:mo:x:1.0"))
    device.add("./VirMO/a/DMTree/X/Setting", ItemValue("1"))
    device.replace("./VirMO/a/DMTree/X/Setting", "2")
    device.tree.copy(SERVER, "./VirMO/a/DMTree/X/Setting", "./VirMO/a/DMTree/X/Other")
    assert device.get("./VirMO/a/DMTree/X/Other") == "2"
    assert status_of(device.execute, "./VirMO/a/DMTree/X/Setting") == 405
    device.tree.delete(SERVER, "./VirMO/a/DMTree/X")
    assert status_of(device.get, "./VirMO/a/DMTree/X/Setting") == 404


def test_live_nodes_are_read_at_a_get_and_the_last_value_stays(device: GuestDevice) -> None:
    """R-139, R-146, A-41: the tree is dom0's; not Running or not connected, the last value known."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    shim.nodes["State"] = "20"
    assert device.get(f"{uri}/State") == "20"
    shim.nodes["State"] = "30"
    device.set_state(device.vmid, VmState.POWERED_OFF)
    device.settle()
    assert device.get(f"{uri}/State") == "20"
    device.set_state(device.vmid, VmState.RUNNING)
    device.guests.lose(device.vmid)
    assert device.get(f"{uri}/State") == "20"


def test_a_lock_outlives_what_the_guest_forgets(device: GuestDevice) -> None:
    """HLF-12: a guest that comes up less locked than it was (a RAM disk, a new system) is locked again."""
    shim = Shim()
    shim.nodes["State"] = "20"
    device.connect(shim.dispatcher)
    device.add_object("LAWMO", LAWMO)
    device.guests.lose(device.vmid)
    fresh = Shim()
    device.connect(fresh.dispatcher)
    assert fresh.executed == ["Operations/PartiallyLock"]
    device.guests.lose(device.vmid)
    device.connect(shim.dispatcher)
    assert shim.executed == []


def test_a_walk_over_an_object_asks_the_guest_once(device: GuestDevice) -> None:
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    device.settle()
    before = len(device.guests.requests)
    assert len(device.tree.get(SERVER, f"{uri}?list=StructData")) >= 6
    device.get(f"{uri}/State")
    device.get(f"{uri}/AvailableWipeList")
    assert len(device.guests.requests) == before + 1


def test_a_guest_that_hangs_holds_a_session_once_and_not_long(
    device: GuestDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dom0_agent.mo.dmtree.mirror.LIVE_DEADLINE", 0.2)
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    device.settle()
    hang = threading.Event()
    shim.dispatcher._handlers["read"] = lambda request: Answer(200 if hang.wait(5) else 500)
    before = len(device.guests.requests)
    for _ in range(5):
        assert device.get(f"{uri}/State") == "30"
    assert len(device.guests.requests) == before + 1
    hang.set()


@pytest.mark.parametrize(
    "nodes",
    [
        {"State": "ten"},
        {"State": ["30"]},
        {"LAWMOConfig/NotifyUser": "false"},
        {"Operations/FullyLock": "x"},
        {"../../VMID": "x"},
        {"AvailableWipeList/a/../ListItemName": "x"},
        {"AvailableWipeList//ListItemName": "x"},
        {f"AvailableWipeList/{'n' * 300}/ListItemName": "x"},
        {"AvailableWipeList/a\x00b/ListItemName": "x"},
        {"AvailableWipeList/a/ListItemName": "x" * 100_000},
        {"AvailableWipeList/a/ToBeWiped": "true"},
    ],
)
def test_what_a_guest_must_not_say_changes_nothing(device: GuestDevice, nodes: dict[str, object]) -> None:
    """Nothing that is the server's, no path tricks, no value that does not fit."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    before = [(result.uri, result.value) for result in device.tree.get(SERVER, "./VirMO/a?list=StructData")]
    shim.nodes = nodes
    device.settle()
    after = [(result.uri, result.value) for result in device.tree.get(SERVER, "./VirMO/a?list=StructData")]
    kept = [item for item in after if "AvailableWipeList/a" not in item[0]]
    assert kept == before
    assert device.get(f"{uri}/State") == "30"
    assert all(item[1].data in ("", "false", "ListItemName/ToBeWiped") for item in after if "WipeList/a" in item[0])


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"[" * 100_000, b'{"State": 10}', b'"' + b"x" * 600_000 + b'"'])
def test_an_answer_that_is_none_changes_nothing(device: GuestDevice, payload: bytes) -> None:
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    shim.payload = payload
    device.settle()
    assert device.get(f"{uri}/State") == "30"


def test_entries_come_and_go_as_the_guest_says(device: GuestDevice) -> None:
    shim = Shim()
    shim.nodes = {"State": "30", "AvailableWipeList/home/ListItemName": "Home", "AvailableWipeList/x/ListItemName": "X"}
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    assert device.children(f"{uri}/AvailableWipeList") == {"home", "x"}
    assert device.get(f"{uri}/AvailableWipeList/home/ListItemName") == "Home"
    assert device.get(f"{uri}/AvailableWipeList/home/ToBeWiped") == "false"
    del shim.nodes["AvailableWipeList/x/ListItemName"]
    device.settle()
    assert device.children(f"{uri}/AvailableWipeList") == {"home"}


def test_configuration_is_pushed_when_it_changes_and_on_connect(device: GuestDevice) -> None:
    """R-140: kept in dom0; the guest gets it when it connects, and each durable change."""
    uri = device.add_object("LAWMO", LAWMO)
    device.replace(f"{uri}/LAWMOConfig/NotifyUser", "false")
    shim = Shim()
    shim.nodes["AvailableWipeList/home/ListItemName"] = "Home"
    device.connect(shim.dispatcher)
    assert shim.configured[-1] == {"LAWMOConfig/NotifyUser": "false"}
    device.replace(f"{uri}/AvailableWipeList/home/ToBeWiped", "true")
    device.settle()
    assert shim.configured[-1] == {"LAWMOConfig/NotifyUser": "false", "AvailableWipeList/home/ToBeWiped": "true"}


def test_atomic_over_forwarded_nodes_rolls_back(device: GuestDevice) -> None:
    """What is rolled back never reaches the guest; what is committed does."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    told = len(shim.configured)
    with device.tree.atomic() as atomic:
        device.replace(f"{uri}/LAWMOConfig/NotifyUser", "false")
        device.add("./VirMO/a/DMTree/X", ItemValue(format=Format.NODE, type="urn:vendor:x"))
        assert all(atomic.rollback())
    device.settle()
    assert device.get(f"{uri}/LAWMOConfig/NotifyUser") == "true"
    assert len(shim.configured) == told
    with device.tree.atomic() as atomic:
        device.replace(f"{uri}/LAWMOConfig/NotifyUser", "false")
        atomic.commit()
    device.settle()
    assert shim.configured[told:] == [{"LAWMOConfig/NotifyUser": "false"}]


def test_an_object_added_in_an_atomic_that_fails_was_never_there(device: GuestDevice) -> None:
    device.connect(Shim().dispatcher)
    with device.tree.atomic() as atomic:
        device.add(URI, ItemValue(format=Format.NODE, type=LAWMO.moid))
        atomic.rollback()
    device.settle()
    assert status_of(device.get, URI) == 404
    assert device.objects() == []


def test_exec_needs_the_vm_running_and_a_shim_that_can(device: GuestDevice) -> None:
    """A-41: 403 not Running; 503 no shim; 406 a shim that does not serve it."""
    uri = device.add_object("LAWMO", LAWMO)
    lock = f"{uri}/Operations/FullyLock"
    assert status_of(device.execute, lock) == 503
    device.connect(Dispatcher([ServedObject(LAWMO.moid, ("State",), ("Operations/UnLock",))]))
    assert status_of(device.execute, lock) == 406
    for state in (VmState.POWERED_OFF, VmState.SUSPENDED):
        device.set_state(device.vmid, state)
        assert status_of(device.execute, lock) == 403
    assert device.alerts() == []


def test_an_answer_within_the_limit_is_the_status(device: GuestDevice) -> None:
    """R-147: synchronous; the object's own result code, and no alert."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{uri}/Operations/FullyLock") == 1200
    shim.answer = Answer(1402, {"error": "no\nhandler"})
    assert status_of(device.execute, f"{uri}/Operations/FullyLock") == 1402
    shim.answer = Answer(500, {"error": "broken"})
    assert status_of(device.execute, f"{uri}/Operations/UnLock") == 1404
    assert device.alerts() == []


def test_a_late_answer_is_an_alert_with_the_full_path(tmp_path: Path) -> None:
    """R-147, A-43: 202, then the Generic Alert with the VM's path, the code and the Exec's correlator."""
    device = GuestDevice(tmp_path, answer_limit=0.05)
    shim = Shim()
    shim.gate = threading.Event()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{uri}/Operations/FullyLock", "corr-7") == 202
    assert status_of(device.execute, f"{uri}/Operations/UnLock") == 417
    shim.nodes["State"] = "10"
    shim.gate.set()
    device.settle()
    (alert,) = device.alerts()
    assert alert.alert_type == "urn:oma:at:lawmo:1.0:OperationComplete"
    assert alert.source_uri == "./VirMO/a/DMTree/LAWMO/Operations/FullyLock"
    assert (alert.format, alert.data, alert.correlator) == ("int", "1200", "corr-7")
    assert device.told == [1], "who opens sessions is woken when the alert is there, not before"
    assert device.tree.stored_value(("VirMO", "a", "DMTree", "LAWMO", "State")) == "10"
    device.close()


def test_an_operation_lost_with_the_agent_is_reported(tmp_path: Path) -> None:
    """The server that got a 202 hears an end, whatever happens to the agent."""
    device = GuestDevice(tmp_path, answer_limit=0.05)
    shim = Shim()
    shim.gate = threading.Event()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    assert device.execute(f"{uri}/Operations/FullyLock", "corr-8") == 202
    device.start()
    (alert,) = device.alerts()
    assert (alert.data, alert.correlator) == ("1400", "corr-8")
    shim.gate.set()
    device.close()


def test_the_acl_above_holds_below_dmtree(device: GuestDevice) -> None:
    """A-41: inheritance continues through DMTree, and a guest is not asked for who may not read."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    device.tree.device_set_acl(("VirMO", "a"), "Get=other&Replace=other")
    device.settle()
    before = len(device.guests.requests)
    assert status_of(device.get, f"{uri}/State") == 425
    assert status_of(device.execute, f"{uri}/Operations/FullyLock") == 425
    assert status_of(device.replace, f"{uri}/LAWMOConfig/NotifyUser", "false") == 425
    assert len(device.guests.requests) == before


def test_objects_follow_their_vm(device: GuestDevice) -> None:
    """A command is for the VM of that VMID, whatever ``<x>`` is called now (R-146, A-25); it goes with the VM."""
    shim = Shim()
    device.connect(shim.dispatcher)
    device.add_object("LAWMO", LAWMO)
    device.tree.replace(SERVER, "./VirMO/a?prop=Name", ItemValue("b"))
    device.settle()
    assert device.execute("./VirMO/b/DMTree/LAWMO/Operations/FullyLock") == 1200
    assert len(device.objects()) == 1
    assert device.execute("./VirMO/b/Operations/PowerOff") == 200
    assert device.execute("./VirMO/b/Operations/Delete") == 200
    assert status_of(device.get, "./VirMO/b") == 404
    assert device.objects() == []


def test_an_object_survives_the_agent(device: GuestDevice) -> None:
    """The tree is durable: after a restart the objects are served again and the guest is told again."""
    shim = Shim()
    device.connect(shim.dispatcher)
    uri = device.add_object("LAWMO", LAWMO)
    device.replace(f"{uri}/LAWMOConfig/NotifyUser", "false")
    device.settle()
    shim.configured.clear()
    device.start()
    device.settle()
    assert shim.configured[-1] == {"LAWMOConfig/NotifyUser": "false"}
    assert device.execute(f"{uri}/Operations/FullyLock") == 1200
