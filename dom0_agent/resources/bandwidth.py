"""How much a network share is in bits a second: of the device's bandwidth, configured or told by the uplink's driver.

Knows interfaces' files in sysfs; must not know tc.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dom0_agent.omadm.status import Status
from dom0_agent.operation import OperationRefused
from dom0_agent.resources.config import NetworkConfig
from dom0_agent.resources.network import Rate, rate_of

DEVICES = Path("/sys/class/net")
MEGABIT = 10**6


def bandwidth(config: NetworkConfig, bridge: str, devices: Path = DEVICES) -> int:
    """Bits a second, each way; 0: unknown. Read anew each time, for cables are plugged at run time."""
    if config.bandwidth:
        return config.bandwidth
    uplink = config.uplink or _physical_port(bridge, devices)
    try:
        speed = int((devices / uplink / "speed").read_text(encoding="ascii")) if uplink else 0
    except (OSError, ValueError):  # a driver that knows no speed answers with an error
        return 0
    return max(0, speed) * MEGABIT


def rate_for(percent: int, vendor: Mapping[str, str], config: NetworkConfig, bridge: str) -> Rate | None:
    """The rate of a share; ``vendor`` may hold NetworkBps (R-052). ``None``: no limit (a share of 0 sets none).

    :class:`OperationRefused` 403 when the device's bandwidth is not known.
    """
    own = int(vendor.get("NetworkBps", 0))
    if not percent:
        return rate_of(own) if own else None
    whole = bandwidth(config, bridge)
    if not whole:
        raise OperationRefused(
            Status.FORBIDDEN,
            "a network share is percent of the device's bandwidth, which its driver does not tell: "
            "set resources.network.bandwidth",
        )
    share = whole * percent // 100
    ceil = whole if config.work_conserving else share
    return rate_of(min(share, own or share), min(ceil, own or ceil))


def _physical_port(bridge: str, devices: Path) -> str:
    ports = devices / bridge / "brif"
    if not bridge or not ports.is_dir():
        return ""
    return next((port.name for port in sorted(ports.iterdir()) if (devices / port.name / "device").exists()), "")
