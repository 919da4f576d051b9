"""The one interface to a hypervisor. Knows domains; must not know VMs, VirMO or OMA DM.

Domains are keyed by UUID, never by domid or name. Every call has a deadline of its own and ends in a result that was
read back, or in a :class:`HypervisorError`. Events are hints: they only say "look again". All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from dom0_agent.guest.source import ChannelSource
    from dom0_agent.hypervisor.resources import DomainResources


class HypervisorError(Exception):
    """A toolstack call failed. The message names the call, the domain and what the tool said."""


class HypervisorTimeout(HypervisorError):  # noqa: N818 - it is an error, and reads better so
    """The call did not end within its deadline and was killed; the domain's state is unknown until re-read."""


class NoSuchDomain(HypervisorError):  # noqa: N818
    """No domain has this UUID."""


class DomainExists(HypervisorError):  # noqa: N818
    """There is a domain with this UUID already; it was not touched."""


class OutOfMemory(HypervisorError):  # noqa: N818
    """Xen has not enough free memory for the domain."""


class NotCapable(HypervisorError):  # noqa: N818
    """This platform cannot do it (``save`` on Arm); see :class:`Capabilities`."""


class DomainType(Enum):
    """Virtualisation mode, as xl.cfg spells it."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


class DomainState(Enum):
    """What Xen says of a domain."""

    RUNNING = "running"  #: running or blocked
    PAUSED = "paused"
    SHUTDOWN = "shutdown"  #: ended by itself; kept until destroyed (on_poweroff=preserve)
    CRASHED = "crashed"
    DYING = "dying"  #: being torn down; ignore it in look-ups


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtual disk backed by a file or block device of dom0."""

    path: Path
    device: str  #: as the guest sees it: xvda, xvdb…
    format: str = "raw"  #: raw or qcow2
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Vif:
    """A virtual network interface on a bridge of dom0."""

    mac: str
    bridge: str


#: How devices of the machine are written, as patterns: what is anything else goes into no configuration.
PCI_ADDRESS = r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
USB_PORT = r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}"


@dataclass(frozen=True, slots=True)
class Pci:
    """A PCI device of the machine that is passed through."""

    address: str  #: 0000:03:00.0


@dataclass(frozen=True, slots=True)
class Usb:
    """A USB port of the machine: what is plugged in there is passed through."""

    port: str  #: as sysfs calls it: 3-1.4


@dataclass(frozen=True, slots=True)
class Fixture:
    """What a domain has from its building to its end: it neither comes nor goes meanwhile."""

    kind: Literal["console", "display"]  #: display: a framebuffer with its keyboard and pointer


Device = Disk | Vif | Pci | Usb | Fixture


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """All that is needed to build a domain. ``name`` and paths are made by the agent, never by a server."""

    uuid: UUID
    name: str
    type: DomainType
    memory: int  #: bytes at start
    max_memory: int  #: bytes the guest may grow to
    vcpus: int  #: online at start
    max_vcpus: int
    kernel: Path | None = None
    ramdisk: Path | None = None
    cmdline: str = ""
    disks: tuple[Disk, ...] = ()
    vifs: tuple[Vif, ...] = ()
    pci: tuple[Pci, ...] = ()
    usb: tuple[Usb, ...] = ()
    display: bool = False
    later_pci: bool = False  #: it may get a PCI device while it runs


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain as it is now."""

    uuid: UUID
    domid: int
    name: str
    state: DomainState
    memory: int  #: bytes
    vcpus: int
    cpu_seconds: float
    shutdown_reason: str | None = None  #: poweroff, reboot, suspend, crash when state is SHUTDOWN or CRASHED


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The machine below the domains."""

    version: str  #: of the hypervisor, "4.17.7"
    scheduler: str  #: credit, credit2, … read at run time
    cpus: int
    total_memory: int  #: bytes
    free_memory: int  #: bytes
    can_save: bool  #: save/restore to storage exists (not on Arm)


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What the shim inside a guest published of itself, validated; ``None`` fields were not (yet) heard."""

    boot_id: str | None  #: changes with each boot of the guest, not with suspend/resume
    beats: int | None  #: a counter that the shim increments about once a second
    shim_version: str | None


class Hypervisor(Protocol):
    """Implemented by ``hypervisor.xl`` and ``hypervisor.sim``; the same contract tests run on both."""

    def host(self) -> HostInfo:
        """Facts of the machine, read now."""

    def domains(self) -> tuple[DomainInfo, ...]:
        """All domains but dom0, also foreign ones; dying ones left out."""

    def find(self, uuid: UUID) -> DomainInfo | None:
        """The domain with this UUID, or ``None`` (dying counts as gone)."""

    def create(self, config: DomainConfig) -> DomainInfo:
        """Build the domain and leave it paused; nothing of it is left behind on failure."""

    def unpause(self, uuid: UUID) -> None:
        """Let its vCPUs run."""

    def pause(self, uuid: UUID) -> None:
        """Stop its vCPUs; memory stays."""

    def request_shutdown(self, uuid: UUID) -> None:
        """Ask the guest to power off; returns at once. The domain ends in SHUTDOWN when the guest complies."""

    def destroy(self, uuid: UUID) -> None:
        """End it now, whatever it does; returns when it is gone. No error when it was not there."""

    def save(self, uuid: UUID, path: Path) -> None:
        """Write the running domain's memory and state to ``path`` and end it. On failure it runs on, without a file."""

    def restore(self, path: Path, config: DomainConfig) -> DomainInfo:
        """Build the domain from a saved state and leave it paused. The file is left in place."""

    def guest_facts(self, uuid: UUID) -> GuestFacts:
        """What the guest's shim says of itself, caps and validation applied."""

    def channels(self) -> ChannelSource:
        """Where the channels to shims in guests come from; always the same object."""

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """Call ``hint`` (from any thread) whenever some domain may have changed; returns the unsubscribe."""

    @property
    def resources(self) -> DomainResources:
        """What shares the machine out among domains."""

    def close(self) -> None:
        """Stop watching and free what the agent itself holds; domains go on."""
