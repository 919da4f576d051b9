"""Pages of devices: the list, and for each device its VMs, images, alerts, orders and registration."""

from __future__ import annotations

from typing import Any

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Changed, Goto, Page, Visit
from virmo_server.console.words import order_words
from virmo_server.devices.overview import figures, labels, vm_states
from virmo_server.devices.registry import DeviceFilter

#: Rows of a page of the list.
PAGE_ROWS = 100
#: Alerts and orders shown on a device's pages.
SHOWN = "100"


def devices_page(visit: Visit) -> Answer:
    """Devices by label, and by a word in name, DevId, model or label."""
    which = DeviceFilter(label=visit.query.get("label", ""), word=visit.query.get("word", "").strip())
    with visit.services.database.read() as session:
        counted, names = figures(session, which), labels(session)
    page = _page_number(visit.query.get("page", ""), counted.devices)
    asked = {"label": which.label, "word": which.word, "offset": (page - 1) * PAGE_ROWS, "limit": PAGE_ROWS}
    query = {name: str(value) for name, value in asked.items() if value}
    devices: list[schema.DeviceView] = visit.call(op.list_all_devices, query=query)
    with visit.services.database.read() as session:
        states = vm_states(session, [device.name for device in devices])
    values = {
        "devices": devices,
        "states": states,
        "figures": counted,
        "labels": names,
        "label": which.label,
        "word": which.word,
        "page": page,
        "pages": -(-counted.devices // PAGE_ROWS) or 1,
    }
    return Page("devices.html", values)


def add_device(visit: Visit) -> Answer:
    """Register a device: the one time that its credentials are shown."""
    form = {**visit.form, "labels": visit.form.get("labels", "").split()}
    form.pop("csrf", None)
    registration: schema.RegistrationView = visit.call(op.add_device, form=form)
    return Page("device_registered.html", {"device": registration.device, "agent_config": registration.agent_config})


def device_vms(visit: Visit) -> Answer:
    """The device's VMs, and what is under way."""
    vms: list[schema.VmView] = visit.call(op.list_vms, path=visit.path)
    return Page("device_vms.html", {**_device(visit), "vms": vms, "images": _images(visit)})


def device_images(visit: Visit) -> Answer:
    """The images on the device, and delivery from the library."""
    library: list[schema.ImageView] = visit.call(op.list_images)
    return Page("device_images.html", {**_device(visit), "images": _images(visit), "library": library})


def device_alerts(visit: Visit) -> Answer:
    """What the device reported by itself."""
    alerts = visit.call(op.list_alerts, path=visit.path, query={"limit": SHOWN})
    return Page("device_alerts.html", {**_device(visit), "alerts": alerts})


def device_orders(visit: Visit) -> Answer:
    """The device's newest orders."""
    orders = visit.call(op.list_orders, query={"device": visit.path["device"], "limit": SHOWN})
    return Page("device_orders.html", {**_device(visit), "orders": orders})


def device_settings(visit: Visit) -> Answer:
    """Registration, labels, addresses, credentials."""
    return Page("device_settings.html", _device(visit))


def change_device(visit: Visit) -> Answer:
    """Name, labels and addresses as they are in the form; an empty address is removed."""
    form: dict[str, Any] = {
        "name": visit.form.get("name", ""),
        "labels": visit.form.get("labels", "").split(),
        "base_url": visit.form.get("base_url") or None,
        "notify_url": visit.form.get("notify_url") or None,
        "certificate_subject": visit.form.get("certificate_subject") or None,
    }
    device: schema.DeviceView = visit.call(op.change_device, path=visit.path, form=form)
    if device.name == visit.path["device"]:
        return Changed(f"{device.name} is saved.")
    return Goto(url("devices", device.name, "settings"))


def renew_credentials(visit: Visit) -> Answer:
    """New credentials; the old ones are void at once."""
    registration: schema.RegistrationView = visit.call(op.renew_device_credentials, path=visit.path)
    return Page("device_registered.html", {"device": registration.device, "agent_config": registration.agent_config})


def remove_device(visit: Visit) -> Answer:
    """Forget the device."""
    visit.call(op.remove_device, path=visit.path)
    return Goto(url("devices"))


def order(visit: Visit) -> Answer:
    """Any order for the device: the form is the API's body."""
    form = {name: value for name, value in visit.form.items() if name != "csrf"}
    placed: schema.OrderDetailView = visit.call(op.create_order, path=visit.path, form=form)
    words = order_words(placed.kind, placed.name)
    return Changed(f"Order {placed.id}: {words}", url("orders", placed.id))


def device_values(visit: Visit) -> dict[str, Any]:
    """What the head of each page of a device needs."""
    return _device(visit)


def _device(visit: Visit) -> dict[str, Any]:
    device: schema.DeviceView = visit.call(op.get_device, path=visit.path)
    orders: list[schema.OrderView] = []
    if device.open_orders:
        newest: list[schema.OrderView] = visit.call(op.list_orders, query={"device": device.name, "limit": SHOWN})
        orders = [placed for placed in newest if not placed.state.is_final]
    return {"device": device, "open_orders": orders}


def _images(visit: Visit) -> list[schema.DeviceImageView]:
    images: list[schema.DeviceImageView] = visit.call(op.list_device_images, path=visit.path)
    return images


def _page_number(untrusted_text: str, rows: int) -> int:
    """1 for what is no number; the last page for one that is too high."""
    is_number = untrusted_text.isascii() and untrusted_text.isdigit() and len(untrusted_text) < 7
    wanted = int(untrusted_text) if is_number else 1
    return max(1, min(wanted, -(-rows // PAGE_ROWS)))
