"""Wires all parts of the agent together, and runs them. The only file that knows every part.

One thread, the one that calls :meth:`Agent.serve`, owns the management tree and runs all DM sessions. Everything else
(VM workers, downloads, the hypervisor's events, the control socket) reaches it through one queue.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any

from dom0_agent import settle
from dom0_agent.accounts import provision
from dom0_agent.config import AgentConfig
from dom0_agent.control import ControlError, ControlServer
from dom0_agent.dm_session import SeededNonces, SessionReport, SessionRunner, Trace
from dom0_agent.hypervisor.config import open_hypervisor
from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.images.model import ImageEvent, ImageState
from dom0_agent.images.service import LocalImageService
from dom0_agent.logs import set_up
from dom0_agent.mo.devdetail import DeviceDetail, devdetail
from dom0_agent.mo.devinfo import DeviceIdentity, devinfo
from dom0_agent.mo.dmacc import DMAcc, account_path, read_accounts, read_nonce
from dom0_agent.mo.virmo import VirMO
from dom0_agent.mo.vmimgmo import VMImgMO
from dom0_agent.omadm.acl import Acl
from dom0_agent.omadm.auth import Account, NonceRole
from dom0_agent.omadm.mo import Path as NodePath
from dom0_agent.omadm.node import Command
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import format_path
from dom0_agent.overview import Overview
from dom0_agent.reporting import Reporter
from dom0_agent.schedule import SessionSchedule
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable
from dom0_agent.store.nodes import SqliteNodeStore
from dom0_agent.store.nonces import NonceTable
from dom0_agent.store.outbox import Outbox
from dom0_agent.store.vms import VmTable
from dom0_agent.transport.tls import TlsConfig
from dom0_agent.vm.engine import open_engine
from dom0_agent.vm.model import VmEvent

log = logging.getLogger(__name__)

SESSION_WAIT = 600.0  #: seconds that virmoctl waits for the sessions that it asked for
LONGEST_SLEEP = 3600.0  #: seconds; the loop looks around at least this often


class AlreadyRunning(Exception):  # noqa: N818 - it says what is the matter
    """Another agent has this state directory."""


@dataclass(slots=True)
class _SessionWish:
    """Somebody at the control socket waits for sessions with all servers."""

    reports: list[SessionReport] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


class _Stop:
    """Put into the queue to end :meth:`Agent.serve`."""


class Agent:
    """All parts, started. ``close`` when done; VMs go on without the agent."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(config.state_dir / "lock")
        self._queue: queue.SimpleQueue[VmEvent | ImageEvent | _SessionWish | _Stop] = queue.SimpleQueue()
        self._database = Database(config.state_dir / "agent.sqlite")
        self.outbox = Outbox(self._database)
        self.hypervisor = open_hypervisor(config.hypervisor, config.state_dir)
        self.images = LocalImageService(config.images, ImageTable(self._database))
        self.vms = open_engine(self._database, self.hypervisor, self.images, config.vm, config.state_dir)
        self.tree = ManagementTree(SqliteNodeStore(self._database), lambda: datetime.now(UTC))
        self._reporter = Reporter(self.outbox, lambda: [account.server_id for account in config.dm.accounts])
        nonces = NonceTable(self._database)
        self._mount()
        provision(config.dm.accounts, self.tree, nonces, self.outbox, config.state_dir / "accounts.json")
        self._grant()
        self._tls = {account.server_id: account.tls for account in config.dm.accounts}
        self._schedules = {account.server_id: self._schedule() for account in read_accounts(self.tree)}
        self._runner = SessionRunner(
            config=config.dm,
            device_id=config.device.id,
            tree=self.tree,
            nonces=SeededNonces(nonces, self._first_nonce),
            outbox=self.outbox,
            device_info=self._device_info,
            between=self._settle_events,
        )
        self.overview = Overview(config, self.hypervisor, self.vms, self.images, self.outbox)

    def start(self) -> None:
        """Finish or undo what was interrupted, then follow what happens."""
        self.images.subscribe(self._image_event)
        self.vms.subscribe(self._vm_event)
        self.images.start()
        self.vms.start()
        settle.settle_all(self.tree, self.vms, self.images)
        self._name_nodes()

    def close(self) -> None:
        """Stop following, keep everything for the next start."""
        self.images.close()
        self.vms.stop()
        self.hypervisor.close()
        self._database.close()
        self._lock.close()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def accounts(self) -> tuple[Account, ...]:
        """The servers that may manage this device."""
        return read_accounts(self.tree)

    def session(self, account: Account, trace: Trace | None = None) -> SessionReport:
        """Run one client-initiated session now."""
        self._settle_events()
        report = self._runner.run(account, self._tls.get(account.server_id, TlsConfig()), trace=trace)
        self._settle_events()
        self.overview.note_session(report)
        return report

    def busy(self) -> list[str]:
        """What operations are running, for people."""
        images = [f"image {i.img_id}: {i.progress} %" for i in self.images.list() if i.state is ImageState.DOWNLOADING]
        return images + [f"VM {vm.vmid}: {vm.running_step}" for vm in self.vms.list() if vm.running_step is not None]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until :meth:`stop`; opens sessions when they are due."""
        with_control = ControlServer(self.config.control.socket, self._control_calls())
        try:
            now = time.monotonic()
            for schedule in self._schedules.values():
                schedule.ask(now)
            while self._turn():
                pass
        finally:
            with_control.close()

    def stop(self) -> None:
        """End :meth:`serve` soon. Safe in any thread and in a signal handler."""
        self._queue.put(_Stop())

    def _turn(self) -> bool:
        """Wait for what happens next, do what is due; ``False`` when it is time to stop."""
        now = time.monotonic()
        waits = [wait for schedule in self._schedules.values() if (wait := schedule.wait(now)) is not None]
        try:
            item = self._queue.get(timeout=min([*waits, LONGEST_SLEEP]))
        except queue.Empty:
            item = None
        if isinstance(item, _Stop):
            return False
        if isinstance(item, _SessionWish):
            item.reports.extend(self._run_session(account) for account in self.accounts())
            item.done.set()
        elif item is not None:
            self._settle(item)
            self._settle_events()
        self._run_due_sessions()
        return True

    def _run_due_sessions(self) -> None:
        now = time.monotonic()
        for account in self.accounts():
            schedule = self._schedules.setdefault(account.server_id, self._schedule())
            schedule.alerts_wait(now, bool(self.outbox.list(account.server_id)))
            if schedule.is_due(now):
                self._run_session(account)

    def _run_session(self, account: Account) -> SessionReport:
        report = self.session(account)
        schedule, now = self._schedules.setdefault(account.server_id, self._schedule()), time.monotonic()
        schedule.alerts_wait(now, bool(self.outbox.list(account.server_id)))
        schedule.ended(now, report.ok)
        return report

    def _schedule(self) -> SessionSchedule:
        dm = self.config.dm
        return SessionSchedule(dm.poll_interval, dm.retry_first, dm.retry_max, random.random)

    # -- events ------------------------------------------------------------------------------------------------------

    def _image_event(self, event: ImageEvent) -> None:
        """In a download's thread: the alert is durable when this returns, the tree follows in its own thread."""
        self._reporter.image(event)
        self._queue.put(event)

    def _vm_event(self, event: VmEvent) -> None:
        """In a VM's worker thread: likewise."""
        self._reporter.operation(event)
        self._queue.put(event)

    def _settle_events(self) -> None:
        """Let the tree follow all events so far; session wishes and the end of the loop wait."""
        later: list[_SessionWish | _Stop] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, _SessionWish | _Stop):
                later.append(item)
            else:
                self._settle(item)
        for item in later:
            self._queue.put(item)

    def _settle(self, event: VmEvent | ImageEvent) -> None:
        if isinstance(event, ImageEvent):
            settle.image_changed(self.tree, self.images, event.img_id)
        else:
            path = settle.vm_node(self.tree, event.vmid)
            if event.spontaneous and path is not None:
                self._reporter.state_changed(event, format_path(path))
            settle.vm_changed(self.tree, self.vms, event.vmid)
        self._name_nodes()

    def _name_nodes(self) -> None:
        self.overview.nodes = {
            **{str(vmid): format_path(path) for path, vmid in settle.vm_nodes(self.tree)},
            **{img_id: format_path(path) for path, img_id in settle.image_nodes(self.tree)},
        }

    # -- parts of the tree -------------------------------------------------------------------------------------------

    def _mount(self) -> None:
        device, dm = self.config.device, self.config.dm
        identity = DeviceIdentity(device.id, device.manufacturer, device.model, lang=device.language)
        detail = DeviceDetail(
            device.type,
            oem=device.oem,
            firmware_version=device.firmware_version,
            software_version=_version(),
            hardware_version=device.hardware_version,
        )
        for mo in (
            devinfo(identity),
            devdetail(detail, self.tree.limits),
            DMAcc(lambda: None),
            VirMO(self.vms, self.tree.stored_value, self._device_resources, dm.answer_limit),
            VMImgMO(self.images, self.tree.stored_value, dm.answer_limit),
        ):
            self.tree.mount(mo)

    def _grant(self) -> None:
        """The servers of the configuration manage VMs and images; other nodes keep the tree's defaults."""
        servers = frozenset(account.server_id for account in self.config.dm.accounts)
        acl = str(Acl({command: servers for command in Command if command is not Command.COPY})) if servers else ""
        for mount in (VirMO.mount, VMImgMO.mount):
            self.tree.device_set_acl(mount, acl)

    def _device_info(self) -> Mapping[str, str]:
        """The DevInfo leaves that go into package 1."""
        paths: list[NodePath] = [("DevInfo", name) for name in self.tree.children(("DevInfo",))]
        return {format_path(path): self.tree.value(path) or "" for path in paths}

    def _first_nonce(self, server_id: str, role: NonceRole) -> bytes | None:
        return read_nonce(self.tree, account_path(server_id), role)

    def _device_resources(self) -> tuple[int, int]:
        """RAM that Xen can give to guests and has given to them; storage of the file system that VMs may use."""
        try:
            given = sum(domain.memory for domain in self.hypervisor.domains())
            ram = self.hypervisor.host().free_memory + given
        except HypervisorError as error:
            raise DMError(Status.COMMAND_FAILED, f"the hypervisor does not answer: {error}") from error
        usage = shutil.disk_usage(self.config.state_dir)
        held = sum(disk.path.stat().st_blocks * 512 for disk in self._vm_disks() if disk.path.exists())
        return ram, max(0, usage.free + held - self.config.vm.storage_reserve)

    def _vm_disks(self) -> list[Any]:
        return [disk for vm in VmTable(self._database).list() for disk in vm.disks]

    # -- control -----------------------------------------------------------------------------------------------------

    def _control_calls(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "status": lambda _: self._checked(self.overview.status),
            "vm.list": lambda _: self.overview.vms(),
            "vm.show": lambda call: self._checked(lambda: self.overview.vm(str(call.get("vm", "")))),
            "image.list": lambda _: self.overview.images(),
            "session": lambda _: self._wish_sessions(),
        }

    @staticmethod
    def _checked(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except HypervisorError as error:
            raise ControlError(f"the hypervisor does not answer: {error}") from error

    def _wish_sessions(self) -> dict[str, Any]:
        wish = _SessionWish()
        self._queue.put(wish)
        if not wish.done.wait(SESSION_WAIT):
            raise ControlError(f"the sessions did not end within {SESSION_WAIT:.0f} s")
        if not wish.reports:
            raise ControlError("there is no server account (dm.accounts in the configuration)")
        sessions = [{"server_id": r.server_id, "ok": r.ok, "outcome": r.sentence} for r in wish.reports]
        return {"ok": all(report.ok for report in wish.reports), "sessions": sessions}


def run(config: AgentConfig) -> int:
    """``virmo-agent run``: serve until SIGTERM or SIGINT."""
    set_up(config.log)
    try:
        agent = Agent(config)
    except AlreadyRunning as error:
        log.error("event=not_started reason=%r", str(error))
        return 1

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        agent.start()
        log.info(
            "event=started version=%s device=%s backend=%s", _version(), config.device.id, config.hypervisor.backend
        )
        agent.serve()
    finally:
        agent.close()
        log.info("event=stopped")
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("virmo-agent")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"


def _lock(file: Path) -> IO[str]:
    handle = file.open("a+", encoding="ascii")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        pid = handle.read().strip() or "unknown"
        handle.close()
        raise AlreadyRunning(f"another agent (process {pid}) uses {file.parent}") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
