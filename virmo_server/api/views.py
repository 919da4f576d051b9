"""Turns rows into the bodies that the API answers with. Reads only."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

import yaml
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from virmo_server.api import schema
from virmo_server.config import ServerConfig
from virmo_server.devices import knowledge
from virmo_server.devices.bootstrap import Side, make_profile
from virmo_server.devices.registry import Credentials
from virmo_server.images.hosting import download_url, signature_url
from virmo_server.model import (
    OPEN_STATES,
    DeliveredImage,
    Device,
    Image,
    KnownNode,
    Order,
    OrderEvent,
    OrderGroup,
    OrderState,
    ReceivedAlert,
    Token,
    Vm,
)
from virmo_server.procedures.core import status_words
from virmo_server.procedures.create_params import BOOTSTRAP, HIDDEN
from virmo_server.procedures.states import image_state_words, parse_state, vm_state_words

#: Where the agent's configuration expects the server's CA; copy ``ca.pem`` there.
AGENT_CA_FILE = "/etc/virmo-agent/server-ca.pem"


#: Rows of so many devices are asked for by id; of more, the whole tables are read.
_MOST_BY_ID = 500


def device_view(session: Session, device: Device) -> schema.DeviceView:
    """A device with its counts."""
    return device_views(session, [device])[0]


def device_views(session: Session, devices: Sequence[Device]) -> list[schema.DeviceView]:
    """Devices with their counts; the number of queries does not grow with theirs."""
    only = [device.id for device in devices] if len(devices) <= _MOST_BY_ID else None
    vms = _counts(session, Vm.device_id, only)
    orders = _counts(session, Order.device_id, only, Order.state.in_(OPEN_STATES))
    wanted = select(KnownNode).where(KnownNode.uri.endswith("/DeviceResources"))
    if only is not None:
        wanted = wanted.where(KnownNode.device_id.in_(only))
    resources = {(node.device_id, node.uri): node.value for node in session.scalars(wanted)}
    return [
        schema.DeviceView(
            name=device.name,
            dev_id=device.dev_id,
            labels=sorted(label.label for label in device.labels),
            manufacturer=device.man,
            model=device.mod,
            dm_version=device.dm_version,
            base_url=device.base_url,
            notify_url=device.notify_url,
            created_at=device.created_at,
            last_seen_at=device.last_seen_at,
            auth_failed_at=device.auth_failed_at,
            auth_failure=device.auth_failure,
            notified_at=device.notified_at,
            notify_error=device.notify_error,
            certificate_subject=device.certificate_subject,
            virmo_root=knowledge.virmo_root(device),
            vmimg_root=knowledge.vmimg_root(device),
            device_resources=resources.get((device.id, f"{knowledge.virmo_root(device)}/DeviceResources")),
            vm_count=vms.get(device.id, 0),
            open_orders=orders.get(device.id, 0),
        )
        for device in devices
    ]


def _counts(
    session: Session,
    device_id: InstrumentedAttribute[int],
    only: Sequence[int] | None,
    *conditions: ColumnElement[bool],
) -> dict[int, int]:
    """Rows by device, of the table whose column ``device_id`` is."""
    query = select(device_id, func.count()).where(*conditions).group_by(device_id)
    if only is not None:
        query = query.where(device_id.in_(only))
    return {row[0]: row[1] for row in session.execute(query)}


def registration_view(
    session: Session, device: Device, credentials: Credentials, config: ServerConfig
) -> schema.RegistrationView:
    """A registration, with the agent's configuration snippet."""
    client = _credential_view(credentials.client_name, credentials.client_secret, credentials.client_nonce)
    server = _credential_view(credentials.server_name, credentials.server_secret, credentials.server_nonce)
    return schema.RegistrationView(
        device=device_view(session, device),
        client=client,
        server=server,
        agent_config=agent_config(device, config, client, server),
        bootstrap=_bootstrap_view(device, config, client, server),
    )


def _bootstrap_view(
    device: Device, config: ServerConfig, client: schema.CredentialView, server: schema.CredentialView
) -> schema.BootstrapView:
    made = make_profile(
        server_id=config.server_id,
        address=f"{device.base_url or config.public_url}/dm",
        auth=device.auth_scheme,
        client=Side(**client.model_dump()),
        server=Side(**server.model_dump()),
    )
    profile = base64.b64encode(made.body).decode()
    return schema.BootstrapView(profile=profile, content_type=made.content_type, pin=made.pin)


def agent_config(
    device: Device, config: ServerConfig, client: schema.CredentialView, server: schema.CredentialView
) -> str:
    """The ``device`` and ``dm.accounts`` sections of the agent's YAML that fit this registration."""
    account: dict[str, Any] = {
        "server_id": config.server_id,
        "address": f"{device.base_url or config.public_url}/dm",
        "client": {"auth": device.auth_scheme, **client.model_dump()},
        "server": {"auth": device.auth_scheme, **server.model_dump()},
        "tls": {"ca_file": AGENT_CA_FILE} if config.tls is not None and config.tls.ca is not None else {},
    }
    tree = {"device": {"id": device.dev_id}, "dm": {"accounts": [account]}}
    if account["tls"]:
        tree["images"] = dict(account["tls"])  # images are downloaded from the same server
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1000)


def vm_views(session: Session, device: Device) -> list[schema.VmView]:
    """The device's VMs by name."""
    root = knowledge.virmo_root(device)
    leaves = _leaves(knowledge.nodes_below(session, device, root))
    images = _image_names(session, device)
    working = _open_by_target(session, device)
    views = []
    for vm in session.scalars(select(Vm).where(Vm.device_id == device.id).order_by(Vm.name)):
        uri = f"{root}/{vm.node}"
        state_node = leaves.get(f"{uri}/State")
        state = None if state_node is None else parse_state(state_node.value)
        create_params = _value(leaves, f"{uri}/CreateParams")
        views.append(
            schema.VmView(
                name=vm.name,
                node=vm.node,
                uri=uri,
                state=state,
                state_text=vm_state_words(state),
                vmid=_value(leaves, f"{uri}/VMID"),
                description=_value(leaves, f"{uri}/Description"),
                create_params=create_params,
                current_config=_value(leaves, f"{uri}/Resources/CurrentConfig"),
                image=_image_of(create_params, images),
                known_at=None if state_node is None else state_node.known_at,
                open_order=working.get(f"vm:{vm.node}"),
            )
        )
    return views


def device_image_views(session: Session, device: Device) -> list[schema.DeviceImageView]:
    """The device's image entries by name."""
    root = knowledge.vmimg_root(device)
    leaves = _leaves(knowledge.nodes_below(session, device, root))
    working = _open_by_target(session, device)
    query = select(DeliveredImage).where(DeliveredImage.device_id == device.id).order_by(DeliveredImage.name)
    views = []
    for entry in session.scalars(query):
        uri = f"{root}/{entry.node}"
        state_node = leaves.get(f"{uri}/State")
        state = None if state_node is None else parse_state(state_node.value)
        views.append(
            schema.DeviceImageView(
                name=entry.name,
                node=entry.node,
                uri=uri,
                image_id=entry.image_id,
                state=state,
                state_text=image_state_words(state),
                img_id=_value(leaves, f"{uri}/ImgID"),
                media_type=_value(leaves, f"{uri}/MediaType"),
                download_uri=_value(leaves, f"{uri}/DownloadURI"),
                location=_value(leaves, f"{uri}/DownloadedLocation"),
                known_at=None if state_node is None else state_node.known_at,
                open_order=working.get(f"image:{entry.node}"),
            )
        )
    return views


def node_view(node: KnownNode) -> schema.NodeView:
    """A known node."""
    return schema.NodeView(uri=node.uri, format=node.format, value=node.value, known_at=node.known_at)


def alert_view(alert: ReceivedAlert) -> schema.AlertView:
    """A received alert."""
    return schema.AlertView(
        id=alert.id,
        at=alert.at,
        type=alert.type,
        format=alert.format,
        mark=alert.mark,
        source=alert.source,
        correlator=alert.correlator,
        data=alert.data,
        order=alert.order_id,
    )


def image_view(image: Image, config: ServerConfig) -> schema.ImageView:
    """A library image."""
    return schema.ImageView(
        id=image.id,
        name=image.name,
        file_name=image.file_name,
        media_type=image.media_type,
        size=image.size,
        sha256=image.sha256,
        created_at=image.created_at,
        url=download_url(config.public_url, image),
        signature=image.signature_state,
        signed_by=image.signed_by,
        signature_url=None if image.signature is None else signature_url(config.public_url, image),
    )


def order_view(order: Order) -> schema.OrderView:
    """An order, short."""
    return schema.OrderView(
        id=order.id,
        device=order.device.name,
        group=order.group_id,
        after=order.after_id,
        kind=order.kind,
        target=order.target,
        name=order.params.get("name"),
        state=order.state,
        step=order.step,
        correlator=order.correlator,
        created_at=order.created_at,
        created_by=order.created_by,
        deadline=order.deadline,
        finished_at=order.finished_at,
        dm_status=order.dm_status,
        dm_status_text=None if order.dm_status is None else status_words(order.dm_status),
        message=order.message,
    )


def order_detail_view(session: Session, order: Order) -> schema.OrderDetailView:
    """An order with its trail."""
    events = session.scalars(select(OrderEvent).where(OrderEvent.order_id == order.id).order_by(OrderEvent.id))
    return schema.OrderDetailView(
        **order_view(order).model_dump(),
        params={**order.params, **({BOOTSTRAP: HIDDEN} if BOOTSTRAP in order.params else {})},
        events=[
            schema.OrderEventView(at=event.at, actor=event.actor, state=event.state, step=event.step, text=event.text)
            for event in events
        ],
    )


def group_view(session: Session, group: OrderGroup, refused: Iterable[str] = ()) -> schema.GroupView:
    """A group with how many of its orders are in which state."""
    query = select(Order.state, func.count()).where(Order.group_id == group.id).group_by(Order.state)
    states: dict[OrderState, int] = {row[0]: row[1] for row in session.execute(query)}
    return schema.GroupView(
        id=group.id,
        label=group.label,
        rate=group.rate,
        created_at=group.created_at,
        created_by=group.created_by,
        states=states,
        refused=list(refused),
    )


def token_view(token: Token) -> schema.TokenView:
    """A token, without its secret."""
    return schema.TokenView(name=token.name, role=token.role, created_at=token.created_at, revoked_at=token.revoked_at)


def _credential_view(name: str, secret: str, nonce: bytes) -> schema.CredentialView:
    return schema.CredentialView(name=name, secret=secret, nonce=base64.b64encode(nonce).decode())


def _leaves(nodes: Iterable[KnownNode]) -> dict[str, KnownNode]:
    return {node.uri: node for node in nodes}


def _value(leaves: dict[str, KnownNode], uri: str) -> str | None:
    node = leaves.get(uri)
    return None if node is None else node.value


def _open_by_target(session: Session, device: Device) -> dict[str, int]:
    query = select(Order.target, Order.id).where(Order.device_id == device.id, Order.state.in_(OPEN_STATES))
    return {row[0]: row[1] for row in session.execute(query.order_by(Order.id.desc()))}


def _image_names(session: Session, device: Device) -> dict[str, str]:
    """Operators' names of images by ImgID."""
    root = knowledge.vmimg_root(device)
    leaves = _leaves(knowledge.nodes_below(session, device, root))
    entries = session.scalars(select(DeliveredImage).where(DeliveredImage.device_id == device.id))
    named = {_value(leaves, f"{root}/{entry.node}/ImgID"): entry.name for entry in entries}
    return {img_id: name for img_id, name in named.items() if img_id}


def _image_of(create_params: str | None, images: dict[str, str]) -> str | None:
    img_ids = parse_qs(create_params or "").get("ImgID", [])
    return images.get(img_ids[0], img_ids[0]) if img_ids else None
