"""VMs as the rest of the agent sees them: states, primitives, the record, and the service's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol
from uuid import UUID

from dom0_agent.operation import OperationHandle, OperationResult, Origin


class VmState(IntEnum):
    """VirMO/<x>/State (R-035)."""

    NOT_CREATED = 0
    POWERED_OFF = 1
    RUNNING = 2
    SUSPENDED = 3
    DELETED = 4


class Primitive(Enum):
    """The primitives of 7.1.4."""

    CREATE = "Create"
    CREATE_AND_POWER_OFF = "CreateAndPowerOff"
    SUSPEND = "Suspend"
    RESUME = "Resume"
    POWER_ON = "PowerOn"
    POWER_OFF = "PowerOff"
    DELETE = "Delete"


class Rebuild(Enum):
    """What gives a VM another system: no primitives of 7.1.4, the objects below DMTree ask for them."""

    FACTORY_RESET = "FactoryReset"  #: all disks anew from the VM's image (LAWMO)
    REPLACE_SYSTEM = "ReplaceSystem"  #: from another image, data disks stay; undone unless the shim comes up (FUMO)


class SuspendKind(Enum):
    """How a Suspended VM is kept: what the platform could do, told in VirMO/<x>/Ext."""

    SAVE = "save"  #: memory is in a file; RAM and CPU are free; survives a reboot of dom0
    PAUSE = "pause"  #: vCPUs stopped, memory kept (Arm); lost at a reboot of dom0


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a VM holds of the device: VirMO/<x>/Resources/CurrentConfig. Bytes, bytes, percent, percent.

    ``vendor`` holds what stands there beyond the specification (R-052, A-19), decoded, in the order it was given.
    """

    ram: int = 0
    storage: int = 0
    cpu: int = 0
    network: int = 0
    vendor: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class VmRecord:
    """A VM as it is known and persisted. ``vmid`` is the VMID node's value and the domain's UUID."""

    vmid: UUID
    state: VmState
    img_id: str | None = None
    allocation: Allocation = Allocation()
    running_step: str | None = None  #: what the current operation is doing, for people
    last_error: str | None = None
    vendor: Mapping[str, str] = field(default_factory=dict)  #: unknown keys of CreateParams, kept (A-19)
    suspend_kind: SuspendKind | None = None  #: set in SUSPENDED only
    progress: int | None = None  #: percent of the current operation, 0 to 100; None when none runs


@dataclass(frozen=True, slots=True)
class VmEvent:
    """Something about a VM changed. ``result`` and ``origin`` are set at the end of an operation that nobody awaits."""

    vmid: UUID
    record: VmRecord | None  #: None: the VM is gone
    origin: Origin | None = None
    result: OperationResult | None = None
    primitive: Primitive | None = None
    spontaneous: bool = False  #: the guest or a person at the console did it, not the server


class VmService(Protocol):
    """What management objects and virmoctl ask of the VM engine. Thread-safe."""

    def add(self) -> UUID:
        """A new entry in NotCreated with a fresh VMID (R-032, R-033, R-115)."""

    def forget(self, vmid: UUID) -> None:
        """Drop an entry in NotCreated; :class:`OperationRefused` 405 in the other states (A-07)."""

    def require_idle(self, vmid: UUID) -> None:
        """:class:`OperationRefused` 417 when an operation runs on it or waits to."""

    def get(self, vmid: UUID) -> VmRecord | None:
        """The record, or ``None``."""

    def list(self) -> tuple[VmRecord, ...]:
        """All records."""

    def submit(
        self,
        vmid: UUID,
        primitive: Primitive,
        *,
        img_id: str | None = None,
        vendor: Mapping[str, str] | None = None,
        origin: Origin | None = None,
    ) -> OperationHandle:
        """Begin a primitive. :class:`OperationRefused`: 405 wrong state, 417 another operation runs, 404 no such image,
        405 image not downloaded, 420 resources missing. ``img_id`` and ``vendor`` are for the two Create primitives."""

    def rebuild(self, vmid: UUID, rebuild: Rebuild, img_id: str, *, health_timeout: float = 0.0) -> OperationHandle:
        """Give the VM another system; ``health_timeout`` is how many seconds a replaced system's shim has to come up.

        :class:`OperationRefused`: 405 wrong state, 417 another operation runs, 404 or 405 no such image.
        """

    def subscribe(self, listener: Callable[[VmEvent], None]) -> None:
        """Call ``listener`` from worker threads at each change; it must only queue."""
