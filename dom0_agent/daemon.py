"""Wires all parts of the agent together, and runs them. The only file that knows every part.

One thread, the one that calls :meth:`Agent.serve`, owns the management tree and runs all DM sessions. Everything else
(VM workers, downloads, the hypervisor's events, the control socket) reaches it through one queue.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from dom0_agent import lockfile, settle
from dom0_agent.accounts import provision
from dom0_agent.config import AgentConfig
from dom0_agent.console import Console, console_at
from dom0_agent.control import ControlServer
from dom0_agent.control_client import ControlError
from dom0_agent.device import agent_version, device_info, grant, mount_objects
from dom0_agent.dm_session import SeededNonces, SessionReport, SessionRunner, Trace
from dom0_agent.doorkeeper import Doorkeeper, user_agrees
from dom0_agent.firmware.wiring import open_firmware
from dom0_agent.guest.control import guest_calls, report_expulsions
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import GuestEvent
from dom0_agent.hypervisor.config import open_hypervisor
from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.images.model import ImageEvent, ImageState
from dom0_agent.images.service import LocalImageService
from dom0_agent.logs import set_up
from dom0_agent.mo.dmacc import account_path, read_accounts, read_nonce
from dom0_agent.mo.dmtree.wiring import GuestManagement, Parts
from dom0_agent.omadm.auth import Account, NonceRole
from dom0_agent.omadm.notification import NotificationGuard
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.uri import format_path
from dom0_agent.overview import Overview
from dom0_agent.reporting import Reporter
from dom0_agent.resource_management import ResourceManagement
from dom0_agent.resources.sharing import open_sharing
from dom0_agent.session_keeper import SessionKeeper
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable
from dom0_agent.store.journal import Journal
from dom0_agent.store.nodes import SqliteNodeStore
from dom0_agent.store.nonces import NonceTable
from dom0_agent.store.outbox import Outbox
from dom0_agent.traces import Recorder
from dom0_agent.transport.notification_listener import NotificationListener
from dom0_agent.vm.engine import open_engine
from dom0_agent.vm.model import VmEvent
from dom0_agent.watchdog import Watchdog

log = logging.getLogger(__name__)

SESSION_WAIT = 600.0  #: seconds that virmoctl waits for the sessions that it asked for
MAX_WAITING = 64  #: things in the queue past which notifications are turned away: somebody floods us
MAX_NOTIFICATIONS = 60  #: sessions that a server may ask for in a minute
LONGEST_SLEEP = 3600.0  #: seconds; the loop looks around at least this often


@dataclass(slots=True)
class _SessionWish:
    """Somebody at the control socket waits for sessions with all servers, or only with ``server_id``."""

    server_id: str | None = None
    recorder: Recorder | None = None
    reports: list[SessionReport] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Notification:
    """A package 0 arrived; who sent it is not known yet."""

    untrusted_octets: bytes


class _Stop:
    """Put into the queue to end :meth:`Agent.serve`."""


class _TreeTasks:
    """Put into the queue when there is something to do in the tree."""


#: what waits for the loop while a session runs; events do not
_Request = _SessionWish | _Notification | _Stop


class Agent:
    """All parts, started. ``close`` when done; VMs go on without the agent."""

    def __init__(self, config: AgentConfig, console: Console | None = None) -> None:
        """``console`` is where dom0's user is asked; it is closed with the agent."""
        self.config = config
        self._console = console
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watchdog = Watchdog.of_service()
        self._lock = lockfile.hold(config.state_dir / "lock")
        self._queue: queue.SimpleQueue[VmEvent | ImageEvent | GuestEvent | _TreeTasks | _Request] = queue.SimpleQueue()
        self._database = Database(config.state_dir / "agent.sqlite")
        self.outbox = Outbox(self._database)
        self.hypervisor = open_hypervisor(config.hypervisor, config.state_dir)
        self.images = LocalImageService(config.images, ImageTable(self._database))
        sharing = open_sharing(self._database, self.hypervisor, config.vm, config.resources, config.state_dir)
        self.vms = open_engine(
            self._database,
            self.hypervisor,
            self.images,
            config.vm,
            config.state_dir,
            sharing=sharing,
            others_pause=config.lawmo.enforce == "hypervisor",
        )
        self.guests = GuestHub(self.hypervisor, config.guest, lambda: {record.vmid for record in self.vms.list()})
        self.tree = ManagementTree(SqliteNodeStore(self._database), lambda: datetime.now(UTC))
        self._reporter = Reporter(self.outbox, lambda: [account.server_id for account in self.accounts()])
        nonces = NonceTable(self._database)
        self.resources = ResourceManagement(
            config,
            self._database,
            self.hypervisor,
            self.vms,
            sharing,
            tree=self.tree,
            report=self._reporter.applied,
            wake=self._wake,
        )
        parts = Parts(
            self.tree, self.vms, self.images, self.guests, self.hypervisor, self.resources.service.peripherals
        )
        journal = Journal(self._database)
        self._management = GuestManagement(config, parts, self.outbox, journal, self._wake)
        mount_objects(
            self.tree, config, self.vms, self.images, self.resources.service, interact=self._management.interact
        )
        self._firmware = open_firmware(config, self.tree, self.outbox, self._wake)
        provision(config.dm.accounts, self.tree, nonces, self.outbox, config.state_dir / "accounts.json")
        grant(self.tree, [account.server_id for account in read_accounts(self.tree)])
        seeded = SeededNonces(nonces, self._first_nonce)
        self._doorkeeper = Doorkeeper(seeded, NotificationGuard(time.monotonic, most=MAX_NOTIFICATIONS))
        runner = SessionRunner(
            config=config.dm,
            device_id=config.device.id,
            tree=self.tree,
            nonces=seeded,
            outbox=self.outbox,
            device_info=lambda: device_info(self.tree),
            between=self._settle_events,
            ui=console,
        )
        self.overview = Overview(config, self.hypervisor, self.vms, self.images, self.outbox)
        self._sessions = SessionKeeper(
            config.dm,
            runner,
            self.accounts,
            self.outbox,
            settle=self._settle_events,
            note=self.overview.note_session,
        )
        report_expulsions(self.guests, self._reporter, lambda vmid: self.overview.nodes.get(str(vmid)), self._queue.put)

    def start(self) -> None:
        """Finish or undo what was interrupted, then follow what happens."""
        self.images.subscribe(self._image_event)
        self.vms.subscribe(self._vm_event)
        self.images.start()
        self.resources.start()
        self.vms.start()
        self._management.start()
        settle.settle_all(self.tree, self.vms, self.images, self._management.images())
        self._name_nodes()
        self.guests.start()
        self._firmware.start()

    def close(self) -> None:
        """Stop following, keep everything for the next start."""
        self._watchdog.close()
        self._firmware.close()
        self.guests.close()
        self._management.stop()
        self.images.close()
        self.resources.stop()
        self.vms.stop()
        self.hypervisor.close()
        self._database.close()
        self._lock.close()
        if self._console is not None:
            self._console.close()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def accounts(self) -> tuple[Account, ...]:
        """The servers that may manage this device."""
        return read_accounts(self.tree)

    def session(self, account: Account, *, trace: Trace | None = None) -> SessionReport:
        """Run one client-initiated session now."""
        return self._sessions.session(account, trace=trace)

    def busy(self) -> list[str]:
        """What operations are running, for people."""
        images = [f"image {i.img_id}: {i.progress} %" for i in self.images.list() if i.state is ImageState.DOWNLOADING]
        return images + [f"VM {vm.vmid}: {vm.running_step}" for vm in self.vms.list() if vm.running_step is not None]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until :meth:`stop`; opens sessions when they are due."""
        control = ControlServer(self.config.control.socket, self._control_calls())
        listener = self._listen()
        try:
            self._sessions.ask_all()
            while self._turn():
                pass
        finally:
            if listener is not None:
                listener.close()
            control.close()

    def stop(self) -> None:
        """End :meth:`serve` soon. Safe in any thread and in a signal handler."""
        self._queue.put(_Stop())
        if self._console is not None:
            self._console.give_up()

    def _turn(self) -> bool:
        """Wait for what happens next, do what is due; ``False`` when it is time to stop."""
        try:
            with self._watchdog.waiting():
                item = self._queue.get(timeout=self._sessions.wait(LONGEST_SLEEP))
        except queue.Empty:
            item = None
        if isinstance(item, _Stop):
            return False
        if isinstance(item, _SessionWish):
            wanted = [account for account in self.accounts() if item.server_id in (None, account.server_id)]
            item.reports.extend(self._sessions.run(account, trace=item.recorder) for account in wanted)
            item.done.set()
        elif isinstance(item, _Notification):
            asked = self._doorkeeper.admit(item.untrusted_octets, self.accounts())
            if asked is not None and user_agrees(asked, self._console):
                self._sessions.run(asked.account, asked)
        elif item is not None:
            self._settle(item)
            self._settle_events()
        self._sessions.run_due()
        return True

    def _listen(self) -> NotificationListener | None:
        settings = self.config.dm.notification
        if settings.port == 0:
            return None
        listener = NotificationListener(settings.address, settings.port, self._notified)
        log.info("event=listening_for_notifications address=%s port=%d", settings.address, listener.port)
        return listener

    def _notified(self, untrusted_octets: bytes) -> bool:
        """In a connection's thread."""
        if self._queue.qsize() > MAX_WAITING:
            return False
        self._queue.put(_Notification(untrusted_octets))
        return True

    # -- events ------------------------------------------------------------------------------------------------------

    def _image_event(self, event: ImageEvent) -> None:
        """In a download's thread: the alert is durable when this returns, the tree follows in its own thread."""
        self._reporter.image(event)
        self._queue.put(event)

    def _vm_event(self, event: VmEvent) -> None:
        """In a VM's worker thread: likewise."""
        self._reporter.operation(event)
        self._queue.put(event)

    def _wake(self) -> None:
        """In any thread: there is something to do in the tree."""
        self._queue.put(_TreeTasks())

    def _settle_events(self) -> None:
        """Let the tree follow all events so far; session wishes and the end of the loop wait."""
        later: list[_Request] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, _Request):
                later.append(item)
            else:
                self._settle(item)
        self._management.settle()
        self.resources.settle()
        for item in later:
            self._queue.put(item)

    def _settle(self, event: VmEvent | ImageEvent | GuestEvent | _TreeTasks) -> None:
        if isinstance(event, (GuestEvent, _TreeTasks)):
            return  # the alert that a GuestEvent comes with is in the outbox; tasks are done when all is settled
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

    def _first_nonce(self, server_id: str, role: NonceRole) -> bytes | None:
        return read_nonce(self.tree, account_path(server_id), role)

    # -- control -----------------------------------------------------------------------------------------------------

    def _control_calls(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "status": lambda _: self._checked(self.overview.status),
            "vm.list": lambda _: self.overview.vms(),
            "vm.show": lambda call: self._checked(lambda: self.overview.vm(str(call.get("vm", "")))),
            "image.list": lambda _: self.overview.images(),
            "session": self._wish_sessions,
            **guest_calls(self.guests, self.overview.vmid),
            **self.resources.calls(lambda: self.overview.nodes),
        }

    @staticmethod
    def _checked(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except HypervisorError as error:
            raise ControlError(f"the hypervisor does not answer: {error}") from error

    def _wish_sessions(self, call: Mapping[str, Any]) -> dict[str, Any]:
        recorder = Recorder() if call.get("trace") else None
        wish = _SessionWish(call.get("server"), recorder)
        self._queue.put(wish)
        if not wish.done.wait(SESSION_WAIT):
            raise ControlError(f"the sessions did not end within {SESSION_WAIT:.0f} s")
        if not wish.reports:
            wanted = "" if wish.server_id is None else f" for {wish.server_id!r}"
            raise ControlError(f"there is no server account{wanted} (dm.accounts in the configuration)")
        sessions = [{"server_id": r.server_id, "ok": r.ok, "outcome": r.sentence} for r in wish.reports]
        recorded = {} if recorder is None else {"messages": recorder.as_json(), "left_out": recorder.left_out}
        return {"ok": all(report.ok for report in wish.reports), "sessions": sessions, **recorded}


def run(config: AgentConfig) -> int:
    """``virmo-agent run``: serve until SIGTERM or SIGINT."""
    set_up(config.log)
    try:
        agent = Agent(config, console_at(config.dm.console))
    except lockfile.AlreadyRunning as error:
        log.error("event=not_started reason=%r", str(error))
        return 1

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        agent.start()
        log.info(
            "event=started version=%s device=%s backend=%s",
            agent_version(),
            config.device.id,
            config.hypervisor.backend,
        )
        agent.serve()
    finally:
        agent.close()
        log.info("event=stopped")
    return 0
