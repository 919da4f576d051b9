"""Tells the simulator to fail, hang, lie or succeed late at any call: a table in a file, so that a running daemon can
be told from outside.

``faults.json`` in the simulator's state directory (or the file that ``VIRMO_SIM_FAULTS`` names) is a list of objects::

    {"call": "create", "behaviour": "fail", "count": 1, "seconds": 0.2, "message": "…", "uuid": "…", "error": "…"}

``call``: create, restore, save, pause, unpause, request_shutdown, destroy, domains, host, set_scheduling, set_vcpus,
set_memory_target, set_memory_maximum, resize_disk, attach, detach.
``behaviour``:

======== ==============================================================================================
fail     error before any effect (``error``: ``OutOfMemory`` for that one)
break    the effect happens, then an error
hang     ``seconds`` pass, then a timeout; no effect
late     a timeout at once; the effect happens ``seconds`` later
slow     ``seconds`` pass, then it works
lie      success, without any effect (``domains``: the domains, or the one with ``uuid``, are not told)
die      the calling process is killed (SIGKILL) before the effect
dead     the calling process is killed (SIGKILL) after the effect
======== ==============================================================================================

``count`` calls are hit (absent: all); ``uuid`` limits it to one domain.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from dom0_agent.guest.source import ChannelSource
from dom0_agent.hypervisor.interface import (
    DomainConfig,
    DomainInfo,
    GuestFacts,
    HostInfo,
    HypervisorError,
    HypervisorTimeout,
    OutOfMemory,
)
from dom0_agent.hypervisor.readback import Toolstack
from dom0_agent.hypervisor.readback_resources import RawResources
from dom0_agent.hypervisor.sim.faulty_resources import FaultyResources
from dom0_agent.hypervisor.sim.ledger import write_text

logger = logging.getLogger(__name__)

BEHAVIOURS = frozenset({"fail", "break", "hang", "late", "slow", "lie", "die", "dead"})

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table."""

    call: str
    behaviour: str
    count: int | None = None
    seconds: float = 0.2
    message: str = "the simulator was told to fail"
    uuid: str | None = None
    error: str = "HypervisorError"

    def __post_init__(self) -> None:
        if self.behaviour not in BEHAVIOURS:
            raise ValueError(f"unknown behaviour {self.behaviour!r}; known: {', '.join(sorted(BEHAVIOURS))}")


class FaultTable:
    """The file. Read at each call; counted down under a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, *faults: Fault) -> None:
        """Replace the table."""
        write_text(self.path, json.dumps([asdict(fault) for fault in faults]))

    def take(self, call: str, uuid: UUID | None) -> Fault | None:
        """The fault that hits this call, counted."""
        if not self.path.exists():
            return None
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            faults = [Fault(**line) for line in json.loads(self.path.read_text(encoding="utf-8"))]
            for index, fault in enumerate(faults):
                if fault.call != call or fault.count == 0:
                    continue
                if fault.uuid is not None and uuid is not None and fault.uuid != str(uuid):
                    continue
                if fault.count is not None:
                    faults[index] = replace(fault, count=fault.count - 1)
                    self.set(*faults)
                return fault
        return None


class FaultyToolstack:
    """A toolstack that misbehaves as its table says."""

    def __init__(self, inner: Toolstack, table: FaultTable) -> None:
        self._inner = inner
        self._table = table
        self._resources = FaultyResources(inner.resources, self._do, self._uuid_of)

    def host(self) -> HostInfo:
        """See :class:`Toolstack`."""
        return self._ask("host", self._inner.host, lambda fault: self._inner.host())

    def can_save(self) -> bool:
        """See :class:`Toolstack`."""
        return self._inner.can_save()

    def domains(self) -> tuple[DomainInfo, ...]:
        """See :class:`Toolstack`."""

        def lie(fault: Fault) -> tuple[DomainInfo, ...]:
            return tuple(d for d in self._inner.domains() if fault.uuid is not None and str(d.uuid) != fault.uuid)

        return self._ask("domains", self._inner.domains, lie)

    def create(self, config: DomainConfig) -> None:
        """See :class:`Toolstack`."""
        self._do("create", config.uuid, lambda: self._inner.create(config))

    def restore(self, path: Path, config: DomainConfig) -> None:
        """See :class:`Toolstack`."""
        self._do("restore", config.uuid, lambda: self._inner.restore(path, config))

    def unpause(self, domain: DomainInfo) -> None:
        """See :class:`Toolstack`."""
        self._do("unpause", domain.uuid, lambda: self._inner.unpause(domain))

    def pause(self, domain: DomainInfo) -> None:
        """See :class:`Toolstack`."""
        self._do("pause", domain.uuid, lambda: self._inner.pause(domain))

    def request_shutdown(self, domain: DomainInfo) -> None:
        """See :class:`Toolstack`."""
        self._do("request_shutdown", domain.uuid, lambda: self._inner.request_shutdown(domain))

    def destroy(self, domain: DomainInfo) -> None:
        """See :class:`Toolstack`."""
        self._do("destroy", domain.uuid, lambda: self._inner.destroy(domain))

    def save(self, domain: DomainInfo, path: Path) -> None:
        """See :class:`Toolstack`."""
        self._do("save", domain.uuid, lambda: self._inner.save(domain, path))

    def guest_facts(self, domain: DomainInfo) -> GuestFacts:
        """See :class:`Toolstack`."""
        return self._inner.guest_facts(domain)

    def channels(self) -> ChannelSource:
        """See :class:`Toolstack`."""
        return self._inner.channels()

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        """See :class:`Toolstack`."""
        return self._inner.subscribe(hint)

    @property
    def resources(self) -> RawResources:
        """See :class:`Toolstack`."""
        return self._resources

    def close(self) -> None:
        """See :class:`Toolstack`."""
        self._inner.close()

    def _uuid_of(self, domid: int) -> UUID | None:
        return next((domain.uuid for domain in self._inner.domains() if domain.domid == domid), None)

    def _do(self, call: str, uuid: UUID, effect: Callable[[], None]) -> None:
        fault = self._table.take(call, uuid)
        if fault is None:
            effect()
            return
        match fault.behaviour:
            case "lie":
                return
            case "late":
                timer = threading.Timer(fault.seconds, _late, (call, uuid, effect))
                timer.daemon = True
                timer.start()
                raise HypervisorTimeout(f"{call} of domain {uuid}: {fault.message}")
            case behaviour:
                _misbehave(behaviour, call, fault, effect)

    def _ask(self, call: str, effect: Callable[[], Result], lie: Callable[[Fault], Result]) -> Result:
        fault = self._table.take(call, None)
        if fault is None:
            return effect()
        if fault.behaviour == "lie":
            return lie(fault)
        _misbehave(fault.behaviour, call, fault, lambda: None)
        return effect()


def _late(call: str, uuid: UUID, effect: Callable[[], None]) -> None:
    """What a tool still does after its caller gave it up; by then it may be impossible, and nobody hears of it."""
    try:
        effect()
    except HypervisorError as error:
        logger.info("late_effect_failed call=%s uuid=%s error=%s", call, uuid, error)


def _misbehave(behaviour: str, call: str, fault: Fault, effect: Callable[[], None]) -> None:
    error = OutOfMemory if fault.error == "OutOfMemory" else HypervisorError
    if behaviour == "fail":
        raise error(f"{call}: {fault.message}")
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour in ("hang", "slow"):
        time.sleep(fault.seconds)
    if behaviour in ("hang", "late"):
        raise HypervisorTimeout(f"{call}: {fault.message}")
    effect()
    if behaviour == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "break":
        raise error(f"{call}: {fault.message}")
