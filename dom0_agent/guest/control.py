"""What ``virmoctl guest …`` asks of the running agent, and what the server is told when a guest was cut off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol
from uuid import UUID

from dom0_agent.control_client import ControlError
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import GuestError, GuestEvent, GuestEventKind, GuestRequest

#: Pings of one call, and seconds that each may take.
PINGS_CAP, PING_DEADLINE = 100, 10.0
_PAYLOAD_CAP = 1 << 20

Call = Callable[[Mapping[str, Any]], Any]


class ExpulsionReporter(Protocol):
    """Who writes the alert."""

    def guest_expelled(self, node: str, reason: str) -> None:
        """The guest of the VM at ``node`` was cut off."""


def report_expulsions(
    hub: GuestHub, reporter: ExpulsionReporter, node: Callable[[UUID], str | None], wake: Callable[[GuestEvent], None]
) -> None:
    """Have an alert written for each guest that is cut off, and then call ``wake``."""

    def listen(event: GuestEvent) -> None:
        if event.kind is GuestEventKind.EXPELLED:
            where = node(event.vmid)
            if where is not None:
                reporter.guest_expelled(where, event.reason)
                wake(event)

    hub.subscribe(listen)


def guest_calls(hub: GuestHub, find: Callable[[str], UUID]) -> dict[str, Call]:
    """Handlers for the control socket; ``find`` gives the VM that a person named, or raises :class:`ControlError`."""

    def info(call: Mapping[str, Any]) -> dict[str, Any]:
        vmid = find(str(call.get("vm", "")))
        hello = hub.hello(vmid)
        if hello is None:
            last = [line for line in hub.trace(vmid) if line.what in ("lost", "expelled")][-1:]
            return {"vmid": str(vmid), "connected": False, "reason": last[0].reason if last else None}
        return {
            "vmid": str(vmid),
            "connected": True,
            "transport": hello.transport,
            "shim": hello.shim_version,
            "boot_id": hello.boot_id,
            "capabilities": sorted(hello.capabilities),
            "objects": [asdict(served) for served in hello.objects],
        }

    def ping(call: Mapping[str, Any]) -> dict[str, Any]:
        vmid = find(str(call.get("vm", "")))
        count, size = _number(call, "count", 3, PINGS_CAP), _number(call, "size", 0, _PAYLOAD_CAP)
        seconds = []
        for _ in range(count):
            began = time.monotonic()
            try:
                answer = hub.request(vmid, GuestRequest("ping", {}, bytes(size)), deadline=PING_DEADLINE)
            except GuestError as error:
                raise ControlError(str(error)) from error
            if answer.status != 200 or answer.payload != bytes(size):
                raise ControlError(f"VM {vmid}: the shim answered ping with {answer.status} and another payload")
            seconds.append(round(time.monotonic() - began, 6))
        return {"vmid": str(vmid), "size": size, "seconds": seconds}

    def trace(call: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [line._asdict() for line in hub.trace(find(str(call.get("vm", ""))))]

    return {"guest.info": info, "guest.ping": ping, "guest.trace": trace}


def _number(call: Mapping[str, Any], name: str, default: int, most: int) -> int:
    value = call.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ControlError(f"{name} is a number from 0 to {most}")
    return value
