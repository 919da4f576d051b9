"""A board that the story can manage: what is asked of it, and how the truth about it is found without the agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

NOTIFICATION_PORT = 8732  #: of the agent, on a board of its own


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as the hypervisor shows it, and its guest as the guest itself does. Memory in MiB."""

    domid: int
    state: str
    memory: int
    boot_id: str | None
    beats: int | None

    def __str__(self) -> str:
        heard = "" if self.beats is None else f", boot {(self.boot_id or '?')[:8]}, beat {self.beats}"
        return f"domain {self.domid} {self.state}, {self.memory} MiB{heard}"


@dataclass(frozen=True, slots=True)
class CpuShare:
    """A domain's part of the processors, as the scheduler has it. ``cap`` is percent of one CPU; 0: none."""

    weight: int
    cap: int

    def __str__(self) -> str:
        return f"weight {self.weight}, cap {self.cap} % of a CPU"


class Board(Protocol):
    """A machine with an agent on it."""

    @property
    def server_host(self) -> str:
        """The name under which the board reaches this machine."""

    @property
    def bundle(self) -> Path:
        """The VM image that the story delivers."""

    def start_agent(self, agent_yaml: str, ca_file: Path) -> None:
        """Give the agent its configuration and start it as a service."""

    @property
    def notification_url(self) -> str:
        """Where the server on this machine reaches the agent's notification listener."""

    def hypervisor(self) -> str:
        """Version and scheduler."""

    def cpus(self) -> int:
        """Physical processors that domains share."""

    def can_save(self) -> bool:
        """Whether the hypervisor's own tool can save a domain to a file (not on Arm)."""

    def domain(self, vmid: UUID) -> Domain | None:
        """What the hypervisor says of a VM."""

    def cpu_share(self, vmid: UUID) -> CpuShare | None:
        """What the scheduler says of a VM's domain."""

    def free_memory(self) -> int:
        """MiB that no domain holds."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder on the board."""

    def leftovers(self) -> list[str]:
        """What is there of VMs beside images: domains, disks, saved states, loop devices."""

    def agent_log(self) -> str:
        """The end of the agent's log, for when something went wrong."""

    def close(self) -> None:
        """Switch the board off."""
