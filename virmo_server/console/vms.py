"""The page of one VM: what it is, what runs inside it, the conversation with its user, its peripherals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.devices import device_values
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Changed, Page, Visit
from virmo_server.console.words import VmAction, order_words
from virmo_server.problem import not_found

#: Orders of the device that are looked through for those of the VM.
_ORDERS = "500"
_TALKS = 12
_LAST = 8
#: How the inventory's lines are told by the order: ``busybox 1.36 (active, ID)``.
_PACKAGE = re.compile(r"^(?P<words>.+) \((?P<state>active|inactive), (?P<id>.*)\)$")
#: How a peripheral's line is told: ``camera: Front camera, enabled``.
_PERIPHERAL = re.compile(r"^(?P<id>[A-Za-z0-9._-]{1,64}): (?P<words>.*)$")

#: Operations inside the guest that need no more than a question.
GUEST_ACTIONS = (
    VmAction("guest-lock", "Lock fully", "Lock {name}? Nobody can use it, and its network services stop.", True),
    VmAction("guest-partial-lock", "Lock partially", "Lock {name} partially? What its guest lets run goes on."),
    VmAction("guest-unlock", "Unlock"),
    VmAction("guest-wipe", "Wipe data", "Wipe all data that {name} offers for it? It cannot be brought back.", True),
    VmAction("guest-reset", "Factory reset", "Reset {name}? Its disks are made anew from its image.", True),
)
#: kind of question → how it is called for people
ASKS = (
    ("confirm", "Yes or no"),
    ("text", "A text"),
    ("choice", "One of several"),
    ("choices", "Any of several"),
    ("display", "Only show it"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of what a guest told. ``id`` is what orders name it by, empty for a line of another form."""

    words: str
    id: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Talk:
    """A question to the guest's user, and what came of it."""

    order: schema.OrderDetailView
    text: str
    choices: Sequence[str]


def vm_page(visit: Visit) -> Answer:
    """One VM, as far as it is known."""
    vm = _vm(visit)
    device = {"device": visit.path["device"]}
    orders: list[schema.OrderView] = visit.call(op.list_orders, query={**device, "limit": _ORDERS})
    own = [order for order in orders if order.name == vm.name and order.target == f"vm:{vm.node}"]
    library: list[schema.ImageView] = visit.call(op.list_images)
    values = {
        "vm": vm,
        "own_orders": own[:_LAST],
        "info": _newest(own, "guest-info"),
        "packages": _newest(own, "guest-packages"),
        "package_rows": _lines(_newest(own, "guest-packages"), _PACKAGE),
        "peripherals": _newest(own, "list-peripherals"),
        "peripheral_rows": _lines(_newest(own, "list-peripherals"), _PERIPHERAL),
        "lock": next((order for order in own if order.kind in _LOCKS and order.state == "done"), None),
        "talks": [_talk(visit, order) for order in own if order.kind == "guest-ask"][:_TALKS],
        "guest_actions": GUEST_ACTIONS,
        "asks": ASKS,
        "library": library,
    }
    return Page("vm.html", {**device_values(visit), **values})


def ask(visit: Visit) -> Answer:
    """Ask the guest's user; choices are the lines of a field."""
    fields = ("ask", "text", "default", "max_length", "min_seconds", "max_seconds")
    form: dict[str, Any] = {name: visit.form.get(name, "") for name in fields}
    lines = [line.strip() for line in visit.form.get("choices", "").splitlines()]
    return _order(visit, {**form, "kind": "guest-ask", "choices": [line for line in lines if line]})


def install(visit: Visit) -> Answer:
    """Install a package of the library, or from an address."""
    fields = ("image_id", "url", "pkg_id", "package_name", "type", "inactive")
    return _order(visit, {"kind": "guest-install", **{name: visit.form.get(name, "") for name in fields}})


def update(visit: Visit) -> Answer:
    """Replace the VM's system by that of a bundle."""
    return _order(visit, {"kind": "guest-update", "image_id": visit.form.get("image_id", "")})


def _order(visit: Visit, form: dict[str, Any]) -> Answer:
    body = {**form, "name": visit.path["vm"]}
    path = {"device": visit.path["device"]}
    placed: schema.OrderDetailView = visit.call(op.create_order, path=path, form=body)
    return Changed(f"Order {placed.id}: {order_words(placed.kind, placed.name)}", url("orders", placed.id))


_LOCKS = frozenset({"guest-lock", "guest-partial-lock", "guest-unlock"})


def _vm(visit: Visit) -> schema.VmView:
    vms: list[schema.VmView] = visit.call(op.list_vms, path=visit.path)
    for vm in vms:
        if vm.name == visit.path["vm"]:
            return vm
    raise not_found(f"VM on device {visit.path['device']!r} named", visit.path["vm"])


def _newest(orders: Sequence[schema.OrderView], kind: str) -> schema.OrderView | None:
    return next((order for order in orders if order.kind == kind and order.state.is_final), None)


def _lines(order: schema.OrderView | None, form: re.Pattern[str]) -> list[Line]:
    """The lines of an order's result, taken apart where they have the expected form."""
    if order is None or order.state != "done":
        return []
    found = [(text, form.match(text)) for text in order.message.splitlines()]
    return [Line(text) if match is None else Line(**match.groupdict()) for text, match in found]


def _talk(visit: Visit, order: schema.OrderView) -> Talk:
    detail: schema.OrderDetailView = visit.call(op.get_order, path={"order": str(order.id)})
    return Talk(detail, str(detail.params.get("text", "")), list(detail.params.get("choices") or ()))
