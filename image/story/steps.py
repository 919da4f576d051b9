"""The steps of the story, each with three truths that must agree: the DM status, the State node, the hypervisor.

The operator's side is the ``virmo`` command line only; the board's side is its hypervisor, asked without the agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from image.errors import ImageError
from image.story.board import NOTIFICATION_PORT, Board, Domain
from image.story.server import Server

DEVICE = "board-1"
DEV_ID = "urn:uuid:6f1d3c1e-8a55-4e0b-9b57-0d6f2c2f7a10"
IMAGE = "sample"
VM = "guest-1"
CPU_SHARE = 40  #: percent of the board's processors that the VM is given
ORDER_TIMEOUT = 600
REGISTER_TIMEOUT = 120.0
#: seconds that a guest has to boot and speak, or to speak again
GUEST_TIMEOUT = 180.0
POLL = 0.2
#: of a guest's memory, what must be free again after a suspend; Xen keeps a little of its own for each domain
FREED = 0.9
#: seconds in which a guest that runs would have spoken again: its shim does each second
STILL = 4.0
#: what the hypervisor is expected to say of the domain
RUNNING, DOMAIN_GONE = "running", None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table at the end. ``problems`` is empty when the three truths agree."""

    step: str
    status: str
    state: str
    hypervisor: str
    seconds: float
    problems: tuple[str, ...]


class Story:
    """Tells the story on one board; ``say`` gets a line for people at each step."""

    def __init__(self, server: Server, board: Board, say: Callable[[str], None]) -> None:
        self._server = server
        self._board = board
        self._say = say
        self._problems: list[str] = []
        self._vmid: UUID | None = None

    def tell(self) -> Iterator[Row]:
        """All steps, each as it is done."""
        for step, act in self._steps():
            self._say(step)
            self._problems = []
            began = time.monotonic()
            status, state, hypervisor = act()
            yield Row(step, status, state, hypervisor, time.monotonic() - began, tuple(self._problems))

    def _steps(self) -> tuple[tuple[str, Callable[[], tuple[str, str, str]]], ...]:
        return (
            ("register the board", self._register),
            ("deliver the image", self._deliver),
            ("create the VM", self._create),
            ("share out the CPU", self._share),
            ("power off", self._power_off),
            ("power on", self._power_on),
            ("suspend", self._suspend),
            ("resume", self._resume),
            ("delete", self._delete),
        )

    # -- the steps: each returns DM status, State, what the hypervisor says --------------------------------------------

    def _register(self) -> tuple[str, str, str]:
        url = self._board.notification_url
        text = self._server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        self._board.start_agent(agent_yaml(text), self._server.ca_file)
        deadline = time.monotonic() + REGISTER_TIMEOUT
        while (device := self._device())["last_seen_at"] is None and time.monotonic() < deadline:
            time.sleep(POLL)
        self._check(device["last_seen_at"] is not None, "the board did not come to the server")
        self._check(device["dev_id"] == DEV_ID, f"the server knows it as {device['dev_id']}")
        return "-", "-", self._board.hypervisor()

    def _deliver(self) -> tuple[str, str, str]:
        file = str(self._board.bundle)
        media_type = "application/vnd.virmo.bundle+tar"
        order = self._order("image", "deliver", DEVICE, "--name", IMAGE, "--file", file, "--media-type", media_type)
        (image,) = self._server.virmo_json("image", "list", DEVICE)
        self._check(image["state"] == 2, f"State is {image['state_text']}")
        location = image["location"] or ""
        self._check(bool(location) and self._board.exists(location), f"nothing at DownloadedLocation {location!r}")
        self._check("imageready" in str(order).lower() or self._image_ready(), "no Image Ready alert arrived")
        return _status(order), image["state_text"], f"DownloadedLocation exists: …/{Path(location).name[:12]}"

    def _create(self) -> tuple[str, str, str]:
        order = self._order("vm", "create", DEVICE, VM, "--image", IMAGE)
        vm = self._vm()
        self._check(bool(vm and vm["vmid"]), "no VMID was assigned")
        self._vmid = UUID(vm["vmid"]) if vm and vm["vmid"] else None
        domain = self._spoken(lambda domain: None not in (domain.boot_id, domain.beats))
        return self._conclude(order, 2, domain, RUNNING)

    def _share(self) -> tuple[str, str, str]:
        order = self._order("resources", "apply", DEVICE, f"{VM}=cpu:{CPU_SHARE}")
        self._check(order["state"] == "done", f"the order is {order['state']}: {order['message']}")
        vm = self._vm()
        config = (vm["current_config"] or "") if vm else ""
        self._check(f"CPU={CPU_SHARE}" in config.split("&"), f"CurrentConfig is {config!r}")
        share = None if self._vmid is None else self._board.cpu_share(self._vmid)
        cap = CPU_SHARE * self._board.cpus()
        self._check(share is not None and share.cap == cap, f"the scheduler has {share}, not a cap of {cap}")
        return _status(order), vm["state_text"] if vm else "?", str(share)

    def _power_off(self) -> tuple[str, str, str]:
        order = self._order("vm", "poweroff", DEVICE, VM)
        return self._conclude(order, 1, self._domain(), DOMAIN_GONE)

    def _power_on(self) -> tuple[str, str, str]:
        order = self._order("vm", "poweron", DEVICE, VM)
        domain = self._spoken(lambda domain: None not in (domain.boot_id, domain.beats))
        return self._conclude(order, 2, domain, RUNNING)

    def _suspend(self) -> tuple[str, str, str]:
        self._before = self._spoken(lambda domain: (domain.beats or 0) >= 3)
        free = self._board.free_memory()
        order = self._order("vm", "suspend", DEVICE, VM)
        kind = self._suspend_kind()
        if not self._board.can_save():
            self._check(kind == "pause", f"VirMO/<x>/Ext/SuspendKind is {kind!r}, not pause")
            return self._paused(order)
        self._check(kind == "save", f"VirMO/<x>/Ext/SuspendKind is {kind!r}, not save")
        freed = self._board.free_memory() - free
        wanted = int(self._before.memory * FREED) if self._before else 0
        self._check(freed >= wanted, f"only {freed} MiB of memory are free again, not {wanted}")
        status, state, hypervisor = self._conclude(order, 3, self._domain(), DOMAIN_GONE)
        return status, state, f"{hypervisor}, {freed} MiB freed"

    def _suspend_kind(self) -> str:
        """How the device says that it suspended the VM: with its memory saved, or only paused."""
        vm = self._vm()
        order = self._order("node", "get", DEVICE, f"{vm['uri']}/Ext/SuspendKind") if vm else {"message": ""}
        return str(order["message"])

    def _paused(self, order: dict[str, Any]) -> tuple[str, str, str]:
        """Where nothing can be saved, the domain stays, with its memory, and does nothing."""
        domain = self._domain()
        status, state, hypervisor = self._conclude(order, 3, domain, "paused")
        time.sleep(STILL)
        later = self._domain()
        self._check(later is not None and domain is not None and later.beats == domain.beats, f"it goes on: {later}")
        return status, state, f"{hypervisor}, no memory freed"

    def _resume(self) -> tuple[str, str, str]:
        order = self._order("vm", "resume", DEVICE, VM)
        before = self._before
        assert before is not None, "suspend comes first"
        last = before.beats or 0
        domain = self._spoken(lambda domain: (domain.beats or 0) > last)
        if domain is not None:
            self._check(domain.boot_id == before.boot_id, f"the guest booted anew: {before.boot_id} → {domain.boot_id}")
            self._check((domain.beats or 0) > last, f"its counter does not go on: {last} → {domain.beats}")
        status, state, hypervisor = self._conclude(order, 2, domain, RUNNING)
        return status, state, f"{hypervisor} (was {last})"

    def _delete(self) -> tuple[str, str, str]:
        order = self._order("vm", "delete", DEVICE, VM)
        self._check(self._vm() is None, "the server still lists the VM")
        self._check(order["state"] == "done", f"the order is {order['state']}: {order['message']}")
        left = self._board.leftovers()
        self._check(not left, f"left behind: {', '.join(left)}")
        return _status(order), "gone (404)", "no domain, no disk, no saved state" if not left else ", ".join(left)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _check(self, holds: bool, problem: str) -> None:
        if not holds:
            self._problems.append(problem)

    def _order(self, *words: str) -> dict[str, Any]:
        """Give an order and see it through; the server's notification makes the board come for it."""
        placed: dict[str, Any] = self._server.virmo_json(*words)
        if "id" not in placed:
            raise ImageError(f"virmo {' '.join(words)} gave no order", detail=str(placed))
        order: dict[str, Any] = self._server.virmo_json(
            "order", "show", str(placed["id"]), "--wait", "--timeout", str(ORDER_TIMEOUT)
        )
        return order

    def _conclude(
        self, order: dict[str, Any], state: int, domain: Domain | None, expected: str | None
    ) -> tuple[str, str, str]:
        self._check(order["state"] == "done", f"the order is {order['state']}: {order['message']}")
        vm = self._vm()
        self._check(vm is not None and vm["state"] == state, f"State is {vm and vm['state_text']}, not {state}")
        found = DOMAIN_GONE if domain is None else domain.state
        self._check(found == expected, f"the hypervisor says: {domain}, not {expected or 'that it is gone'}")
        return _status(order), vm["state_text"] if vm else "?", "no domain" if domain is None else str(domain)

    def _device(self) -> dict[str, Any]:
        devices: list[dict[str, Any]] = self._server.virmo_json("device", "list")
        return next(device for device in devices if device["name"] == DEVICE)

    def _vm(self) -> dict[str, Any] | None:
        vms: list[dict[str, Any]] = self._server.virmo_json("vm", "list", DEVICE)
        return next((vm for vm in vms if vm["name"] == VM), None)

    def _domain(self) -> Domain | None:
        return None if self._vmid is None else self._board.domain(self._vmid)

    def _spoken(self, enough: Callable[[Domain], bool]) -> Domain | None:
        """The domain as soon as its guest has said enough; as it is at the deadline otherwise."""
        deadline = time.monotonic() + GUEST_TIMEOUT
        while True:
            domain = self._domain()
            if domain is not None and enough(domain):
                return domain
            if domain is None or time.monotonic() > deadline:
                self._check(False, "the guest does not speak")
                return domain
            time.sleep(POLL)

    def _image_ready(self) -> bool:
        alerts: list[dict[str, Any]] = self._server.virmo_json("device", "alerts", DEVICE)
        return any("imageready" in alert["type"].lower() for alert in alerts)

    _before: Domain | None = None


def _status(order: dict[str, Any]) -> str:
    return str(order["dm_status"]) if order["dm_status"] is not None else "-"


def agent_yaml(snippet: str) -> str:
    """The agent's configuration: the server's snippet, and what is the board's own."""
    config = yaml.safe_load(snippet)
    config["device"] |= {"manufacturer": "VirMO", "model": "demo board"}
    config["dm"] |= {"poll_interval": 0, "notification": {"port": NOTIFICATION_PORT}}
    return yaml.safe_dump(config, sort_keys=False)


def write_report(file: Path, rows: list[Row]) -> None:
    """The rows as JSON, for tests and for those who compare runs."""
    import json
    from dataclasses import asdict

    file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
