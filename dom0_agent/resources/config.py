"""What an operator can set about the sharing out of the machine: the ``resources:`` and ``metrics:`` sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dom0_agent.config_schema import setting
from dom0_agent.resources.peripheral_names import PeripheralName


@dataclass(frozen=True, slots=True)
class CpuConfig:
    """Processor time. A share is percent of all physical CPUs."""

    sum: Literal["within", "exact"] = setting(
        "within: the VMs' CPU shares may leave dom0 the rest; exact: ApplyChanges demands that they sum to 100",
        "within",
    )
    work_conserving: bool = setting(
        "true: a VM may use what others leave idle; false: its share is also its limit", False
    )
    dom0_weight: int = setting("dom0's own weight, which no guest may drown", 4000, minimum=1000, maximum=65535)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Network bandwidth. A share is percent of the device's, up and down each, over all of a VM's interfaces."""

    bandwidth: int = setting("the device's bandwidth in bits a second; 0: what the uplink's driver says", 0, minimum=0)
    uplink: str = setting("interface to the outside; empty: the physical port of vm.bridge", "")
    work_conserving: bool = setting("true: a VM may use the whole bandwidth while others leave it idle", False)


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Balloons."""

    deadline: float = setting("seconds a guest has to give or take memory", 120.0, minimum=1)


@dataclass(frozen=True, slots=True)
class ResourcesConfig:
    """Settings below ``resources:``."""

    cpu: CpuConfig = field(default_factory=CpuConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    peripherals: tuple[PeripheralName, ...] = setting("names of devices on this board", ())

    def __post_init__(self) -> None:
        for what in ("device", "name"):
            given = [getattr(one, what) for one in self.peripherals]
            twice = sorted({text for text in given if given.count(text) > 1})
            if twice:
                raise ValueError(f"peripherals: {what} {', '.join(twice)} is given twice")


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """The Prometheus endpoint."""

    address: str = setting("address to listen on", "127.0.0.1")
    port: int = setting("TCP port of http://…/metrics; 0: none", 0, minimum=0, maximum=65535)
