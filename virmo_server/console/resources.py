"""The page that shares a device's resources out: sliders for all its VMs, and one order for what was moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.devices import device_values
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Changed, Page, Visit
from virmo_server.problem import Problem
from virmo_server.procedures.resources import KEYS

_MIB = 1 << 20
_PERCENT = 100
#: Slider's end for a device that has not told its DeviceResources: so many times what the VMs have.
_ROOM = 4


@dataclass(frozen=True, slots=True)
class Resource:
    """One of NewConfig's: its key, its field of the API, its words, and how many of its units one step is."""

    key: str
    field: str
    words: str
    unit: str
    scale: int


RESOURCES = (
    Resource("CPU", "cpu", "CPU", "%", 1),
    Resource("RAM", "ram", "Memory", "MiB", _MIB),
    Resource("Storage", "storage", "Data disk", "MiB", _MIB),
    Resource("Network", "network", "Network", "%", 1),
)


@dataclass(frozen=True, slots=True)
class Share:
    """A VM's part, in the units of :data:`RESOURCES`; ``None``: its CurrentConfig was not read yet, or is odd."""

    name: str
    state: int | None
    state_text: str
    values: dict[str, int] | None


def resources_page(visit: Visit) -> Answer:
    """What each VM has, and what there is."""
    vms: list[schema.VmView] = visit.call(op.list_vms, path=visit.path)
    values = device_values(visit)
    shares = [Share(vm.name, vm.state, vm.state_text, _units(vm.current_config)) for vm in vms]
    known = [share.values for share in shares if share.values is not None]
    totals = _totals(values["device"].device_resources, known)
    return Page("device_resources.html", {**values, "resources": RESOURCES, "shares": shares, "totals": totals})


def apply(visit: Visit) -> Answer:
    """One order for everything that differs from what the page had shown."""
    vms = []
    for row in range(_rows(visit.form)):
        change: dict[str, Any] = {}
        for resource in RESOURCES:
            text = visit.form.get(f"{resource.field}.{row}", "")
            if text != visit.form.get(f"was.{resource.field}.{row}", ""):
                change[resource.field] = _octets(text, resource)
        if change:
            vms.append({"name": visit.form.get(f"name.{row}", ""), **change})
    if not vms:
        raise Problem(422, "no-change", "Nothing was moved: there is nothing to apply.")
    form = {"kind": "apply-resources", "vms": vms}
    placed: schema.OrderDetailView = visit.call(op.create_order, path=visit.path, form=form)
    return Changed(f"Order {placed.id}: new resources for {placed.name}", url("orders", placed.id))


def _rows(form: Any) -> int:
    row = 0
    while f"name.{row}" in form:
        row += 1
    return row


def _octets(untrusted_text: str, resource: Resource) -> int:
    """A field in the API's units; what it may be is checked by the API."""
    if not (untrusted_text.isascii() and untrusted_text.isdigit() and len(untrusted_text) < 13):
        raise Problem(422, "invalid", f"{resource.words}: expected a whole number of {resource.unit}.")
    return int(untrusted_text) * resource.scale


def _units(untrusted_config: str | None) -> dict[str, int] | None:
    """CurrentConfig in the units of :data:`RESOURCES`; ``None`` unless every key of it is there."""
    numbers = _numbers(untrusted_config)
    if not numbers.keys() >= set(KEYS):
        return None
    return {resource.field: numbers[resource.key] // resource.scale for resource in RESOURCES}


def _totals(untrusted_resources: str | None, shares: list[dict[str, int]]) -> dict[str, int]:
    """What there is to share out, in the units of :data:`RESOURCES`."""
    told = _numbers(untrusted_resources)
    totals = {}
    for resource in RESOURCES:
        if resource.unit == "%":
            totals[resource.field] = _PERCENT
        elif resource.key in told:
            totals[resource.field] = told[resource.key] // resource.scale
        else:
            totals[resource.field] = max(1024, _ROOM * sum(share[resource.field] for share in shares))
    return totals


def _numbers(untrusted_pairs: str | None) -> dict[str, int]:
    """The specification's keys that have whole numbers."""
    pairs = (pair.partition("=")[::2] for pair in (untrusted_pairs or "").split("&"))
    return {
        key: int(text) for key, text in pairs if key in KEYS and text.isascii() and text.isdigit() and len(text) < 19
    }
