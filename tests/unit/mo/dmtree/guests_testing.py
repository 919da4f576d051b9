"""A device with VMs whose guests' shims run in this process, on the real tree: for tests of what is below DMTree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from dom0_agent.mo.dmtree.facts_nodes import DEVDETAIL, DEVINFO
from dom0_agent.mo.dmtree.forwarded import ForwardedObject, Surroundings
from dom0_agent.mo.dmtree.interaction import Interaction
from dom0_agent.mo.dmtree.lawmo import Domains, lawmo
from dom0_agent.mo.dmtree.lawmo_nodes import LAWMO
from dom0_agent.mo.dmtree.mirror import Mirror
from dom0_agent.mo.dmtree.nodes import GuestObject
from dom0_agent.mo.dmtree.service import DmTree, Make
from dom0_agent.mo.dmtree.work import GuestWork, TreeTasks
from dom0_agent.mo.virmo import VirMO
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.nodestore import MemoryNodeStore
from dom0_agent.omadm.status import DMError
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
from dom0_agent.store.outbox import Outbox, PendingAlert
from dom0_agent.vm.model import VmState
from guest_shim.dispatch import Dispatcher
from guest_shim.places import Places
from guest_shim.services import make_dispatcher
from tests.unit.guest.loopback import LoopbackGuests
from tests.unit.mo.engines import MemoryVms

SERVER = "srv"
NODE = ItemValue(format=Format.NODE)


class GuestDevice:
    """VM ``a`` is created and Running; its guest's files are below ``root``."""

    def __init__(
        self,
        root: Path,
        *,
        answer_limit: float = 5.0,
        holder: Domains | None = None,
        kinds: Mapping[GuestObject, Make] | None = None,
        guests: LoopbackGuests | None = None,
    ) -> None:
        self.root = root
        self.vms = MemoryVms()
        self.guests = guests or LoopbackGuests()
        self.database = Database(root / "agent.sqlite")
        self.outbox = Outbox(self.database)
        self.store = MemoryNodeStore()
        self.now = 0.0
        self._kinds = kinds or {LAWMO: lawmo(holder), DEVINFO: ForwardedObject, DEVDETAIL: ForwardedObject}
        self.answer_limit = answer_limit
        self.told: list[int] = []  #: how many alerts waited when the daemon was woken for one
        self.dmtree: DmTree | None = None
        self.start()
        self.tree.device_set_acl(("VirMO",), "Add=*&Get=*&Delete=*&Exec=*&Replace=*")
        self.vmid = self.create("a")

    def start(self) -> None:
        """The agent (again): everything that is not durable is new."""
        if self.dmtree is not None:
            self.dmtree.stop()
        self.tree = ManagementTree(self.store, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.tasks = TreeTasks(lambda: None)
        self.work = GuestWork(self.outbox, Journal(self.database), lambda: self.told.append(len(self.outbox.list())))
        mirror = Mirror(self.tree, self.guests, lambda: self.now)
        around = Surroundings(self.tree, self.vms, self.guests, mirror, self.work, self.tasks, self.answer_limit)
        interaction = Interaction(around)
        self.tree.mount(VirMO(self.vms, self.tree.stored_value, lambda: (1, 1), self.answer_limit, interaction))
        self.dmtree = DmTree(around, self._kinds)
        self.dmtree.start()
        self.tasks.settle()

    def close(self) -> None:
        """The agent ends in order."""
        assert self.dmtree is not None
        self.dmtree.stop()
        self.database.close()

    def objects(self) -> list[ForwardedObject]:
        assert self.dmtree is not None
        return self.dmtree.objects()

    def create(self, name: str) -> UUID:
        self.add(f"./VirMO/{name}")
        vmid = UUID(self.get(f"./VirMO/{name}/VMID"))
        self.set_state(vmid, VmState.RUNNING)
        return vmid

    def set_state(self, vmid: UUID, state: VmState) -> None:
        self.vms.records[vmid] = replace(self.vms.records[vmid], state=state, img_id="img-1")

    def places(self, name: str = "guest") -> Places:
        """An empty guest's directories."""
        home = self.root / name
        for folder in ("root/etc", "root/proc", "root/dev", "root/sys/class/net", "state", "handlers", "settings"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        return Places(home / "state", home / "handlers", home / "settings", home / "root")

    def connect(self, shim: Dispatcher | None = None) -> Dispatcher:
        """The shim of VM ``a`` says hello."""
        shim = shim or make_dispatcher(self.places())
        self.guests.connect(self.vmid, shim)
        self.settle()
        return shim

    def settle(self) -> None:
        """Let everything end that was begun."""
        for _ in range(4):
            self.tasks.settle()
            assert self.work.drain(10)
        self.tasks.settle()
        self.now += 60

    # -- the server --------------------------------------------------------------------------------------------------

    def add(self, uri: str, value: ItemValue = NODE) -> None:
        self.tree.add(SERVER, uri, value)
        self.tasks.settle()

    def add_object(self, name: str, kind: GuestObject) -> str:
        uri = f"./VirMO/a/DMTree/{name}"
        self.add(uri, ItemValue(format=Format.NODE, type=kind.moid))
        self.settle()
        return uri

    def replace(self, uri: str, text: str) -> None:
        self.tree.replace(SERVER, uri, ItemValue(text))

    def get(self, uri: str) -> str:
        (result,) = self.tree.get(SERVER, uri)
        assert isinstance(result.value.data, str)
        return result.value.data

    def children(self, uri: str) -> set[str]:
        return set(filter(None, self.get(uri).split("/")))

    def execute(self, uri: str, correlator: str | None = "c1") -> int:
        return self.tree.execute(SERVER, uri, "", correlator)

    def alerts(self) -> list[PendingAlert]:
        return list(self.outbox.list(SERVER))


def status_of(call: object, *arguments: object) -> int:
    assert callable(call)
    with pytest.raises(DMError) as caught:
        call(*arguments)
    assert str(caught.value)
    return caught.value.status


def handler(places: Places, kind: str, name: str, script: str) -> None:
    """An integrator's handler."""
    path = places.handlers / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
