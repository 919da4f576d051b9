"""Puts what the body of a request asks for into a device's queue: a row for each kind of body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from virmo_server.api import schema_orders as schema
from virmo_server.api.endpoint import InvalidRequest
from virmo_server.images.library import find_image
from virmo_server.model import Device, Order
from virmo_server.orders.service import NodeCommand, OrderService, Request

Placer = Callable[[OrderService, Session, Device, Any, Request], Order]


def place_order(orders: OrderService, session: Session, device: Device, body: Any, request: Request) -> Order:
    """Queue what ``body`` (one of the bodies of ``schema.OrderBody``) asks for."""
    return _PLACERS[type(body)](orders, session, device, body, request)


def _deliver_image(
    orders: OrderService, session: Session, device: Device, body: schema.DeliverImageBody, request: Request
) -> Order:
    image = find_image(session, body.image_id)
    return orders.deliver_image(
        session,
        device,
        request,
        name=body.name,
        image=image,
        description=body.description,
        by_descriptor=body.by_descriptor,
    )


def _delete_image(
    orders: OrderService, session: Session, device: Device, body: schema.DeleteImageBody, request: Request
) -> Order:
    return orders.delete_image(session, device, request, name=body.name)


def _create_vm(
    orders: OrderService, session: Session, device: Device, body: schema.CreateVmBody, request: Request
) -> Order:
    return orders.create_vm(
        session,
        device,
        request,
        name=body.name,
        image=body.image,
        running=body.running,
        description=body.description,
        devices=body.devices,
        bootstrap=body.bootstrap,
    )


def _vm_operation(
    orders: OrderService, session: Session, device: Device, body: schema.VmOperationBody, request: Request
) -> Order:
    return orders.vm_operation(session, device, request, kind=body.kind, name=body.name)


def _refresh(
    orders: OrderService, session: Session, device: Device, _body: schema.RefreshBody, request: Request
) -> Order:
    return orders.refresh(session, device, request)


def _node(orders: OrderService, session: Session, device: Device, body: schema.NodeBody, request: Request) -> Order:
    command = NodeCommand(body.kind, body.uri, body.value, body.format, body.type)
    return orders.node_command(session, device, request, command)


def _guest(orders: OrderService, session: Session, device: Device, body: Any, request: Request) -> Order:
    given = body.model_dump(exclude={"kind", "name", "deadline_seconds"})
    return orders.guest_operation(session, device, request, kind=body.kind, name=body.name, given=given)


def _apply_resources(
    orders: OrderService, session: Session, device: Device, body: schema.ApplyResourcesBody, request: Request
) -> Order:
    return orders.apply_resources(session, device, request, _configs(body))


def _list_peripherals(
    orders: OrderService, session: Session, device: Device, body: schema.ListPeripheralsBody, request: Request
) -> Order:
    return orders.peripheral(session, device, request, kind=body.kind, name=body.name)


def _switch_peripheral(
    orders: OrderService, session: Session, device: Device, body: schema.PeripheralBody, request: Request
) -> Order:
    return orders.peripheral(session, device, request, kind=body.kind, name=body.name, peripheral=body.peripheral)


def _configs(body: schema.ApplyResourcesBody) -> dict[str, dict[str, int]]:
    """Name → key → number; :class:`InvalidRequest` for a VM that is named twice, or nothing to change."""
    configs: dict[str, dict[str, int]] = {}
    for vm in body.vms:
        given = {"RAM": vm.ram, "Storage": vm.storage, "CPU": vm.cpu, "Network": vm.network}
        config = {key: number for key, number in given.items() if number is not None}
        if vm.name in configs or not config:
            what = "is named twice" if vm.name in configs else "has nothing to change: give ram, storage, cpu, network"
            raise InvalidRequest([f"vms: {vm.name} {what}"])
        configs[vm.name] = config
    return configs


_PLACERS: Mapping[type, Placer] = {
    schema.DeliverImageBody: _deliver_image,
    schema.DeleteImageBody: _delete_image,
    schema.CreateVmBody: _create_vm,
    schema.VmOperationBody: _vm_operation,
    schema.RefreshBody: _refresh,
    schema.NodeBody: _node,
    schema.ApplyResourcesBody: _apply_resources,
    schema.GuestBody: _guest,
    schema.WipeBody: _guest,
    schema.InstallBody: _guest,
    schema.RemoveBody: _guest,
    schema.UpdateBody: _guest,
    schema.AskBody: _guest,
    schema.ListPeripheralsBody: _list_peripherals,
    schema.PeripheralBody: _switch_peripheral,
}
