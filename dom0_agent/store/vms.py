"""VMs as they are persisted: what the agent must know of each VM to find, drive and rebuild it after a restart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dom0_agent.store.database import Database
from dom0_agent.vm.model import Allocation, VmRecord, VmState


@dataclass(frozen=True, slots=True)
class StoredDisk:
    """A disk that the agent made for a VM. ``path`` is on the device; its name holds only ids made by the agent."""

    path: str
    device: str  #: as the guest sees it
    format: str = "raw"
    role: str = "system"  #: what it is for ("system", "data", …): the engine's own word
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class StoredVm:
    """One row. ``record`` is what the others see; the rest is the VM engine's own."""

    record: VmRecord
    reserved: Allocation | None = None  #: configuration that ApplyChanges reserved for Create (A-13)
    macs: tuple[str, ...] = ()  #: of its vifs, in order; they stay the same for the VM's life
    disks: tuple[StoredDisk, ...] = ()
    #: whatever else the engine needs to build the domain again (kernel, command line, saved-state file…); JSON values
    build: Mapping[str, object] = field(default_factory=dict)

    @property
    def vmid(self) -> UUID:
        """The VMID, which is also the domain's UUID."""
        return self.record.vmid


class VmTable:
    """The VMs in the database. Each call is one durable transaction, or part of the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, vmid: UUID) -> StoredVm | None:
        """The VM, or ``None``."""
        rows = self._database.query("SELECT * FROM vm WHERE vmid = ?", (str(vmid),))
        return _from_row(rows[0]) if rows else None

    def list(self) -> tuple[StoredVm, ...]:
        """All VMs, in the order of their making."""
        return tuple(_from_row(row) for row in self._database.query("SELECT * FROM vm ORDER BY rowid"))

    def put(self, vm: StoredVm) -> None:
        """Insert the VM, or replace the row with its VMID."""
        record = vm.record
        values = {
            "vmid": str(record.vmid),
            "state": int(record.state),
            "img_id": record.img_id,
            "ram": record.allocation.ram,
            "storage": record.allocation.storage,
            "cpu": record.allocation.cpu,
            "network": record.allocation.network,
            "resources_vendor": json.dumps(record.allocation.vendor),
            "reserved": _dump_allocation(vm.reserved),
            "running_step": record.running_step,
            "last_error": record.last_error,
            "vendor": json.dumps(dict(record.vendor)),
            "macs": json.dumps(list(vm.macs)),
            "disks": json.dumps([[d.path, d.device, d.format, d.role, d.read_only] for d in vm.disks]),
            "build": json.dumps(dict(vm.build)),
        }
        with self._database.transaction() as connection:
            connection.execute(_PUT, values)

    def delete(self, vmid: UUID) -> bool:
        """Forget the VM; whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM vm WHERE vmid = ?", (str(vmid),)).rowcount > 0


_COLUMNS = (
    "vmid",
    "state",
    "img_id",
    "ram",
    "storage",
    "cpu",
    "network",
    "resources_vendor",
    "reserved",
    "running_step",
    "last_error",
    "vendor",
    "macs",
    "disks",
    "build",
)
_PUT = (
    f"INSERT INTO vm ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + c for c in _COLUMNS)}) "  # noqa: S608 - constants
    f"ON CONFLICT (vmid) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS[1:])}"
)


def _from_row(row: sqlite3.Row) -> StoredVm:
    record = VmRecord(
        vmid=UUID(row["vmid"]),
        state=VmState(row["state"]),
        img_id=row["img_id"],
        allocation=load_allocation(
            [row["ram"], row["storage"], row["cpu"], row["network"], json.loads(row["resources_vendor"])]
        ),
        running_step=row["running_step"],
        last_error=row["last_error"],
        vendor=json.loads(row["vendor"]),
    )
    return StoredVm(
        record=record,
        reserved=_load_allocation(row["reserved"]),
        macs=tuple(json.loads(row["macs"])),
        disks=tuple(StoredDisk(*disk) for disk in json.loads(row["disks"])),
        build=json.loads(row["build"]),
    )


def dump_allocation(allocation: Allocation) -> list[Any]:
    """JSON values of an allocation."""
    return [allocation.ram, allocation.storage, allocation.cpu, allocation.network, list(allocation.vendor)]


def load_allocation(fields: Sequence[Any]) -> Allocation:
    """What :func:`dump_allocation` gave; rows of an older agent end after the fourth field."""
    ram, storage, cpu, network, *rest = fields
    vendor = tuple((str(key), str(value)) for key, value in (rest[0] if rest else ()))
    return Allocation(int(ram), int(storage), int(cpu), int(network), vendor)


def _dump_allocation(allocation: Allocation | None) -> str | None:
    if allocation is None:
        return None
    return json.dumps(dump_allocation(allocation))


def _load_allocation(text: str | None) -> Allocation | None:
    return None if text is None else load_allocation(json.loads(text))
