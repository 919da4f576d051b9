"""What the devices of a board are called: which interface is the Wi-Fi, which disk the camera's. Configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dom0_agent.config_schema import setting


@dataclass(frozen=True, slots=True)
class PeripheralName:
    """What a device is called on this board, where the plain name says too little."""

    device: str = setting("vif0, vif1… or xvdb: as virmoctl resources lists them")
    name: str = setting("the capability's name, such as Wi-Fi or Camera")
    group: Literal["Hardware", "Input/Output", "Connectivity", "Software", "Service"] = setting("its group", "Hardware")
