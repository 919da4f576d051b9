"""What the control socket shows of the agent, as plain data: bytes and seconds are numbers. Reads only. Thread-safe."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from dom0_agent.config import AgentConfig
from dom0_agent.control_client import ControlError
from dom0_agent.dm_session import SessionReport
from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.images.model import ImageService
from dom0_agent.store.outbox import Outbox
from dom0_agent.vm.model import VmRecord, VmService


class Overview:
    """Views for ``virmoctl``. ``nodes`` maps VMIDs and ImgIDs to their sub-trees; the tree's owner replaces it."""

    def __init__(
        self, config: AgentConfig, hypervisor: Hypervisor, vms: VmService, images: ImageService, outbox: Outbox
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._vms = vms
        self._images = images
        self._outbox = outbox
        self._sessions: dict[str, tuple[float, SessionReport]] = {}
        self._started = time.monotonic()
        self.nodes: dict[str, str] = {}

    def note_session(self, report: SessionReport) -> None:
        """A session ended."""
        self._sessions[report.server_id] = (time.time(), report)

    def status(self) -> dict[str, Any]:
        """The agent, the machine below it, and its servers."""
        host = self._hypervisor.host()
        return {
            "device": self._config.device.id,
            "backend": self._config.hypervisor.backend,
            "hypervisor": f"Xen {host.version}, scheduler {host.scheduler}, {host.cpus} CPUs",
            "free_memory": host.free_memory,
            "uptime": round(time.monotonic() - self._started),
            "vms": len(self._vms.list()),
            "images": len(self._images.list()),
            "servers": [self._server(account.server_id, account.address) for account in self._config.dm.accounts],
        }

    def vms(self) -> list[dict[str, Any]]:
        """One row for each VM."""
        return [self._vm(record) for record in self._vms.list()]

    def vm(self, name: str) -> dict[str, Any]:
        """One VM by VMID or node name, with what its guest says; :class:`ControlError` when there is none."""
        record = self._record(name)
        return self._vm(record) | self._domain(record)

    def vmid(self, name: str) -> UUID:
        """The VM that a person means by a VMID or a node name; :class:`ControlError` when there is none."""
        return self._record(name).vmid

    def images(self) -> list[dict[str, Any]]:
        """One row for each image."""
        return [
            {
                "node": self.nodes.get(image.img_id),
                "img_id": image.img_id,
                "state": image.state.name,
                "progress": image.progress,
                "size": image.size,
                "location": None if image.location is None else str(image.location),
                "last_error": image.last_error,
            }
            for image in self._images.list()
        ]

    def _record(self, name: str) -> VmRecord:
        for record in self._vms.list():
            node = self.nodes.get(str(record.vmid), "")
            if name in (str(record.vmid), node, node.rpartition("/")[2]):
                return record
        raise ControlError(f"there is no VM {name!r}; see virmoctl vm list")

    def _vm(self, record: VmRecord) -> dict[str, Any]:
        allocation = record.allocation
        return {
            "node": self.nodes.get(str(record.vmid)),
            "vmid": str(record.vmid),
            "state": record.state.name,
            "img_id": record.img_id,
            "ram": allocation.ram,
            "storage": allocation.storage,
            "cpu": allocation.cpu,
            "network": allocation.network,
            "suspend_kind": None if record.suspend_kind is None else record.suspend_kind.value,
            "running_step": record.running_step,
            "progress": record.progress,
            "last_error": record.last_error,
        }

    def _domain(self, record: VmRecord) -> dict[str, Any]:
        domain = self._hypervisor.find(record.vmid)
        if domain is None:
            return {"domain": None}
        facts = self._hypervisor.guest_facts(record.vmid)
        return {
            "domain": domain.name,
            "domid": domain.domid,
            "domain_state": domain.state.value,
            "memory": domain.memory,
            "cpu_seconds": domain.cpu_seconds,
            "guest_boot_id": facts.boot_id,
            "guest_beats": facts.beats,
            "guest_shim": facts.shim_version,
        }

    def _server(self, server_id: str, address: str) -> dict[str, Any]:
        when, report = self._sessions.get(server_id, (None, None))
        return {
            "server_id": server_id,
            "address": address,
            "last_session": None if when is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(when)),
            "ok": None if report is None else report.ok,
            "outcome": None if report is None else report.sentence,
            "pending_alerts": len(self._outbox.list(server_id)),
        }
