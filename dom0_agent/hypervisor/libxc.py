"""Looks at domains and memory, and pauses and unpauses, through libxenctrl: microseconds instead of a process each.

Whatever needs the toolstack's knowledge (devices, configuration) goes through ``xl``. The library's structures belong
to one Xen release, so the library is loaded by the running Xen's version, only the leading fields that have been the
same since Xen 4.5 (domains) and 4.16 (memory) are read, one domain a call, into a buffer far larger than any release's.
And it is believed only if at the start it says the same as ``xl`` (:func:`open_libxc`); else the caller goes on with
``xl``.
"""

from __future__ import annotations

import ctypes
import logging
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, HostInfo, HypervisorError

logger = logging.getLogger(__name__)

PAGE = 4096  #: Xen's pages, on x86 and on Arm
#: Domids below this are domains; above are Xen's reserved ones (DOMID_FIRST_RESERVED).
RESERVED = 0x7FF0
#: What free memory may differ between two looks in a row: somebody's balloon, a domain being torn down.
DRIFT = 64 << 20

# struct xen_domctl_getdomaininfo: domid, pad, flags, tot, max, outstanding, shared, paged pages, shared_info frame,
# cpu_time (ns), online vcpus, max vcpu id, ssidref, handle (the UUID)
_DOMAIN = struct.Struct("=HHI7Q3I16s")
# struct xen_sysctl_physinfo: threads, cores, cpus, max cpu, nodes, max node, kHz, capabilities, arch capabilities, pad,
# then total, free, scrub and outstanding pages
_PHYSICAL = struct.Struct("=10I4Q")
# struct xen_domctl_sched_credit and _credit2 (with a cap since Xen 4.10): weight, cap
_SCHEDULING = struct.Struct("=2H")
_BUFFER = 4096

_DYING, _SHUTDOWN, _PAUSED = 1 << 0, 1 << 2, 1 << 3
_REASON_SHIFT = 16
_REASONS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "crash", 5: "reboot"}


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory, in bytes."""

    total: int
    free: int


Buffer = ctypes.Array[ctypes.c_char]


class Library(Protocol):
    """What is used of libxenctrl; tests pass another one."""

    def xc_interface_open(self, logger: None, dombuild_logger: None, flags: int) -> int | None: ...
    def xc_interface_close(self, handle: int) -> int: ...
    def xc_domain_getinfolist(
        self, handle: int, first: int, count: int, buffer: ctypes.Array[ctypes.c_char]
    ) -> int: ...
    def xc_physinfo(self, handle: int, buffer: Buffer) -> int: ...
    def xc_domain_pause(self, handle: int, domid: int) -> int: ...
    def xc_domain_unpause(self, handle: int, domid: int) -> int: ...
    def xc_sched_credit_domain_get(self, handle: int, domid: int, buffer: Buffer) -> int: ...
    def xc_sched_credit_domain_set(self, handle: int, domid: int, buffer: Buffer) -> int: ...
    def xc_sched_credit2_domain_get(self, handle: int, domid: int, buffer: Buffer) -> int: ...
    def xc_sched_credit2_domain_set(self, handle: int, domid: int, buffer: Buffer) -> int: ...


class Libxc:
    """An open libxenctrl. Thread-safe."""

    def __init__(self, library: Library) -> None:
        """:class:`HypervisorError` when the hypervisor cannot be reached."""
        self._library = library
        self._lock = threading.Lock()  # the library's handle is for one thread at a time
        handle = library.xc_interface_open(None, None, 0)
        if not handle:
            raise HypervisorError("libxenctrl cannot open the hypervisor interface")
        self._handle: int | None = handle

    def domains(self) -> tuple[DomainInfo, ...]:
        """All domains, dom0 and dying ones included; their names are empty, which Xen itself does not know."""
        buffer = ctypes.create_string_buffer(_BUFFER)
        domains = []
        first = 0
        with self._lock:
            while first < RESERVED:
                found = self._library.xc_domain_getinfolist(self._open(), first, 1, buffer)
                if found < 0:
                    raise HypervisorError("libxenctrl cannot list the domains")
                if found == 0:
                    break
                domains.append(_domain(buffer.raw))
                first = domains[-1].domid + 1
        return tuple(domains)

    def memory(self) -> Memory:
        """The machine's memory; what is promised to domains in the making is not free."""
        buffer = ctypes.create_string_buffer(_BUFFER)
        with self._lock:
            if self._library.xc_physinfo(self._open(), buffer) != 0:
                raise HypervisorError("libxenctrl cannot tell the machine's memory")
        total, free, _, outstanding = _PHYSICAL.unpack_from(buffer.raw)[10:14]
        return Memory(total * PAGE, max(0, free - outstanding) * PAGE)

    def pause(self, domid: int) -> None:
        """Stop a domain's vCPUs. It must not have a device model, which would have to be told."""
        self._do("pause", self._library.xc_domain_pause, domid)

    def unpause(self, domid: int) -> None:
        """Undo one :meth:`pause`, or the one that a domain is built with."""
        self._do("unpause", self._library.xc_domain_unpause, domid)

    def scheduling(self, scheduler: str, domid: int) -> tuple[int, int]:
        """(weight, cap) under ``scheduler`` (credit or credit2), which must be the domain's."""
        buffer = ctypes.create_string_buffer(_BUFFER)
        calls = {
            "credit": self._library.xc_sched_credit_domain_get,
            "credit2": self._library.xc_sched_credit2_domain_get,
        }
        with self._lock:
            if calls[scheduler](self._open(), domid, buffer) != 0:
                raise HypervisorError(f"libxenctrl cannot tell the {scheduler} parameters of domain {domid}")
        weight, cap = _SCHEDULING.unpack_from(buffer.raw)
        return weight, cap

    def set_scheduling(self, scheduler: str, domid: int, weight: int, cap: int) -> None:
        """Set both."""
        buffer = ctypes.create_string_buffer(_SCHEDULING.pack(weight, cap), _BUFFER)
        calls = {
            "credit": self._library.xc_sched_credit_domain_set,
            "credit2": self._library.xc_sched_credit2_domain_set,
        }
        with self._lock:
            if calls[scheduler](self._open(), domid, buffer) != 0:
                raise HypervisorError(f"libxenctrl cannot set the {scheduler} parameters of domain {domid}")

    def _do(self, what: str, call: Callable[[int, int], int], domid: int) -> None:
        with self._lock:
            if call(self._open(), domid) != 0:
                raise HypervisorError(f"libxenctrl cannot {what} domain {domid}")

    def close(self) -> None:
        """Let go of the hypervisor interface."""
        with self._lock:
            if self._handle is not None:
                self._library.xc_interface_close(self._handle)
                self._handle = None

    def _open(self) -> int:
        if self._handle is None:
            raise HypervisorError("the hypervisor interface is closed")
        return self._handle


def _domain(raw: bytes) -> DomainInfo:
    fields = _DOMAIN.unpack_from(raw)
    domid, _, flags, pages, _, _, shared, _, _, nanoseconds, vcpus, _, _, handle = fields
    reason = _REASONS.get((flags >> _REASON_SHIFT) & 0xFF, "crash") if flags & _SHUTDOWN else None
    return DomainInfo(
        uuid=UUID(bytes=handle),
        domid=domid,
        name="",
        state=_state(flags, reason),
        memory=(pages - shared) * PAGE,
        vcpus=vcpus,
        cpu_seconds=nanoseconds / 1e9,
        shutdown_reason=None if flags & _DYING else reason,
    )


def _state(flags: int, reason: str | None) -> DomainState:
    if flags & _DYING:
        return DomainState.DYING
    if reason is not None:
        return DomainState.CRASHED if reason == "crash" else DomainState.SHUTDOWN
    return DomainState.PAUSED if flags & _PAUSED else DomainState.RUNNING


def load_library(version: str) -> Library:
    """libxenctrl of a Xen version such as "4.17.7". :class:`OSError` when it is not there."""
    library = ctypes.CDLL(f"libxenctrl.so.{'.'.join(version.split('.')[:2])}", use_errno=True)
    library.xc_interface_open.restype = ctypes.c_void_p
    library.xc_interface_open.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    library.xc_interface_close.argtypes = (ctypes.c_void_p,)
    library.xc_domain_getinfolist.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint, ctypes.c_void_p)
    library.xc_physinfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.xc_domain_pause.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.xc_domain_unpause.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    for scheduler in ("credit", "credit2"):
        for verb in ("get", "set"):
            call = getattr(library, f"xc_sched_{scheduler}_domain_{verb}")
            call.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
    return library


def open_libxc(host: HostInfo, domains: tuple[DomainInfo, ...], library: Library | None = None) -> Libxc | None:
    """An open libxenctrl that agrees with what ``xl`` has just said; ``None`` when there is none such."""
    try:
        libxc = Libxc(library or load_library(host.version))
    except (OSError, AttributeError, HypervisorError) as error:
        logger.info("libxenctrl_not_used reason=%s", error)
        return None
    try:
        difference = _difference(libxc, host, domains)
    except HypervisorError as error:
        difference = str(error)
    if difference:
        logger.warning("libxenctrl_not_used reason=%s", difference)
        libxc.close()
        return None
    return libxc


def _difference(libxc: Libxc, host: HostInfo, domains: tuple[DomainInfo, ...]) -> str:
    """How it differs from ``xl``, empty when it does not. What moves by itself (time, states) is not compared."""
    memory = libxc.memory()
    if memory.total >> 20 != host.total_memory >> 20 or abs(memory.free - host.free_memory) > DRIFT:
        return f"it says {memory} and xl says {host.total_memory} and {host.free_memory}"
    seen = {domain.domid: domain for domain in libxc.domains()}
    for domain in domains:
        other = seen.get(domain.domid)
        if other is None or (other.uuid, other.vcpus) != (domain.uuid, domain.vcpus):
            return f"it says {other} of domain {domain.domid} and xl says {domain}"
        if abs(other.memory - domain.memory) > DRIFT:
            return f"it says domain {domain.domid} has {other.memory} bytes and xl says {domain.memory}"
    return ""
