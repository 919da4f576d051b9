"""The operations of the HTTP API on devices, orders, groups, images and tokens, and the table that lists them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from virmo_server.api import schema, views
from virmo_server.api.auth import add_token, revoke_token
from virmo_server.api.endpoint import Call, Endpoint, Query
from virmo_server.devices import knowledge
from virmo_server.devices.registry import NewDevice, find_device, list_devices, register, renew_credentials
from virmo_server.images.library import find_image
from virmo_server.model import Device, DeviceLabel, Image, Order, OrderGroup, OrderState, ReceivedAlert, Role, Token
from virmo_server.orders.service import Request, find_order
from virmo_server.problem import Problem, conflict, not_found
from virmo_server.version import VERSION

Limit = Annotated[int, Field(ge=1, le=1000)]
OrderId = Annotated[int, Field(ge=1, le=2**63 - 1)]
DEFAULT_LIMIT = 200


def get_server(call: Call) -> schema.ServerView:
    """Who answers, and who asks."""
    config = call.services.config
    return schema.ServerView(server_id=config.server_id, version=VERSION, actor=call.actor.name, role=call.actor.role)


def list_all_devices(call: Call) -> list[schema.DeviceView]:
    """All devices, by name."""
    with call.services.database.read() as session:
        return [views.device_view(session, device) for device in list_devices(session, label=call.query["label"])]


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


def change_device(call: Call) -> schema.DeviceView:
    """Change what is given; the rest stays."""
    body: schema.DeviceChangeBody = call.body
    with call.services.database.write() as session:
        device = find_device(session, call.path["device"])
        given = body.model_fields_set
        if "name" in given and body.name != device.name:
            if session.scalars(select(Device).where(Device.name == body.name)).first() is not None:
                raise conflict(f"there is a device {body.name!r} already")
            device.name = body.name
        if "base_url" in given:
            device.base_url = body.base_url
        if "notify_url" in given:
            device.notify_url = body.notify_url
        if "labels" in given:
            wanted = set(body.labels)
            device.labels[:] = [label for label in device.labels if label.label in wanted]
            present = {label.label for label in device.labels}
            device.labels.extend(DeviceLabel(label=label) for label in sorted(wanted - present))
        session.flush()
        return views.device_view(session, device)


def remove_device(call: Call) -> None:
    """Forget a device with its orders and what is known of it; the board itself is not touched."""
    with call.services.database.write() as session:
        session.delete(find_device(session, call.path["device"]))


def renew_device_credentials(call: Call) -> schema.RegistrationView:
    """New secrets; the old ones are void at once."""
    config = call.services.config
    with call.services.database.write() as session:
        device = find_device(session, call.path["device"])
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


def create_order(call: Call) -> schema.OrderDetailView:
    """Order something of a device."""
    with call.services.database.write() as session:
        device = find_device(session, call.path["device"])
        order = place_order(call, session, device, call.body, Request(call.actor.name, _deadline(call.body)))
        session.flush()
        return views.order_detail_view(session, order)


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


def cancel_order(call: Call) -> schema.OrderDetailView:
    """End an open order."""
    with call.services.database.write() as session:
        order = find_order(session, _order_id(call))
        call.services.orders.cancel(session, order, call.actor.name)
        session.flush()
        return views.order_detail_view(session, order)


def create_group(call: Call) -> schema.GroupView:
    """The same order for every device with a label. Devices that it does not fit are listed in ``refused``."""
    body: schema.NewGroupBody = call.body
    refused = []
    with call.services.database.write() as session:
        devices = list_devices(session, label=body.label)
        if not devices:
            raise not_found("device with the label", body.label, "see 'virmo device list'")
        group = OrderGroup(
            label=body.label, rate=body.rate, created_at=call.services.clock(), created_by=call.actor.name
        )
        session.add(group)
        session.flush()
        request = Request(call.actor.name, _deadline(body.order), group.id)
        for device in devices:
            try:
                place_order(call, session, device, body.order, request)
            except Problem as problem:
                refused.append(f"{device.name}: {problem}")
        session.flush()
        return views.group_view(session, group, refused)


def list_groups(call: Call) -> list[schema.GroupView]:
    """Order groups, newest first."""
    query = select(OrderGroup).order_by(OrderGroup.id.desc()).limit(call.query["limit"])
    with call.services.database.read() as session:
        return [views.group_view(session, group) for group in session.scalars(query)]


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


def delete_library_image(call: Call) -> None:
    """Remove a file from the library; devices keep what they downloaded."""
    call.services.library.delete(call.path["image"])


def list_tokens(call: Call) -> list[schema.TokenView]:
    """All tokens, without their secrets."""
    with call.services.database.read() as session:
        return [views.token_view(token) for token in session.scalars(select(Token).order_by(Token.name))]


def create_token(call: Call) -> schema.NewTokenView:
    """A new token; its secret is shown this one time."""
    body: schema.NewTokenBody = call.body
    with call.services.database.write() as session:
        clear = add_token(session, name=body.name, role=body.role, now=call.services.clock())
        session.flush()
        token = session.scalars(select(Token).where(Token.name == body.name)).one()
        return schema.NewTokenView(**views.token_view(token).model_dump(), token=clear)


def remove_token(call: Call) -> None:
    """Make a token void."""
    with call.services.database.write() as session:
        revoke_token(session, name=call.path["token"], now=call.services.clock())


def place_order(call: Call, session: Session, device: Device, body: Any, request: Request) -> Order:
    """Queue what ``body`` (one of the bodies of ``schema.OrderBody``) asks for."""
    orders = call.services.orders
    match body:
        case schema.DeliverImageBody():
            image = find_image(session, body.image_id)
            return orders.deliver_image(
                session, device, request, name=body.name, image=image, description=body.description
            )
        case schema.DeleteImageBody():
            return orders.delete_image(session, device, request, name=body.name)
        case schema.CreateVmBody():
            return orders.create_vm(
                session,
                device,
                request,
                name=body.name,
                image=body.image,
                running=body.running,
                description=body.description,
            )
        case schema.VmOperationBody():
            return orders.vm_operation(session, device, request, kind=body.kind, name=body.name)
        case _:
            return orders.refresh(session, device, request)


def _deadline(body: Any) -> timedelta | None:
    return None if body.deadline_seconds is None else timedelta(seconds=body.deadline_seconds)


def _order_id(call: Call) -> int:
    text = call.path["order"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise not_found("order", text, "orders have numbers, see 'virmo order list'")
    return int(text)


_LIMIT = {"limit": Query(Limit, "at most so many", DEFAULT_LIMIT)}
_SHA256 = Annotated[str, Field(pattern=schema.SHA256_PATTERN)]

ENDPOINTS = (
    Endpoint("GET", "/server", Role.VIEWER, "Who answers", get_server, schema.ServerView, problems=()),
    Endpoint(
        "GET", "/devices", Role.VIEWER, "List devices", list_all_devices, list[schema.DeviceView],
        query={"label": Query(schema.Label, "only devices with this label")}, problems=(),
    ),
    Endpoint(
        "POST", "/devices", Role.ADMIN, "Register a device", add_device, schema.RegistrationView,
        schema.NewDeviceBody, status=201, problems=(409,),
    ),
    Endpoint("GET", "/devices/{device}", Role.VIEWER, "Show a device", get_device, schema.DeviceView),
    Endpoint(
        "PATCH", "/devices/{device}", Role.ADMIN, "Change a device", change_device, schema.DeviceView,
        schema.DeviceChangeBody, problems=(404, 409),
    ),
    Endpoint("DELETE", "/devices/{device}", Role.ADMIN, "Forget a device", remove_device, status=204),
    Endpoint(
        "POST", "/devices/{device}/credentials", Role.ADMIN, "Renew a device's credentials", renew_device_credentials,
        schema.RegistrationView,
    ),
    Endpoint("GET", "/devices/{device}/vms", Role.VIEWER, "List a device's VMs", list_vms, list[schema.VmView]),
    Endpoint(
        "GET", "/devices/{device}/images", Role.VIEWER, "List a device's images", list_device_images,
        list[schema.DeviceImageView],
    ),
    Endpoint(
        "GET", "/devices/{device}/nodes", Role.VIEWER, "Known nodes of a device's tree", list_nodes,
        list[schema.NodeView], query={"uri": Query(schema.Text, "below this node", ".")},
    ),
    Endpoint(
        "GET", "/devices/{device}/alerts", Role.VIEWER, "Alerts of a device", list_alerts, list[schema.AlertView],
        query=_LIMIT,
    ),
    Endpoint(
        "POST", "/devices/{device}/orders", Role.OPERATOR, "Order something of a device", create_order,
        schema.OrderDetailView, schema.OrderBody, status=201, problems=(404, 409),
    ),
    Endpoint(
        "GET", "/orders", Role.VIEWER, "List orders", list_orders, list[schema.OrderView],
        query={
            "device": Query(schema.Text, "only of this device"),
            "state": Query(OrderState, "only in this state"),
            "group": Query(OrderId, "only of this group"),
            **_LIMIT,
        },
    ),
    Endpoint("GET", "/orders/{order}", Role.VIEWER, "Show an order", get_order, schema.OrderDetailView),
    Endpoint(
        "POST", "/orders/{order}/cancel", Role.OPERATOR, "Cancel an order", cancel_order, schema.OrderDetailView,
        problems=(404, 409),
    ),
    Endpoint(
        "POST", "/groups", Role.OPERATOR, "Order something of all devices with a label", create_group,
        schema.GroupView, schema.NewGroupBody, status=201, problems=(404, 409),
    ),
    Endpoint(
        "GET", "/groups", Role.VIEWER, "List order groups", list_groups, list[schema.GroupView], query=_LIMIT,
        problems=(),
    ),
    Endpoint(
        "GET", "/images", Role.VIEWER, "List the image library", list_images, list[schema.ImageView],
        query={"sha256": Query(_SHA256, "only files with this SHA-256")}, problems=(),
    ),
    Endpoint("GET", "/images/{image}", Role.VIEWER, "Show a library image", get_image, schema.ImageView),
    Endpoint(
        "DELETE", "/images/{image}", Role.OPERATOR, "Remove a library image", delete_library_image, status=204,
        problems=(404, 409),
    ),
    Endpoint("GET", "/tokens", Role.ADMIN, "List tokens", list_tokens, list[schema.TokenView], problems=()),
    Endpoint(
        "POST", "/tokens", Role.ADMIN, "Make a token", create_token, schema.NewTokenView, schema.NewTokenBody,
        status=201, problems=(409,),
    ),
    Endpoint("DELETE", "/tokens/{token}", Role.ADMIN, "Revoke a token", remove_token, status=204, problems=(404, 409)),
)  # fmt: skip
