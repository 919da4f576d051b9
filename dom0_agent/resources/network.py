"""One bandwidth budget a VM, each way, over all of its interfaces: two ifb devices with an htb class each.

    guest ──▶ vif (ingress) ──redirect──▶ ifb up   (htb) ──▶ bridge        upstream
    guest ◀── vif (egress)  ◀─back─ ifb down (htb) ◀─redirect── bridge     downstream

Everything on the wire counts: ``protocol all`` and a u32 match of nothing take IPv4, IPv6, ARP and VLAN frames alike.
The ifb devices carry the VMID as alias, so that they are found again after a restart and nothing is left of a VM that
is gone. Level-triggered: :meth:`Shaper.shape` makes it so whatever there was, and reads it back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from dom0_agent.resources.tc import HtbClass, Shown, Tc, TcError

logger = logging.getLogger(__name__)

ALIAS = "virmo:"
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")  # IFNAMSIZ
KIBI = 1024
#: Bits a second below which no guest could do anything.
LEAST_RATE = 8000
#: Seconds of traffic that may pass at once, and that may wait; and the least of both in bytes (a GSO frame is 64 KiB).
BURST, QUEUE = 0.005, 0.1
LEAST_BURST, LEAST_QUEUE = 16 * KIBI, 128 * KIBI
#: htb asks for it, and uses it only between classes that share.
QUANTUM = 60000


@dataclass(frozen=True, slots=True)
class Rate:
    """Bits a second, each way: what is guaranteed, and the limit."""

    rate: int
    ceil: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that passed and packets that were dropped since the VM's start, each way, and the limit that held."""

    up: HtbClass
    down: HtbClass


def rate_of(bits: int, ceil: int | None = None) -> Rate:
    """A rate that tc can say back: whole kbit/s, from a Gbit/s on whole Mbit/s."""
    rate = _whole(max(LEAST_RATE, bits))
    return Rate(rate, rate if ceil is None else max(rate, _whole(ceil)))


def _whole(bits: int) -> int:
    unit = 10**6 if bits >= 10**9 else 10**3
    return bits // unit * unit


def device_names(vmid: UUID) -> tuple[str, str]:
    """The VM's ifb devices: (upstream, downstream)."""
    return f"vmu{vmid.hex[:11]}", f"vmd{vmid.hex[:11]}"


class Shaper:
    """The shaping of all VMs' interfaces."""

    def __init__(self, tc: Tc) -> None:
        self._tc = tc
        self._complete: dict[UUID, tuple[str, ...]] = {}  #: interfaces of VMs whose shaping this process has seen whole
        self._ahead: dict[UUID, tuple[tuple[str, ...], Rate]] = {}  #: what `shape_ahead` has made and seen
        self._touched: set[UUID] | None = None  #: VMs of which there may be something; None: not asked yet

    def shape_ahead(self, wanted: Mapping[UUID, tuple[Sequence[str], Rate]]) -> None:
        """Change the rates of several VMs in this order and look, in one process; :meth:`shape` then has less to do.

        Nothing fails here: what is not so afterwards is left to :meth:`shape`, which is to be called for each of them.
        """
        some = {v: (tuple(i), rate) for v, (i, rate) in wanted.items() if i and self._complete.get(v) == tuple(i)}
        self._ahead = {vmid: some[vmid] for vmid in self._changed(some)}

    def shape(self, vmid: UUID, interfaces: Sequence[str], rate: Rate | None) -> None:
        """Limit all ``interfaces`` together to ``rate``, both ways; ``None``: no limit, and nothing left of one."""
        if self._ahead.pop(vmid, None) == (tuple(interfaces), rate):
            return
        for name in interfaces:
            if not _INTERFACE.fullmatch(name):
                raise TcError(f"VM {vmid}: {name[:40]!r} is no interface's name")
        if rate is None or not interfaces:
            self.remove(vmid, interfaces)
            return
        if self._complete.get(vmid) == tuple(interfaces) and self._changed({vmid: (tuple(interfaces), rate)}):
            return
        self._complete.pop(vmid, None)
        self._known().add(vmid)
        self._devices(vmid)
        self._tc.batch([*self._queues(vmid, rate), *self._redirects(vmid, interfaces)])
        shown = self._tc.batch(_look(vmid, interfaces))
        problem = _problem(vmid, interfaces, rate, shown)
        if problem:
            raise TcError(f"network of VM {vmid}: it was set, but {problem}")
        self._complete[vmid] = tuple(interfaces)

    def holds(self, vmid: UUID, interfaces: Sequence[str], rate: Rate | None) -> bool:
        """Whether the kernel has it so now."""
        devices = self._owned().get(vmid, set())
        if rate is None or not interfaces:
            return not devices
        if devices != set(device_names(vmid)):
            return False
        try:
            return not _problem(vmid, interfaces, rate, self._tc.batch(_look(vmid, interfaces)))
        except TcError as error:
            logger.info("shaping_incomplete vmid=%s reason=%s", vmid, error)
            return False

    def remove(self, vmid: UUID, interfaces: Sequence[str] = ()) -> None:
        """Leave nothing behind: no filter on an interface that is still there, no ifb device."""
        self._complete.pop(vmid, None)
        names = self._owned().get(vmid, set())
        if names:
            with_filters = [name for name in interfaces if self._redirects_to(name, names)]
            self._tc.batch([f"qdisc del dev {name} clsact" for name in with_filters])
        for name in sorted(names):
            self._tc.ip("link", "delete", name)
        left = self._owned().get(vmid)
        if left:
            raise TcError(f"network of VM {vmid}: {', '.join(sorted(left))} was deleted, but is still there")
        self._known().discard(vmid)

    def knows(self, vmid: UUID) -> bool:
        """Whether the VM was limited, by this process or by one before it, and that was not removed again."""
        return vmid in self._known()

    def owned(self) -> frozenset[UUID]:
        """The VMs of which there are ifb devices."""
        return frozenset(self._owned())

    def traffic(self, vmid: UUID) -> Traffic | None:
        """Counters of a VM that is limited now."""
        if vmid not in self._owned():
            return None
        up, down = device_names(vmid)
        classes = self._tc.batch([f"class show dev {up}", f"class show dev {down}"], statistics=True).classes
        return Traffic(*classes) if len(classes) == 2 else None

    # -- inside -----------------------------------------------------------------------------------------------------

    def _known(self) -> set[UUID]:
        """Asked of the kernel once: afterwards it is our own doing. Where there is no ``ip``, nothing was limited."""
        if self._touched is None:
            try:
                self._touched = set(self._owned())
            except TcError as error:
                logger.warning("shaping_unknown error=%s", error)
                self._touched = set()
        return self._touched

    def _changed(self, wanted: Mapping[UUID, tuple[tuple[str, ...], Rate]]) -> list[UUID]:
        """Change the rates of VMs that are complete, and look, in one process; those that were complete indeed."""
        changes = [
            line
            for vmid, (_, rate) in wanted.items()
            for name in device_names(vmid)
            for line in _rate_lines("change", name, rate)
        ]
        looks = [line for vmid, (interfaces, _) in wanted.items() for line in _look(vmid, interfaces)]
        try:
            shown = self._tc.batch([*changes, *looks])
        except TcError as error:
            logger.info("shaping_incomplete vmids=%s reason=%s", ",".join(map(str, wanted)), error)
            return []
        done, documents, classes = [], list(shown.documents), list(shown.classes)
        for vmid, (interfaces, rate) in wanted.items():
            its = Shown(tuple(documents[: 2 * len(interfaces)]), tuple(classes[:2]))
            del documents[: 2 * len(interfaces)], classes[:2]
            if not _problem(vmid, interfaces, rate, its):
                done.append(vmid)
        return done

    def _owned(self) -> dict[UUID, set[str]]:
        owned: dict[UUID, set[str]] = {}
        for name, alias in self._tc.links("ifb").items():
            vmid = _vmid(alias)
            if vmid is not None:
                owned.setdefault(vmid, set()).add(name)
        return owned

    def _devices(self, vmid: UUID) -> None:
        links = self._tc.links("ifb")
        for name in device_names(vmid):
            if name not in links:
                self._tc.ip("link", "add", name, "type", "ifb")
            elif links[name] not in ("", f"{ALIAS}{vmid}"):
                raise TcError(f"network of VM {vmid}: {name} is there and belongs to {links[name]!r}")
            self._tc.ip("link", "set", name, "alias", f"{ALIAS}{vmid}", "up")

    def _queues(self, vmid: UUID, rate: Rate) -> list[str]:
        lines = []
        for name in device_names(vmid):
            there = self._qdiscs(name)
            if "htb" in there.values() and "1:" in there:
                lines += _rate_lines("replace", name, rate)
                continue
            if any(handle != "0:" for handle in there):
                lines.append(f"qdisc del dev {name} root")
            lines += [f"qdisc add dev {name} root handle 1: htb default 1", *_rate_lines("add", name, rate)]
        return lines

    def _redirects(self, vmid: UUID, interfaces: Sequence[str]) -> list[str]:
        lines = []
        for interface in interfaces:
            if "clsact" in self._qdiscs(interface).values():
                lines.append(f"qdisc del dev {interface} clsact")
            lines.append(f"qdisc add dev {interface} clsact")
            for hook, device in zip(("ingress", "egress"), device_names(vmid), strict=True):
                lines.append(
                    f"filter add dev {interface} {hook} protocol all prio 1 u32 match u32 0 0 "
                    f"action mirred egress redirect dev {device}"
                )
        return lines

    def _qdiscs(self, interface: str) -> dict[str, str]:
        documents = self._tc.batch([f"qdisc show dev {interface}"]).documents
        return {str(q["handle"]): str(q["kind"]) for document in documents for q in document}

    def _redirects_to(self, interface: str, names: set[str]) -> bool:
        if "clsact" not in self._qdiscs(interface).values():
            return False
        shown = self._tc.batch([f"filter show dev {interface} ingress"])
        return any(target in names for document in shown.documents for target in _targets(document))


def _rate_lines(verb: str, device: str, rate: Rate) -> list[str]:
    burst = max(LEAST_BURST, int(rate.ceil / 8 * BURST))
    limit = max(LEAST_QUEUE, int(rate.ceil / 8 * QUEUE))
    return [
        f"class {verb} dev {device} parent 1: classid 1:1 htb rate {rate.rate}bit ceil {rate.ceil}bit "
        f"burst {burst} cburst {burst} quantum {QUANTUM}",
        f"qdisc {verb} dev {device} parent 1:1 handle 10: bfifo limit {limit}",
    ]


def _look(vmid: UUID, interfaces: Sequence[str]) -> list[str]:
    shows = [f"class show dev {name}" for name in device_names(vmid)]
    return shows + [f"filter show dev {name} {hook}" for name in interfaces for hook in ("ingress", "egress")]


def _problem(vmid: UUID, interfaces: Sequence[str], rate: Rate, shown: Shown) -> str:
    """What is not as it should be in the answers to :func:`_look`; empty: nothing."""
    if len(shown.classes) != 2:
        return f"there are {len(shown.classes)} classes instead of one each way"
    for one in shown.classes:
        if (one.rate, one.ceil) != (rate.rate, rate.ceil):
            return f"tc says {one.rate} to {one.ceil} bit/s instead of {rate.rate} to {rate.ceil}"
    if len(shown.documents) != 2 * len(interfaces):
        return "tc does not tell of all interfaces"
    names = set(device_names(vmid))
    for index, interface in enumerate(interfaces):
        told = {target for document in shown.documents[2 * index : 2 * index + 2] for target in _targets(document)}
        if told != names:
            return f"{interface} is redirected to {', '.join(sorted(told)) or 'nothing'}"
    return ""


def _targets(document: list[dict[str, object]]) -> list[str]:
    """Where the filters of an interface's hook redirect to."""
    found = []
    for line in document:
        options = line.get("options")
        actions = options.get("actions", []) if isinstance(options, dict) else []
        found += [str(action.get("to_dev")) for action in actions if action.get("kind") == "mirred"]
    return found


def _vmid(alias: str) -> UUID | None:
    try:
        return UUID(alias.removeprefix(ALIAS)) if alias.startswith(ALIAS) else None
    except ValueError:
        return None
