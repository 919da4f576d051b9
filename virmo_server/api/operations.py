"""The operations of the HTTP API on devices, orders, groups, images and tokens; ``api.endpoints`` lists them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from virmo_server.api import schema, views
from virmo_server.api.auth import add_token, revoke_token
from virmo_server.api.endpoint import Call
from virmo_server.api.placing import place_order
from virmo_server.audit import audited
from virmo_server.devices import knowledge
from virmo_server.devices.registry import (
    DeviceFilter,
    NewDevice,
    find_and_lock_device,
    find_device,
    list_devices,
    lock_device,
    register,
    renew_credentials,
)
from virmo_server.images.library import find_image
from virmo_server.model import Device, DeviceLabel, Image, Order, OrderGroup, ReceivedAlert, Token
from virmo_server.orders.service import Request, find_order
from virmo_server.problem import Problem, conflict, not_found
from virmo_server.version import VERSION


def get_server(call: Call) -> schema.ServerView:
    """Who answers, and who asks."""
    config = call.services.config
    ca = None if config.tls is None or config.tls.ca is None else config.tls.ca.read_text()
    return schema.ServerView(
        server_id=config.server_id,
        public_url=config.public_url,
        version=VERSION,
        actor=call.actor.name,
        role=call.actor.role,
        ca_certificate=ca,
    )


def list_all_devices(call: Call) -> list[schema.DeviceView]:
    """Devices by name: all of them, or those that are asked for."""
    asked = call.query
    which = DeviceFilter(label=asked["label"] or "", word=asked["word"] or "")
    with call.services.database.read() as session:
        found = list_devices(session, which, offset=asked["offset"], limit=asked["limit"])
        return views.device_views(session, found)


@audited
def add_device(call: Call) -> schema.RegistrationView:
    """Register a device; its secrets are shown this one time."""
    body: schema.NewDeviceBody = call.body
    config = call.services.config
    with call.services.database.write() as session:
        new = NewDevice(**body.model_dump())
        device, credentials = register(
            session, new, server_id=config.server_id, vault=call.services.vault, clock=call.services.clock
        )
        call.services.orders.refresh(session, device, Request(actor=call.actor.name, deadline=timedelta(days=90)))
        return views.registration_view(session, device, credentials, config)


def get_device(call: Call) -> schema.DeviceView:
    """One device."""
    with call.services.database.read() as session:
        return views.device_view(session, find_device(session, call.path["device"]))


@audited
def change_device(call: Call) -> schema.DeviceView:
    """Change what is given; the rest stays."""
    body: schema.DeviceChangeBody = call.body
    with call.services.database.write() as session:
        device = find_and_lock_device(session, call.path["device"])
        given = body.model_fields_set
        if "name" in given and body.name != device.name:
            if session.scalars(select(Device).where(Device.name == body.name)).first() is not None:
                raise conflict(f"there is a device {body.name!r} already")
            device.name = body.name
        if "base_url" in given:
            device.base_url = body.base_url
        if "notify_url" in given:
            device.notify_url = body.notify_url
        if "certificate_subject" in given:
            device.certificate_subject = body.certificate_subject
        if "labels" in given:
            wanted = set(body.labels)
            device.labels[:] = [label for label in device.labels if label.label in wanted]
            present = {label.label for label in device.labels}
            device.labels.extend(DeviceLabel(label=label) for label in sorted(wanted - present))
        session.flush()
        return views.device_view(session, device)


@audited
def remove_device(call: Call) -> None:
    """Forget a device with its orders and what is known of it; the board itself is not touched."""
    with call.services.database.write() as session:
        session.delete(find_and_lock_device(session, call.path["device"]))


@audited
def renew_device_credentials(call: Call) -> schema.RegistrationView:
    """New secrets; the old ones are void at once."""
    config = call.services.config
    with call.services.database.write() as session:
        device = find_and_lock_device(session, call.path["device"])
        credentials = renew_credentials(device, server_id=config.server_id, vault=call.services.vault)
        session.flush()
        return views.registration_view(session, device, credentials, config)


def list_vms(call: Call) -> list[schema.VmView]:
    """The VMs of a device as last read."""
    with call.services.database.read() as session:
        return views.vm_views(session, find_device(session, call.path["device"]))


def list_device_images(call: Call) -> list[schema.DeviceImageView]:
    """The image entries of a device as last read."""
    with call.services.database.read() as session:
        return views.device_image_views(session, find_device(session, call.path["device"]))


def list_nodes(call: Call) -> list[schema.NodeView]:
    """What is known of a device's tree below ``uri``."""
    with call.services.database.read() as session:
        device = find_device(session, call.path["device"])
        return [views.node_view(node) for node in knowledge.nodes_below(session, device, call.query["uri"])]


def list_alerts(call: Call) -> list[schema.AlertView]:
    """The newest Generic Alerts of a device, newest first."""
    with call.services.database.read() as session:
        device = find_device(session, call.path["device"])
        query = select(ReceivedAlert).where(ReceivedAlert.device_id == device.id).order_by(ReceivedAlert.id.desc())
        return [views.alert_view(alert) for alert in session.scalars(query.limit(call.query["limit"]))]


@audited
def create_order(call: Call) -> schema.OrderDetailView:
    """Order something of a device."""
    with call.services.database.write() as session:
        device = find_and_lock_device(session, call.path["device"])
        order = place_order(
            call.services.orders, session, device, call.body, Request(call.actor.name, _deadline(call.body))
        )
        session.flush()
        view = views.order_detail_view(session, order)
    call.services.notifier.wake(device.id)
    return view


def list_orders(call: Call) -> list[schema.OrderView]:
    """Orders, newest first."""
    query = select(Order).order_by(Order.id.desc()).limit(call.query["limit"])
    with call.services.database.write() as session:
        call.services.engine.expire(session)
        if call.query["device"] is not None:
            query = query.where(Order.device_id == find_device(session, call.query["device"]).id)
        if call.query["state"] is not None:
            query = query.where(Order.state == call.query["state"])
        if call.query["group"] is not None:
            query = query.where(Order.group_id == call.query["group"])
        return [views.order_view(order) for order in session.scalars(query)]


def get_order(call: Call) -> schema.OrderDetailView:
    """One order with its trail."""
    order_id = _order_id(call)
    now = call.services.clock()
    with call.services.database.read() as session:
        order = find_order(session, order_id)
        if order.state.is_final or order.deadline > now:
            return views.order_detail_view(session, order)
    with call.services.database.write() as session:
        order = find_order(session, order_id)
        call.services.engine.expire(session, order.device)
        session.flush()
        return views.order_detail_view(session, order)


@audited
def cancel_order(call: Call) -> schema.OrderDetailView:
    """End an open order."""
    with call.services.database.write() as session:
        order = find_order(session, _order_id(call))
        lock_device(session, order.device_id)
        session.refresh(order)
        call.services.orders.cancel(session, order, call.actor.name)
        session.flush()
        return views.order_detail_view(session, order)


@audited
def create_group(call: Call) -> schema.GroupView:
    """The same order for every device with a label. Devices that it does not fit are listed in ``refused``."""
    body: schema.NewGroupBody = call.body
    refused = []
    ordered: list[int] = []
    with call.services.database.write() as session:
        devices = list_devices(session, DeviceFilter(label=body.label))
        if not devices:
            raise not_found("device with the label", body.label, "see 'virmo device list'")
        group = OrderGroup(
            label=body.label, rate=body.rate, created_at=call.services.clock(), created_by=call.actor.name
        )
        session.add(group)
        session.flush()
        request = Request(call.actor.name, _deadline(body.order), group.id)
        for device in sorted(devices, key=lambda device: device.id):
            lock_device(session, device.id)
            try:
                place_order(call.services.orders, session, device, body.order, request)
                ordered.append(device.id)
            except Problem as problem:
                refused.append(f"{device.name}: {problem}")
        session.flush()
        view = views.group_view(session, group, refused)
    for device_id in ordered[: body.rate]:  # the others are reminded when it is their turn
        call.services.notifier.wake(device_id)
    return view


def list_groups(call: Call) -> list[schema.GroupView]:
    """Order groups, newest first."""
    query = select(OrderGroup).order_by(OrderGroup.id.desc()).limit(call.query["limit"])
    with call.services.database.read() as session:
        return [views.group_view(session, group) for group in session.scalars(query)]


def get_group(call: Call) -> schema.GroupView:
    """One order group."""
    number = _number(call.path["group"], "order group", "virmo group list")
    with call.services.database.write() as session:
        call.services.engine.expire(session)
        group = session.get(OrderGroup, number)
        if group is None:
            raise not_found("order group", number, "see 'virmo group list'")
        return views.group_view(session, group)


def list_images(call: Call) -> list[schema.ImageView]:
    """The library, newest first."""
    query = select(Image).order_by(Image.created_at.desc())
    if call.query["sha256"] is not None:
        query = query.where(Image.sha256 == call.query["sha256"].lower())
    with call.services.database.read() as session:
        return [views.image_view(image, call.services.config) for image in session.scalars(query)]


def get_image(call: Call) -> schema.ImageView:
    """One library image."""
    with call.services.database.read() as session:
        return views.image_view(find_image(session, call.path["image"]), call.services.config)


@audited
def delete_library_image(call: Call) -> None:
    """Remove a file from the library; devices keep what they downloaded."""
    call.services.library.delete(call.path["image"])


def list_tokens(call: Call) -> list[schema.TokenView]:
    """All tokens, without their secrets."""
    with call.services.database.read() as session:
        return [views.token_view(token) for token in session.scalars(select(Token).order_by(Token.name))]


@audited
def create_token(call: Call) -> schema.NewTokenView:
    """A new token; its secret is shown this one time."""
    body: schema.NewTokenBody = call.body
    with call.services.database.write() as session:
        clear = add_token(session, name=body.name, role=body.role, now=call.services.clock())
        session.flush()
        token = session.scalars(select(Token).where(Token.name == body.name)).one()
        return schema.NewTokenView(**views.token_view(token).model_dump(), token=clear)


@audited
def remove_token(call: Call) -> None:
    """Make a token void."""
    with call.services.database.write() as session:
        revoke_token(session, name=call.path["token"], now=call.services.clock())


def _deadline(body: Any) -> timedelta | None:
    return None if body.deadline_seconds is None else timedelta(seconds=body.deadline_seconds)


def _order_id(call: Call) -> int:
    return _number(call.path["order"], "order", "virmo order list")


def _number(untrusted_text: str, what: str, hint: str) -> int:
    if not (untrusted_text.isascii() and untrusted_text.isdigit() and len(untrusted_text) < 19):
        raise not_found(what, untrusted_text, f"they have numbers, see '{hint}'")
    return int(untrusted_text)
