"""What a step is, and what it works with. Knows no particular step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainConfig, Hypervisor
from dom0_agent.images.model import ImageService
from dom0_agent.resources.admission import Admission
from dom0_agent.resources.enforcer import Enforcer
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.definition import Vm
from dom0_agent.vm.files import VmFiles
from dom0_agent.vm.hints import Hints
from dom0_agent.vm.model import VmState


class Cancelled(Exception):  # noqa: N818 - it names what happened
    """The operation was pre-empted by another one."""


@dataclass(frozen=True, slots=True)
class Services:
    """What steps work with."""

    hypervisor: Hypervisor
    files: VmFiles
    images: ImageService
    config: VmConfig
    hints: Hints
    host_boot_id: str  #: of this boot of dom0
    enforcer: Enforcer
    admission: Admission
    clock: Callable[[], float] = time.time
    others_pause: bool = False  #: the agent also pauses domains of VMs that stay Running (LAWMO's lock)

    def domain_config(self, vm: Vm) -> DomainConfig:
        """What to build its domain from, with the shares and devices that it has."""
        return self.enforcer.sized(vm, vm.domain_config(self.config.bridge))

    def end_domain(self, vmid: UUID) -> None:
        """End a VM's domain now, and what is kept of its shares outside it; no error when there is none."""
        self.hypervisor.destroy(vmid)
        self.enforcer.ended(vmid)


class Work:
    """One operation in progress. Steps replace ``vm`` as they shape it; the runner commits the last one."""

    def __init__(self, services: Services, vm: Vm, arguments: dict[str, str]) -> None:
        self.services = services
        self.vm = vm
        self.before = vm  #: as it was when the operation began
        self.arguments = arguments
        self.cancelled = threading.Event()
        self.expected = 0  #: bytes that the step which is running is going to write, once it knows

    def check(self) -> None:
        """A point where the operation may be given up. :class:`Cancelled` when it is to be."""
        if self.cancelled.is_set():
            raise Cancelled


class Step:
    """One undoable step."""

    name: ClassVar[str]  #: what is going on, for people
    #: after a crash of the agent, do it (again) instead of undoing the operation
    redo_after_crash: ClassVar[bool] = False
    #: once it is done there is no way back: the operation is neither cancelled nor undone any more
    no_return: ClassVar[bool] = False
    #: its effect does not outlive a boot of dom0, nor does undoing it matter then
    ends_with_boot: ClassVar[bool] = False
    #: the State to show while it is being done; None: the one before the operation (R-012)
    shows: ClassVar[VmState | None] = None

    def do(self, work: Work) -> None:
        """Take effect, durably."""
        raise NotImplementedError

    def undo(self, work: Work) -> None:
        """Restore what was; no error when there is nothing to undo."""

    def fraction(self, work: Work) -> float:
        """How much of it is done while it runs, 0 to 1, as far as its traces tell. Called from any thread."""
        del work
        return 0.0

    def happened(self, work: Work) -> bool:
        """After ``do`` failed, or the agent died in it: did it take effect all the same, beyond undoing?"""
        del work
        return False
