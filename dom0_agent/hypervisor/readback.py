"""Makes a toolstack trustworthy: every call that changes something is followed by a look at what Xen then says.

The backends (``xl``, ``sim``) are thin: they run a tool and report its complaint. That a call *worked* is only
believed here, after the domain list says so: a tool that returns 0 without doing its work is an error like any other.
Knows domains, not tools and not VMs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dom0_agent.guest.source import ChannelSource
from dom0_agent.hypervisor import xlcfg
from dom0_agent.hypervisor.broker import MemoryBroker
from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainExists,
    DomainInfo,
    DomainState,
    GuestFacts,
    HostInfo,
    HypervisorError,
    HypervisorTimeout,
    NoSuchDomain,
    NotCapable,
)
from dom0_agent.hypervisor.readback_resources import RawResources, ReadBackResources
from dom0_agent.hypervisor.resources import DomainResources

logger = logging.getLogger(__name__)

#: Seconds after which a change that a tool reported as done must be visible.
SETTLE = 5.0
#: Seconds that a destroyed domain gets to be torn down: Xen scrubs its memory, backends let go of their devices.
TEARDOWN = 30.0
#: Seconds after which a domain that is to be destroyed, and was not in the list, is looked for once more.
ABSENCE = 0.2
_POLL = 0.1
MIB = 1 << 20


class Toolstack(Protocol):
    """The raw calls of a backend. Each may fail with a :class:`HypervisorError`; none checks its own success."""

    def host(self) -> HostInfo: ...
    def can_save(self) -> bool: ...
    def domains(self) -> tuple[DomainInfo, ...]: ...
    def create(self, config: DomainConfig) -> None: ...
    def unpause(self, domain: DomainInfo) -> None: ...
    def pause(self, domain: DomainInfo) -> None: ...
    def request_shutdown(self, domain: DomainInfo) -> None: ...
    def destroy(self, domain: DomainInfo) -> None: ...
    def save(self, domain: DomainInfo, path: Path) -> None: ...
    def restore(self, path: Path, config: DomainConfig) -> None: ...
    def guest_facts(self, domain: DomainInfo) -> GuestFacts: ...
    def channels(self) -> ChannelSource: ...
    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]: ...
    def close(self) -> None: ...
    @property
    def resources(self) -> RawResources: ...


class ReadBackHypervisor:
    """The :class:`~dom0_agent.hypervisor.interface.Hypervisor` over a :class:`Toolstack`."""

    def __init__(self, toolstack: Toolstack, *, settle: float = SETTLE, teardown: float = TEARDOWN) -> None:
        self._toolstack = toolstack
        self._settle = settle
        self._teardown = teardown
        self.broker = MemoryBroker(lambda: self._toolstack.host().free_memory, teardown)
        self._resources = ReadBackResources(toolstack.resources, self._get, self.broker, settle)

    @property
    def resources(self) -> DomainResources:
        """What shares the machine out."""
        return self._resources

    def host(self) -> HostInfo:
        """Facts of the machine, read now."""
        return self._toolstack.host()

    def domains(self) -> tuple[DomainInfo, ...]:
        """All domains but dom0; dying ones left out."""
        return tuple(d for d in self._toolstack.domains() if d.domid != 0 and d.state is not DomainState.DYING)

    def find(self, uuid: UUID) -> DomainInfo | None:
        """The domain with this UUID, or ``None``."""
        return next((d for d in self.domains() if d.uuid == uuid), None)

    def create(self, config: DomainConfig) -> DomainInfo:
        """Build the domain and leave it paused; nothing of it is left behind on failure."""
        return self._build(config, lambda: self._toolstack.create(config), "create")

    def restore(self, path: Path, config: DomainConfig) -> DomainInfo:
        """Build the domain from a saved state and leave it paused. The file is left in place."""
        self._need_save()
        if not path.is_file():
            raise HypervisorError(f"restore of domain {config.uuid}: there is no saved state {path}")
        return self._build(config, lambda: self._toolstack.restore(path, config), "restore")

    def unpause(self, uuid: UUID) -> None:
        """Let its vCPUs run."""
        domain = self._get(uuid, "unpause")
        if domain.state is DomainState.PAUSED:
            self._toolstack.unpause(domain)
            self._await(uuid, "unpause", "still paused", lambda d: d is None or d.state is not DomainState.PAUSED)

    def pause(self, uuid: UUID) -> None:
        """Stop its vCPUs; memory stays."""
        domain = self._get(uuid, "pause")
        if domain.state is not DomainState.PAUSED:
            self._toolstack.pause(domain)
            after = self._await(
                uuid, "pause", "still running", lambda d: d is None or d.state is not DomainState.RUNNING
            )
            if after is None or after.state is not DomainState.PAUSED:
                raise HypervisorError(f"pause of domain {uuid}: it ended meanwhile")

    def request_shutdown(self, uuid: UUID) -> None:
        """Ask the guest to power off; returns at once."""
        self._toolstack.request_shutdown(self._get(uuid, "shutdown"))

    def destroy(self, uuid: UUID) -> None:
        """End it now; returns when it is gone. No error when it was not there."""
        domain = self._find_surely(uuid)
        if domain is None:
            return
        try:
            self._toolstack.destroy(domain)
        except HypervisorTimeout:
            raise
        except HypervisorError:
            if self.find(uuid) is not None:  # it may have ended by itself between the look and the call
                raise
            return
        self._await(uuid, "destroy", "still there", lambda d: d is None, self._teardown)

    def save(self, uuid: UUID, path: Path) -> None:
        """Write the running domain's state to ``path``, durably, and end it. On failure it runs on, without a file."""
        self._need_save()
        domain = self._get(uuid, "save")
        if domain.state is not DomainState.RUNNING:
            raise HypervisorError(f"save of domain {uuid}: it is {domain.state.value}, only a running one can be saved")
        partial = _partial(path)
        try:
            self._toolstack.save(domain, partial)
            self._await(uuid, "save", "still there", lambda d: d is None, self._teardown)
            if not adopt_saved(path):
                raise HypervisorError(f"save of domain {uuid}: the domain is gone, but there is no file {partial}")
        except BaseException:
            if self.find(uuid) is not None:  # else the file is all that is left of the guest: keep it for recovery
                partial.unlink(missing_ok=True)
            raise

    def guest_facts(self, uuid: UUID) -> GuestFacts:
        """What the guest's shim says of itself, caps and validation applied."""
        return self._toolstack.guest_facts(self._get(uuid, "guest facts"))

    def channels(self) -> ChannelSource:
        """Where the channels to shims in guests come from."""
        return self._toolstack.channels()

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """Call ``hint`` (from any thread) whenever some domain may have changed; returns the unsubscribe."""
        return self._toolstack.subscribe(hint)

    def close(self) -> None:
        """Stop watching and free what the agent itself holds; domains go on."""
        self._toolstack.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _get(self, uuid: UUID, call: str) -> DomainInfo:
        domain = self.find(uuid)
        if domain is None:
            raise NoSuchDomain(f"{call}: there is no domain {uuid}")
        return domain

    def _find_surely(self, uuid: UUID) -> DomainInfo | None:
        """As :meth:`find`, but absence must persist: a list misses a domain for a moment when another one goes."""
        domain = self.find(uuid)
        if domain is None:
            time.sleep(ABSENCE)
            domain = self.find(uuid)
        return domain

    def _need_save(self) -> None:
        if not self._toolstack.can_save():
            raise NotCapable("this platform cannot save a domain to storage (Xen on Arm has no save and restore)")

    def _build(self, config: DomainConfig, build: Callable[[], None], call: str) -> DomainInfo:
        xlcfg.render(config)  # what Xen could not be told is refused on every backend
        if self.find(config.uuid) is not None:
            raise DomainExists(f"{call}: domain {config.uuid} is already there")
        with self.broker.granted(config.memory + overhead(config), f"domain {config.uuid}"):
            try:
                build()
                return self._built(config, call)
            except BaseException:
                self._clear_away(config.uuid)
                raise

    def _built(self, config: DomainConfig, call: str) -> DomainInfo:
        domain = self._await(config.uuid, call, "not there", lambda d: d is not None)
        if domain is None or domain.state is not DomainState.PAUSED:
            state = "gone" if domain is None else domain.state.value
            raise HypervisorError(f"{call} of domain {config.uuid}: it should be paused, but is {state}")
        return domain

    def _clear_away(self, uuid: UUID) -> None:
        """Half-built domains hold memory. A failure here is logged: the caller's error says what matters."""
        try:
            self.destroy(uuid)
        except HypervisorError as error:
            logger.error("half_built_domain_stays uuid=%s error=%s", uuid, error)

    def _await(
        self,
        uuid: UUID,
        call: str,
        otherwise: str,
        holds: Callable[[DomainInfo | None], bool],
        deadline: float | None = None,
    ) -> DomainInfo | None:
        """Re-read the domain until ``holds``; :class:`HypervisorError` when it does not in time."""
        end = time.monotonic() + (self._settle if deadline is None else deadline)
        while True:
            domain = self.find(uuid)
            if holds(domain):
                return domain
            if time.monotonic() >= end:
                raise HypervisorError(
                    f"{call} of domain {uuid}: the tool reported success, but the domain is {otherwise}"
                )
            time.sleep(_POLL)


def _not_running(domain: DomainInfo | None) -> bool:
    return domain is None or domain.state is not DomainState.RUNNING


def overhead(config: DomainConfig) -> int:
    """Bytes that Xen takes for a domain beside its memory: tables of its vCPUs, shadow or nested page tables."""
    return config.max_vcpus * MIB + config.max_memory // 128 + 2 * MIB


def _partial(path: Path) -> Path:
    """What a save writes to until it is complete."""
    return path.with_name(path.name + ".partial")


def adopt_saved(path: Path) -> bool:
    """Make a finished save's file durable under its name ``path``; ``False`` when there is none.

    Also for recovery: when the agent was killed during a save and the domain is gone afterwards, the toolstack had
    completed the file (it ends a domain only then), and this finishes the agent's part.
    """
    partial = _partial(path)
    if not path.is_file():
        if not partial.is_file() or partial.stat().st_size == 0:
            return False
        _make_durable(partial)
        partial.rename(path)
    _make_durable(path.parent)
    return True


def saved_size(path: Path) -> int:
    """Bytes of a saved state, complete or being written."""
    for file in (path, _partial(path)):
        try:
            return file.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def discard_saved(path: Path) -> None:
    """Remove a saved state and what a broken save left of it."""
    path.unlink(missing_ok=True)
    _partial(path).unlink(missing_ok=True)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
