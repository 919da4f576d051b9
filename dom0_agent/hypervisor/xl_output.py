"""Parses what ``xl list -v``, ``xl info`` and ``xl help`` print.

Everything here is foreign text: names of domains that other people made, columns that differ between Xen releases. A
line that cannot be understood is reported and left out, never guessed. Knows formats, runs nothing.
"""

from __future__ import annotations

import logging
import re
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainInfo, DomainState, HostInfo, HypervisorError

logger = logging.getLogger(__name__)

MIB = 1 << 20

#: Reason codes of ``xl list -v`` (Xen's SHUTDOWN_*), as the interface names them.
_REASONS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "crash", 5: "reboot"}

# name, domid, MiB, vcpus, state letters, seconds, uuid, reason code or "-", then a security label.
# The name comes first and may hold anything: the line is matched from its other end.
_DOMAIN = re.compile(
    r"(?P<name>.*?)\s+(?P<domid>\d{1,5})\s+(?P<mib>\d{1,12})\s+(?P<vcpus>\d{1,5})\s+"
    r"(?P<state>[r-][b-][p-][s-][a-z?-][d-])\s+(?P<seconds>\d{1,12}\.\d+)\s+"
    r"(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s+(?P<reason>[0-9a-f]{1,8}|-)(?:\s.*)?"
)


def parse_domains(untrusted_output: str) -> tuple[DomainInfo, ...]:
    """The domains of ``xl list -v``, dom0 and dying ones included."""
    domains = []
    for untrusted_line in untrusted_output.splitlines()[1:]:  # the first holds the headings
        match = _DOMAIN.fullmatch(untrusted_line)
        if match is None:
            if untrusted_line.strip():
                logger.warning("xl_list_line_not_understood line=%r", untrusted_line[:200])
            continue
        reason = None if match["reason"] == "-" else int(match["reason"], 16)
        state = _state(match["state"], reason)
        ended = state in (DomainState.SHUTDOWN, DomainState.CRASHED)
        domains.append(
            DomainInfo(
                uuid=UUID(match["uuid"]),
                domid=int(match["domid"]),
                name=match["name"],
                state=state,
                memory=int(match["mib"]) * MIB,
                vcpus=int(match["vcpus"]),
                cpu_seconds=float(match["seconds"]),
                shutdown_reason=_REASONS.get(reason, "crash") if ended and reason is not None else None,
            )
        )
    return tuple(domains)


def _state(letters: str, reason: int | None) -> DomainState:
    """Letters: running, blocked, paused, shutdown, reason, dying."""
    if letters[5] == "d":
        return DomainState.DYING
    if letters[3] == "s" or reason is not None:
        return DomainState.CRASHED if _REASONS.get(reason or 0, "crash") == "crash" else DomainState.SHUTDOWN
    if letters[2] == "p":
        return DomainState.PAUSED
    return DomainState.RUNNING


def parse_info(untrusted_output: str, *, can_save: bool) -> HostInfo:
    """The facts of ``xl info``. :class:`HypervisorError` names a fact that is missing or not a number."""
    facts: dict[str, str] = {}
    for line in untrusted_output.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())

    def fact(key: str) -> str:
        if key not in facts:
            raise HypervisorError(f"xl info says nothing of {key}: is this a dom0, and does its Xen match its tools?")
        return facts[key]

    def number(key: str) -> int:
        value = fact(key)
        if not re.fullmatch(r"\d{1,12}", value):
            raise HypervisorError(f"xl info says {key} is {value[:80]!r}, which is not a number")
        return int(value)

    version = fact("xen_version") if "xen_version" in facts else f"{fact('xen_major')}.{fact('xen_minor')}"
    return HostInfo(
        version=version[:40],
        scheduler=fact("xen_scheduler")[:40],
        cpus=number("nr_cpus"),
        total_memory=number("total_memory") * MIB,
        free_memory=number("free_memory") * MIB,
        can_save=can_save,
    )


def offers(untrusted_help: str, command: str) -> bool:
    """Whether ``xl help`` lists ``command``: on Arm it has neither save nor restore."""
    return any(line.split()[:1] == [command] for line in untrusted_help.splitlines())
