"""Takes orders from operators: checks what can be checked without the device, names nodes, puts them in the queue.

Whether an operation fits the VM's present State is the device's to say; what the server knows may be old.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from virmo_server.clock import Clock
from virmo_server.config import ServerConfig
from virmo_server.credentials import new_serial
from virmo_server.devices import knowledge
from virmo_server.images.hosting import descriptor_url, download_url
from virmo_server.images.library import find_image
from virmo_server.model import OPEN_STATES, DeliveredImage, Device, Image, Order, OrderEvent, OrderState, Vm
from virmo_server.orders.lifecycle import By, finish
from virmo_server.problem import conflict, not_found
from virmo_server.procedures.catalogue import (
    APPLY_RESOURCES,
    CREATE_VM,
    DELETE_IMAGE,
    DELIVER_IMAGE,
    PROCEDURES,
    REFRESH,
)
from virmo_server.procedures.create_params import BOOTSTRAP
from virmo_server.procedures.states import ImageState, image_state_words, parse_state
from virmo_server.vault import Vault

T = TypeVar("T", Vm, DeliveredImage)

#: Target of orders that concern the device as a whole.
DEVICE_TARGET = "device"
#: Target of orders that share the device's resources out.
RESOURCES_TARGET = "resources"
#: Target of raw commands: they are done in the order in which they were given.
NODE_TARGET = "tree"
#: Keeps node names below the segment length that small clients take (32), with the random part.
_SLUG_CHARS = 20
_RANDOM_CHARS = 6
_CANCEL_HINTS = {
    OrderState.QUEUED: "cancelled before anything was sent",
    OrderState.SENT: "cancelled under way: the device may have done what was sent already",
    OrderState.ACCEPTED: "cancelled while the device was at it: it goes on, but its end is not waited for any more",
}


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, and until when it may be done."""

    actor: str
    deadline: timedelta | None = None
    group_id: int | None = None


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """Raw access to a node; ``kind`` is one of ``procedures.node.NODE_COMMANDS``."""

    kind: str
    uri: str
    value: str = ""
    format: str | None = None
    type: str | None = None


class OrderService:
    """Makes and cancels orders. Every method runs in the caller's write transaction."""

    def __init__(self, clock: Clock, config: ServerConfig, vault: Vault) -> None:
        self._clock = clock
        self._config = config
        self._vault = vault

    def deliver_image(
        self,
        session: Session,
        device: Device,
        request: Request,
        *,
        name: str,
        image: Image,
        description: str = "",
        by_descriptor: bool = False,
    ) -> Order:
        """Deliver a library image under ``name``; an entry that failed before is used again.

        ``by_descriptor``: DownloadURI is that of a download descriptor (DLOTA), and the device reports there, too.
        """
        entry = _entry(session, DeliveredImage, device, name)
        reuse = entry is not None
        if entry is None:
            node = _new_node(name)
            entry = DeliveredImage(device_id=device.id, name=name, node=node, image_id=image.id)
            session.add(entry)
        else:
            self._check_redelivery(session, device, entry, image)
            entry.image_id = image.id
        url_of = descriptor_url if by_descriptor else download_url
        params = {
            "name": name,
            "node": entry.node,
            "image_id": image.id,
            "media_type": image.media_type,
            "url": url_of(device.base_url or self._config.public_url, image),
            "description": description,
            "reuse": reuse,
        }
        return self._queue(session, device, request, kind=DELIVER_IMAGE, target=f"image:{entry.node}", params=params)

    def delete_image(self, session: Session, device: Device, request: Request, *, name: str) -> Order:
        """Remove an image from a device. VMs made from it are not touched (reading A-22)."""
        entry = _require_entry(session, DeliveredImage, device, name)
        params = {"name": entry.name, "node": entry.node}
        return self._queue(session, device, request, kind=DELETE_IMAGE, target=f"image:{entry.node}", params=params)

    def create_vm(
        self,
        session: Session,
        device: Device,
        request: Request,
        *,
        name: str,
        image: str,
        running: bool = True,
        description: str | None = None,
        devices: Sequence[str] = (),
        bootstrap: str | None = None,
    ) -> Order:
        """Create a VM from an image that is on the device, or that an open order delivers. ``devices``: what of the
        board it gets for itself; ``bootstrap``: a profile for its own DM client (11.1.3), in base64."""
        if _entry(session, Vm, device, name) is not None:
            raise conflict(f"device {device.name!r} has a VM {name!r} already: choose another name or delete it first")
        source = _require_entry(session, DeliveredImage, device, image)
        delivery = _open_order(session, device, f"image:{source.node}", DELIVER_IMAGE)
        if delivery is None:
            state = _known_state(session, device, f"{knowledge.vmimg_root(device)}/{source.node}")
            if state != ImageState.DOWNLOADED:
                raise conflict(
                    f"image {image!r} is not ready on device {device.name!r} (State {image_state_words(state)}):"
                    f" run 'virmo image deliver {device.name} --name {image} …' first"
                )
        node = _new_node(name)
        session.add(Vm(device_id=device.id, name=name, node=node))
        params = {
            "name": name,
            "node": node,
            "image": source.name,
            "image_node": source.node,
            "running": running,
            "description": name if description is None else description,
            "devices": list(devices),
        }
        if bootstrap is not None:
            params[BOOTSTRAP] = self._vault.seal(bootstrap)
        after = None if delivery is None else delivery.id
        return self._queue(session, device, request, kind=CREATE_VM, target=f"vm:{node}", params=params, after=after)

    def vm_operation(self, session: Session, device: Device, request: Request, *, kind: str, name: str) -> Order:
        """One of the primitives of ``procedures.vm`` on an existing VM."""
        entry = _require_entry(session, Vm, device, name)
        params = {"name": entry.name, "node": entry.node}
        return self._queue(session, device, request, kind=kind, target=f"vm:{entry.node}", params=params)

    def apply_resources(
        self, session: Session, device: Device, request: Request, configs: Mapping[str, Mapping[str, int]]
    ) -> Order:
        """New resources for several VMs at once: name of the VM → key of the configuration → number."""
        vms = []
        for name, config in configs.items():
            entry = _require_entry(session, Vm, device, name)
            vms.append({"name": entry.name, "node": entry.node, "config": dict(config)})
        params = {"name": ", ".join(configs), "vms": vms}
        return self._queue(session, device, request, kind=APPLY_RESOURCES, target=RESOURCES_TARGET, params=params)

    def peripheral(
        self, session: Session, device: Device, request: Request, *, kind: str, name: str, peripheral: str | None = None
    ) -> Order:
        """List a VM's peripherals, or enable or disable one."""
        entry = _require_entry(session, Vm, device, name)
        params = {"name": entry.name, "node": entry.node, "peripheral": peripheral}
        return self._queue(session, device, request, kind=kind, target=f"vm:{entry.node}", params=params)

    def guest_operation(
        self, session: Session, device: Device, request: Request, *, kind: str, name: str, given: Mapping[str, Any]
    ) -> Order:
        """One of ``procedures.guest_actions`` inside an existing VM; ``given`` is what the action needs."""
        entry = _require_entry(session, Vm, device, name)
        params = {"name": entry.name, "node": entry.node, **given}
        image_id = params.pop("image_id", None)
        if image_id is not None:
            image = find_image(session, image_id)
            params["url"] = download_url(device.base_url or self._config.public_url, image)
            params["sha256"] = image.sha256
        params["entry"] = _new_node(str(params.get("package_name") or "package"))
        return self._queue(session, device, request, kind=kind, target=f"vm:{entry.node}", params=params)

    def node_command(self, session: Session, device: Device, request: Request, command: NodeCommand) -> Order:
        """One command on a node, as it is."""
        params = {
            "name": command.uri,
            "uri": command.uri,
            "value": command.value,
            "format": command.format,
            "type": command.type,
        }
        return self._queue(session, device, request, kind=command.kind, target=NODE_TARGET, params=params)

    def refresh(self, session: Session, device: Device, request: Request) -> Order:
        """Read again what the device has; an open refresh is shared, but by groups, which count their own orders."""
        present = _open_order(session, device, DEVICE_TARGET, REFRESH)
        if present is not None and request.group_id is None:
            return present
        return self._queue(session, device, request, kind=REFRESH, target=DEVICE_TARGET, params={})

    def cancel(self, session: Session, order: Order, actor: str) -> None:
        """End an open order without waiting for the device; 409 when it has ended already."""
        if order.state.is_final:
            raise conflict(f"order {order.id} has ended already: {order.state}")
        finish(session, order, By(actor, self._clock()), OrderState.CANCELLED, _CANCEL_HINTS[order.state])

    def _queue(
        self,
        session: Session,
        device: Device,
        request: Request,
        *,
        kind: str,
        target: str,
        params: dict[str, Any],
        after: int | None = None,
    ) -> Order:
        now = self._clock()
        lifetime = request.deadline or timedelta(hours=self._config.dm.order_hours)
        order = Order(
            device=device,
            group_id=request.group_id,
            after_id=after,
            kind=kind,
            target=target,
            params=params,
            state=OrderState.QUEUED,
            step=PROCEDURES[kind].first,
            memory={},
            answers={},
            losses=0,
            doubtful=False,
            correlator=new_serial(),
            created_at=now,
            created_by=request.actor,
            deadline=now + lifetime,
            message="",
        )
        session.add(order)
        session.flush()
        session.add(
            OrderEvent(
                order_id=order.id, at=now, actor=request.actor, state=order.state, step=order.step, text="queued"
            )
        )
        return order

    def _check_redelivery(self, session: Session, device: Device, entry: DeliveredImage, image: Image) -> None:
        delivery = _open_order(session, device, f"image:{entry.node}", DELIVER_IMAGE)
        if delivery is not None:
            raise conflict(f"order {delivery.id} delivers image {entry.name!r} already: it is {delivery.state}")
        state = _known_state(session, device, f"{knowledge.vmimg_root(device)}/{entry.node}")
        before = None if entry.image_id is None else session.get(Image, entry.image_id)
        if state == ImageState.DOWNLOADED and (before is None or before.sha256 != image.sha256):
            raise conflict(
                f"device {device.name!r} has another image named {entry.name!r}: choose another name, or run"
                f" 'virmo image delete {device.name} {entry.name}' first"
            )


def find_order(session: Session, order_id: int) -> Order:
    """The order, or a :class:`Problem` 404."""
    order = session.get(Order, order_id)
    if order is None:
        raise not_found("order", order_id, "see 'virmo order list'")
    return order


def open_orders(session: Session, device: Device) -> Sequence[Order]:
    """The device's orders that have not ended, oldest first."""
    query = select(Order).where(Order.device_id == device.id, Order.state.in_(OPEN_STATES)).order_by(Order.id)
    return session.scalars(query).all()


def _entry(session: Session, table: type[T], device: Device, name: str) -> T | None:
    return session.scalars(select(table).where(table.device_id == device.id, table.name == name)).first()


def _require_entry(session: Session, table: type[T], device: Device, name: str) -> T:
    found = _entry(session, table, device, name)
    if found is None:
        what = "VM" if table is Vm else "image"
        noun = what.lower()
        raise not_found(f"{what} on device {device.name!r} named", name, f"see 'virmo {noun} list {device.name}'")
    return found


def _open_order(session: Session, device: Device, target: str, kind: str) -> Order | None:
    return next((o for o in open_orders(session, device) if o.target == target and o.kind == kind), None)


def _known_state(session: Session, device: Device, uri: str) -> int | None:
    known = {node.uri: node.value for node in knowledge.nodes_below(session, device, uri)}
    return parse_state(known.get(f"{uri}/State"))


def _new_node(name: str) -> str:
    """A node name that people recognise, of characters that every client takes, never used before (reading A-25)."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_CHARS].strip("-")
    random = new_serial()[:_RANDOM_CHARS]
    return f"{slug}-{random}"
