"""What an operator can set about updates of dom0's own system (``firmware:`` in the configuration)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dom0_agent.config_schema import setting


@dataclass(frozen=True, slots=True)
class FirmwareConfig:
    """Updates of dom0's system, through ./FUMO. Only on boards with two system slots."""

    environment: Path | None = setting(
        "the boot loader's environment block, /boot/virmo/grubenv on our boards; none: this board has no slots", None
    )
    dir: Path = setting("where packages are kept until they are written", Path("firmware"))
    signature_ca_file: Path | None = setting("CA of those who may sign dom0's system, PEM; needed with slots", None)
    tries: int = setting("starts that a new system gets before the old one comes back", 3, minimum=1, maximum=3)

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work. :raises ValueError: names the settings"""
        if self.environment is not None and self.signature_ca_file is None:
            raise ValueError("environment needs signature_ca_file: unsigned systems are never taken")
