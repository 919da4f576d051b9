"""Pages of orders and order groups: the list with filters, one order with its trail, cancelling."""

from __future__ import annotations

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.links import url
from virmo_server.console.visit import Answer, Changed, Page, Visit
from virmo_server.devices.overview import labels
from virmo_server.model import OrderState

SHOWN = "200"


def orders_page(visit: Visit) -> Answer:
    """The newest orders, by device, state and group."""
    asked = {name: visit.query.get(name, "").strip() for name in ("device", "state", "group")}
    query = {name: value for name, value in asked.items() if value}
    orders: list[schema.OrderView] = visit.call(op.list_orders, query={**query, "limit": SHOWN})
    filters = {f"by_{name}": value for name, value in asked.items()}
    return Page("orders.html", {"orders": orders, "states": list(OrderState), "shown": int(SHOWN), **filters})


def order_page(visit: Visit) -> Answer:
    """One order."""
    order: schema.OrderDetailView = visit.call(op.get_order, path=visit.path)
    return Page("order.html", {"order": order})


def cancel(visit: Visit) -> Answer:
    """End an open order."""
    order: schema.OrderDetailView = visit.call(op.cancel_order, path=visit.path)
    return Changed(f"Order {order.id} is cancelled. {order.message}", url("orders", order.id))


def groups_page(visit: Visit) -> Answer:
    """Orders for many devices at once."""
    groups: list[schema.GroupView] = visit.call(op.list_groups, query={"limit": SHOWN})
    with visit.services.database.read() as session:
        names = labels(session)
    images: list[schema.ImageView] = visit.call(op.list_images)
    return Page("groups.html", {"groups": groups, "labels": names, "library": images})


def group_page(visit: Visit) -> Answer:
    """One group with its orders."""
    group: schema.GroupView = visit.call(op.get_group, path=visit.path)
    orders = visit.call(op.list_orders, query={"group": str(group.id), "limit": SHOWN})
    return Page("group.html", {"group": group, "orders": orders})


def add_group(visit: Visit) -> Answer:
    """The same order for every device with a label; fields ``order.…`` are the order's."""
    form = {name: value for name, value in visit.form.items() if name in {"label", "rate"}}
    order = {
        name.removeprefix("order."): value
        for name, value in visit.form.items()
        if name.startswith("order.") and value != ""
    }
    group: schema.GroupView = visit.call(op.create_group, form={**form, "order": order})
    placed = sum(group.states.values())
    notice = f"{placed} orders are placed."
    if group.refused:
        notice += f" {len(group.refused)} devices do not fit: {'; '.join(group.refused[:3])}"
    return Changed(notice, url("groups", group.id))
