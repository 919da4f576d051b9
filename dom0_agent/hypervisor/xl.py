"""Real Xen, through ``xl`` and XenStore.

Thin on purpose: each method runs one tool with a deadline and turns its complaint into an error; whether it worked is
checked by :mod:`dom0_agent.hypervisor.readback`. Requires ``autoballoon="off"`` in xl.conf (``doctor`` checks it):
memory is counted here, and no host-wide lock is held. ``-e`` leaves no xl process behind, so that the domain's end is
the agent's to handle.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dom0_agent.guest.facts import NO_FACTS, parse_facts
from dom0_agent.guest.rendezvous import XenRendezvous
from dom0_agent.hypervisor import xlcfg
from dom0_agent.hypervisor.domain_names import DomainNames
from dom0_agent.hypervisor.interface import DomainConfig, DomainInfo, GuestFacts, HostInfo, HypervisorError, OutOfMemory
from dom0_agent.hypervisor.libxc import Libxc, open_libxc
from dom0_agent.hypervisor.readback import ReadBackHypervisor
from dom0_agent.hypervisor.tool import ToolResult, ToolRunner, await_orphans, run_tool
from dom0_agent.hypervisor.xenstore import XenStore, XenStoreError
from dom0_agent.hypervisor.xl_devices import usb_addresses
from dom0_agent.hypervisor.xl_output import offers, parse_domains, parse_info
from dom0_agent.hypervisor.xl_resources import XlResources

logger = logging.getLogger(__name__)

#: Seconds for calls that only ask or flip a switch. Under load (burning guests at dom0's weight) xl needs tens of them.
SHORT = 60.0
#: Seconds for a guest that has no Xen drivers, or is not up yet, to take a shutdown request.
PRESS = 15.0
#: Seconds for building a domain: unpacking a compressed kernel in an emulated dom0 took 28.
BUILD = 180.0
#: Seconds for saving or restoring, and bytes a second that the slowest storage we serve still writes.
SAVE_BASE = 60.0
SAVE_RATE = 4 << 20
#: Seconds that a guest which is to be saved gets for its boot, its kernel for what follows once it obeys requests to
#: suspend; and between looks at it.
UP, SETTLED = 180.0, 20.0
_LOOK = 1.0
#: Seconds that the tools of a killed agent get to end by themselves at the next start.
ORPHAN_DEADLINE = 120.0

#: What xl says when there is not enough memory, in its several voices.
_OUT_OF_MEMORY = ("cannot allocate memory", "not enough memory", "out of memory", "failed to free memory", "enomem")


def open_xl(run_dir: Path, *, run: ToolRunner = run_tool, store: XenStore | None = None) -> ReadBackHypervisor:
    """The hypervisor of this dom0. ``run_dir`` (made, mode 0700) holds configuration files while xl reads them.

    First waits for tools that an agent killed before this one may have left running.
    """
    orphans = await_orphans("xl", ORPHAN_DEADLINE)
    if orphans:
        logger.warning("orphaned_tools_ended count=%d", orphans)
    xl = Xl(run_dir, run, store or XenStore())
    xl.look_directly()
    return ReadBackHypervisor(xl)


class Xl:
    """The :class:`~dom0_agent.hypervisor.readback.Toolstack` of real Xen."""

    def __init__(self, run_dir: Path, run: ToolRunner, store: XenStore) -> None:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run_dir = run_dir
        self._run_tool = run
        self._store = store
        self._rendezvous = XenRendezvous(store)
        self._lock = threading.Lock()
        self._can_save: bool | None = None
        self._libxc: Libxc | None = None
        self._host: HostInfo | None = None
        self._names = DomainNames(store)
        self._resources = XlResources(store, self._run, lambda: self.host().scheduler, lambda: self._libxc)
        for leftover in run_dir.glob("*.xlcfg"):
            leftover.unlink(missing_ok=True)

    def look_directly(self) -> None:
        """From now on, look through libxenctrl if that is there and agrees with ``xl``."""
        host = self.host()
        self._libxc = open_libxc(host, self.domains())
        self._host = host

    def host(self) -> HostInfo:
        """``xl info``; once we look directly, only the memory is read anew."""
        if self._libxc is not None and self._host is not None:
            memory = self._libxc.memory()
            return replace(self._host, total_memory=memory.total, free_memory=memory.free)
        output = self._run(["xl", "info"], SHORT, "info").untrusted_stdout
        return parse_info(output, can_save=self.can_save())

    def can_save(self) -> bool:
        """Whether this xl has ``save`` (asked once)."""
        with self._lock:
            if self._can_save is None:
                self._can_save = offers(self._run(["xl", "help"], SHORT, "help").untrusted_stdout, "save")
            return self._can_save

    def domains(self) -> tuple[DomainInfo, ...]:
        """``xl list -v``: the only form that tells UUID, state and shutdown reason at once. Or the direct look."""
        if self._libxc is not None:
            return self._names.add(self._libxc.domains())
        return parse_domains(self._run(["xl", "list", "-v"], SHORT, "list").untrusted_stdout)

    def create(self, config: DomainConfig) -> None:
        """``xl create -q -e -p``."""
        with self._config_file(config) as file:
            self._run(["xl", "create", "-q", "-e", "-p", str(file)], BUILD, f"create of domain {config.uuid}")

    def restore(self, path: Path, config: DomainConfig) -> None:
        """``xl restore -e -p``, with our configuration instead of the one in the file."""
        with self._config_file(config) as file:
            command = ["xl", "restore", "-e", "-p", str(file), str(path)]
            self._run(command, _transfer_deadline(config.memory), f"restore of domain {config.uuid}")

    def save(self, domain: DomainInfo, path: Path) -> None:
        """``xl save``; when it fails by itself it has let the domain run on.

        The guest's channel is closed first: memory of dom0 that a guest has mapped cannot be saved. Nor can a guest
        that is only just booting: a PV kernel that has not laid its memory out yet, a kernel that waits for its
        devices. If that may be why it failed, the guest is waited for, and it is tried once more.
        """
        with self._rendezvous.quiet(domain.uuid):
            had_spoken = self.guest_facts(domain) != NO_FACTS
            try:
                self._save(domain, path)
            except HypervisorError as error:
                if had_spoken or not self._comes_up(domain):
                    raise
                logger.warning("save_tried_again uuid=%s error=%s", domain.uuid, error)
                self._save(domain, path)

    def _save(self, domain: DomainInfo, path: Path) -> None:
        command = ["xl", "save", str(domain.domid), str(path)]
        self._run(command, _transfer_deadline(domain.memory), f"save of domain {domain.uuid}")

    def _comes_up(self, domain: DomainInfo) -> bool:
        """Wait for the guest's shim to speak, or, where there may be none, for some time after its kernel did.

        ``False`` when the domain ends or changes meanwhile, or too much time passes.
        """
        end, settled = time.monotonic() + UP, math.inf
        while time.monotonic() < end:
            if not any(found.domid == domain.domid and found.state is domain.state for found in self.domains()):
                return False
            if self.guest_facts(domain) != NO_FACTS or time.monotonic() > settled:
                return True
            if settled == math.inf and self._obeys_suspend(domain):
                settled = time.monotonic() + SETTLED
            time.sleep(_LOOK)
        return False

    def _obeys_suspend(self, domain: DomainInfo) -> bool:
        """Whether its kernel says so. Linux does when it boots, before its devices are there; not after a restore."""
        try:
            return self._store.read(f"/local/domain/{domain.domid}/control/feature-suspend") == b"1"
        except XenStoreError as error:
            logger.warning("suspend_support_unknown uuid=%s error=%s", domain.uuid, error)
            return False

    def unpause(self, domain: DomainInfo) -> None:
        """``xl unpause``, or the hypercall that it is where no device model has to be told."""
        if self._libxc is not None and not self._has_device_model(domain):
            self._libxc.unpause(domain.domid)
            return
        self._run(["xl", "unpause", str(domain.domid)], SHORT, f"unpause of domain {domain.uuid}")

    def pause(self, domain: DomainInfo) -> None:
        """``xl pause``, or the hypercall that it is."""
        if self._libxc is not None and not self._has_device_model(domain):
            self._libxc.pause(domain.domid)
            return
        self._run(["xl", "pause", str(domain.domid)], SHORT, f"pause of domain {domain.uuid}")

    def request_shutdown(self, domain: DomainInfo) -> None:
        """Write the request for a guest that has said it obeys; else ``xl shutdown -F`` (an ACPI button press).

        ``xl shutdown`` is second choice: it waits a minute for the guest to acknowledge.
        """
        control = f"/local/domain/{domain.domid}/control"
        try:
            if self._store.read(f"{control}/feature-poweroff") == b"1":
                self._store.write(f"{control}/shutdown", b"poweroff")
                return
        except XenStoreError as error:
            raise HypervisorError(f"shutdown of domain {domain.uuid}: {error}") from error
        self._run(["xl", "shutdown", "-F", str(domain.domid)], PRESS, f"shutdown of domain {domain.uuid}")

    def destroy(self, domain: DomainInfo) -> None:
        """``xl destroy``."""
        self._run(["xl", "destroy", str(domain.domid)], SHORT, f"destroy of domain {domain.uuid}")

    def guest_facts(self, domain: DomainInfo) -> GuestFacts:
        """The shim's nodes below the guest's own ``data/virmo``; the guest may write there what it likes."""
        base = f"/local/domain/{domain.domid}/data/virmo"
        try:
            return parse_facts(
                untrusted_boot_id=self._store.read(f"{base}/boot-id"),
                untrusted_beats=self._store.read(f"{base}/beats"),
                untrusted_version=self._store.read(f"{base}/version"),
            )
        except XenStoreError as error:
            logger.warning("guest_facts_unreadable uuid=%s error=%s", domain.uuid, error)
            return NO_FACTS

    def channels(self) -> XenRendezvous:
        """They begin in XenStore."""
        return self._rendezvous

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """Hints from ``@introduceDomain`` and ``@releaseDomain`` (which also fires when a domain shuts down)."""
        unwatches = [self._store.watch(path, lambda _: hint()) for path in ("@introduceDomain", "@releaseDomain")]

        def unsubscribe() -> None:
            for unwatch in unwatches:
                unwatch()

        return unsubscribe

    @property
    def resources(self) -> XlResources:
        """What shares the machine out."""
        return self._resources

    def close(self) -> None:
        """End the channels and the XenStore connection."""
        self._rendezvous.close()
        self._store.close()
        if self._libxc is not None:
            self._libxc.close()

    def _has_device_model(self, domain: DomainInfo) -> bool:
        """Whether a program in dom0 emulates the domain's machine (HVM). When in doubt, xl knows."""
        try:
            return bool(self._store.list(f"/local/domain/0/device-model/{domain.domid}"))
        except XenStoreError as error:
            logger.warning("device_model_unknown domid=%d error=%s", domain.domid, error)
            return True

    def _run(self, argv: Sequence[str], deadline: float, call: str) -> ToolResult:
        result = self._run_tool(argv, deadline)
        if result.returncode == 0:
            return result
        complaint = result.untrusted_complaint
        error = OutOfMemory if any(phrase in complaint.lower() for phrase in _OUT_OF_MEMORY) else HypervisorError
        raise error(f"{argv[0]} {call} failed (exit status {result.returncode}): {complaint}")

    @contextlib.contextmanager
    def _config_file(self, config: DomainConfig) -> Iterator[Path]:
        text = xlcfg.render(config, usb_addresses(), os.uname().machine)
        path = self._run_dir / f"{config.uuid}.xlcfg"
        try:
            path.write_text(text, encoding="ascii")
            yield path
        finally:
            path.unlink(missing_ok=True)


def _transfer_deadline(memory: int) -> float:
    return SAVE_BASE + memory / SAVE_RATE
