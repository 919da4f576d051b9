"""The bodies that the HTTP API takes and gives, but for those of orders."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from virmo_server.api.schema_base import Body, CertificateSubject, CredentialName, DevId, Label, Name, Secret, View
from virmo_server.api.schema_orders import OrderBody
from virmo_server.config import BaseUrl
from virmo_server.model import OrderState, Role, SignatureState


class ProblemView(View):
    """RFC 9457."""

    status: int
    code: str
    detail: str
    errors: list[str] = Field(default=[])


class ServerView(View):
    """Who answers."""

    server_id: str
    public_url: str
    version: str
    actor: str
    role: Role
    ca_certificate: str | None  #: PEM, for devices that shall trust this server


class NewDeviceBody(Body):
    """Registration of a board. Secrets that are left out are made by the server."""

    name: Name
    dev_id: DevId
    client_name: CredentialName | None = None
    client_secret: Secret | None = None
    server_secret: Secret | None = None
    base_url: BaseUrl | None = None
    notify_url: BaseUrl | None = None
    labels: list[Label] = Field(default=[], max_length=32)
    auth: Literal["md5", "hmac", "basic"] = "md5"
    certificate_subject: CertificateSubject | None = None


class DeviceChangeBody(Body):
    """New values for those given; ``null`` removes."""

    name: Name = ""
    base_url: BaseUrl | None = None
    notify_url: BaseUrl | None = None
    labels: list[Label] = Field(default=[], max_length=32)
    certificate_subject: CertificateSubject | None = None


class CredentialView(View):
    """One direction of authentication, in clear; ``nonce`` is base64."""

    name: str
    secret: str
    nonce: str


class DeviceView(View):
    """A board as the server knows it."""

    name: str
    dev_id: str
    labels: list[str]
    manufacturer: str | None
    model: str | None
    dm_version: str | None
    base_url: str | None
    notify_url: str | None
    created_at: datetime
    last_seen_at: datetime | None
    auth_failed_at: datetime | None
    auth_failure: str | None
    notified_at: datetime | None
    notify_error: str | None
    certificate_subject: str | None
    virmo_root: str
    vmimg_root: str
    device_resources: str | None
    vm_count: int
    open_orders: int


class BootstrapView(View):
    """A bootstrap profile (WBXML in base64), its Content-Type with SEC and MAC, and the PIN behind the MAC."""

    profile: str
    content_type: str
    pin: str


class RegistrationView(View):
    """A new board and, this one time, its secrets: as YAML for the agent, and as a profile that brings them."""

    device: DeviceView
    client: CredentialView
    server: CredentialView
    agent_config: str
    bootstrap: BootstrapView


class VmView(View):
    """A VM as last read from its device; ``known_at`` is when its State was."""

    name: str
    node: str
    uri: str
    state: int | None
    state_text: str
    vmid: str | None
    description: str | None
    create_params: str | None
    current_config: str | None
    image: str | None
    known_at: datetime | None
    open_order: int | None


class DeviceImageView(View):
    """An image entry as last read from its device."""

    name: str
    node: str
    uri: str
    image_id: str | None
    state: int | None
    state_text: str
    img_id: str | None
    media_type: str | None
    download_uri: str | None
    location: str | None
    known_at: datetime | None
    open_order: int | None


class NodeView(View):
    """A node of a device's tree as last read."""

    uri: str
    format: str | None
    value: str | None
    known_at: datetime


class AlertView(View):
    """A Generic Alert that a device sent."""

    id: int
    at: datetime
    type: str
    format: str
    mark: str | None
    source: str
    correlator: str | None
    data: str
    order: int | None


class ImageView(View):
    """A file of the library."""

    id: str
    name: str
    file_name: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime
    url: str
    signature: SignatureState  #: ``none``, ``unchecked`` or ``good``
    signed_by: str | None
    signature_url: str | None  #: of one that is not in the file


class OrderEventView(View):
    """A line of an order's trail."""

    at: datetime
    actor: str
    state: OrderState
    step: str
    text: str


class OrderView(View):
    """An order. ``dm_status`` is the device's code for the command that decided it, ``dm_status_text`` its meaning."""

    id: int
    device: str
    group: int | None
    after: int | None
    kind: str
    target: str
    name: str | None
    state: OrderState
    step: str
    correlator: str
    created_at: datetime
    created_by: str
    deadline: datetime
    finished_at: datetime | None
    dm_status: int | None
    dm_status_text: str | None
    message: str


class OrderDetailView(OrderView):
    """An order with its parameters and its trail."""

    params: dict[str, Any]
    events: list[OrderEventView]


class NewGroupBody(Body):
    """The same order for every device with ``label``; at most ``rate`` of them under way at once."""

    label: Label
    rate: Annotated[int, Field(ge=1, le=100000)] | None = None
    order: OrderBody


class GroupView(View):
    """An order group and how its orders stand."""

    id: int
    label: str
    rate: int | None
    created_at: datetime
    created_by: str
    states: dict[OrderState, int]
    refused: list[str] = Field(default=[])


class NewTokenBody(Body):
    """A new key to the HTTP API."""

    name: Name
    role: Role = Field(strict=False)


class TokenView(View):
    """A key, without its secret."""

    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


class NewTokenView(TokenView):
    """A new key; ``token`` is shown this one time."""

    token: str
