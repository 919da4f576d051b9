"""What an operator can set about VMs: the ``vm:`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dom0_agent.config_schema import setting

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class VmConfig:
    """Settings below ``vm:``. Sizes are bytes, times seconds, shares percent.

    The initial allocation of a VM (A-12) is: RAM what its image asks for, or ``default_ram`` when that asks for
    nothing; the other three from here. A share of 0 means that none is set aside: the VM takes what others leave.
    """

    shutdown_wait: float = setting("seconds a guest has to power off by itself before it is ended", 60.0, minimum=0)
    default_ram: int = setting("RAM of a VM whose image does not say how much it wants", 256 * MIB, minimum=16 * MIB)
    default_storage: int = setting("size of a new VM's data disk (xvdb); 0: it has none", 0, minimum=0)
    default_cpu: int = setting("CPU share of a new VM", 0, minimum=0, maximum=100)
    default_network: int = setting("network share of a new VM", 0, minimum=0, maximum=100)
    bridge: str = setting("bridge that VMs are connected to; empty: they have no network", "")
    delete_policy: Literal["discard", "shred"] = setting(
        "what Delete does with a VM's data: remove it, or overwrite it first", "discard"
    )
    storage_reserve: int = setting("free space of the file system that VMs may not use up", 256 * MIB, minimum=0)
    sweep_interval: float = setting("seconds between looks at all domains without an event", 30.0, minimum=0.1)
    reboot_limit: int = setting("reboots of a guest within reboot_window that count as a loop", 5, minimum=1)
    reboot_window: float = setting("see reboot_limit", 300.0, minimum=1)
    restart_after_crash: bool = setting("start a crashed VM again (a loop is stopped as with reboots)", False)
    start_after_reboot: bool = setting("start VMs that ran when dom0 went down", True)
