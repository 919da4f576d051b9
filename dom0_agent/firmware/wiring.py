"""Puts the firmware update of a board with two slots together, as the daemon starts it; nothing on other machines."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dom0_agent.config import AgentConfig
from dom0_agent.firmware.record import UpdateRecord
from dom0_agent.firmware.service import FirmwareService, RestartFailed
from dom0_agent.firmware.slots import GrubSlots, Slots
from dom0_agent.images.service import LocalImageService
from dom0_agent.mo.fumo import DeviceFumo, alert_of
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.operation import OperationResult
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable
from dom0_agent.store.outbox import Outbox

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RESTART_DEADLINE = 60.0


class NoFirmware:
    """A machine without system slots."""

    def start(self) -> None:
        """Nothing to go on with."""

    def close(self) -> None:
        """Nothing to stop."""


class Firmware(NoFirmware):
    """The service and what it keeps open. ``wake`` makes the daemon look at the outbox, ``restart`` restarts dom0."""

    def __init__(
        self,
        config: AgentConfig,
        slots: Slots,
        outbox: Outbox,
        wake: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        folder = config.state_dir / config.firmware.dir
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = replace(
            config.images,
            dir=folder / "packages",
            require_signature=True,
            signature_ca_file=config.firmware.signature_ca_file,
            arch=None,
        )
        self._outbox = outbox
        self._wake = wake
        self._database = Database(folder / "packages.sqlite")
        self._images = LocalImageService(settings, ImageTable(self._database))
        self.service = FirmwareService(
            self._images,
            slots,
            folder / "update.json",
            tries=config.firmware.tries,
            boot_id=_BOOT_ID.read_text().strip(),
            restart=restart,
        )
        self.service.subscribe(self._tell)

    def start(self) -> None:
        """Go on with what the last run left."""
        self._images.start()
        self.service.start()

    def close(self) -> None:
        """Stop, keep everything for the next start."""
        self.service.close()
        self._images.close()
        self._database.close()

    def _tell(self, record: UpdateRecord, result: OperationResult) -> None:
        """The end of an operation, to the server that asked for it."""
        if record.origin is None:
            return
        alert_type, code = alert_of(record, result)
        self._outbox.add(
            record.origin.server_id,
            alert_type,
            source_uri=record.origin.uri,
            format="int",
            data=str(code),
            mark="informational" if result.ok else "warning",
            correlator=record.origin.correlator,
        )
        self._wake()


def open_firmware(config: AgentConfig, tree: ManagementTree, outbox: Outbox, wake: Callable[[], None]) -> NoFirmware:
    """Mounts ./FUMO where the configuration names slots."""
    if config.firmware.environment is None:
        return NoFirmware()
    firmware = Firmware(config, GrubSlots(config.firmware.environment), outbox, wake, restart_dom0)
    tree.mount(DeviceFumo(firmware.service, tree.stored_value))
    return firmware


def restart_dom0() -> None:
    """Begins an orderly restart; VMs are saved or ended as at every restart of dom0.

    :raises RestartFailed: the init system does not take the request
    """
    argv = ["systemctl", "reboot", "--no-block"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_RESTART_DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RestartFailed(str(error)) from error
    if done.returncode != 0:
        raise RestartFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-300:]}")
    log.info("event=restarting_dom0")
