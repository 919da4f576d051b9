"""The bodies that the HTTP API takes and gives: unknown keys are refused, texts have a length and a character set."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from virmo_server.config import BaseUrl
from virmo_server.model import OrderState, Role

#: Names that operators give: what needs no quoting in a shell or a URL. Free text belongs into descriptions.
NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"
#: What XML 1.0 can carry, without line breaks: texts travel to devices in XML.
TEXT_PATTERN = r"^[\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*$"
#: The same with line breaks and tabs, for values of nodes.
XML_TEXT_PATTERN = r"^[\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*$"
#: ``.`` or ``./A/B``, with ``?prop=`` or ``?list=``; the device checks the rest.
URI_PATTERN = r"^\.(/[^/\x00-\x20\x7f-\x9f?#]+)*(\?(prop|list)=[A-Za-z+-]+)?$"
SHA256_PATTERN = r"^[0-9a-fA-F]{64}$"
FILE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MEDIA_TYPE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,99}$"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._=-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=64)]
Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=1024)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
#: A URN; without slash, because it can name the device in our URLs.
DevId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*:[!-.0-~]+$", max_length=255)]
#: MD5 credentials are joined with ``:``, so names must not have one.
CredentialName = Annotated[str, Field(pattern=r"^[!-9;-~]{1,255}$")]
Secret = Annotated[str, Field(pattern=r"^[!-~]+$", min_length=8, max_length=255)]
DeadlineSeconds = Annotated[int, Field(ge=1, le=90 * 86400)]


class Body(BaseModel):
    """Parent of what clients send."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class View(BaseModel):
    """Parent of what the server answers."""

    model_config = ConfigDict(frozen=True)


class ProblemView(View):
    """RFC 9457."""

    status: int
    code: str
    detail: str
    errors: list[str] = []


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


class DeviceChangeBody(Body):
    """New values for those given; ``null`` removes."""

    name: Name = ""
    base_url: BaseUrl | None = None
    notify_url: BaseUrl | None = None
    labels: list[Label] = Field(default=[], max_length=32)


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


class DeliverImageBody(Body):
    """Deliver a library image to a device under ``name``."""

    kind: Literal["deliver-image"]
    name: Name
    image_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    description: Text = ""
    by_descriptor: bool = False  #: let the device fetch a download descriptor first (DLOTA)
    deadline_seconds: DeadlineSeconds | None = None


class DeleteImageBody(Body):
    """Remove the image ``name`` from a device."""

    kind: Literal["delete-image"]
    name: Name
    deadline_seconds: DeadlineSeconds | None = None


class CreateVmBody(Body):
    """Create a VM from the delivered image named ``image``. ``description`` defaults to the name."""

    kind: Literal["create-vm"]
    name: Name
    image: Name
    running: bool = True
    description: Text | None = None
    deadline_seconds: DeadlineSeconds | None = None


class VmOperationBody(Body):
    """A primitive on the VM ``name``."""

    kind: Literal["power-off", "power-on", "suspend", "resume", "delete-vm"]
    name: Name
    deadline_seconds: DeadlineSeconds | None = None


class RefreshBody(Body):
    """Read again what the device has."""

    kind: Literal["refresh"]
    deadline_seconds: DeadlineSeconds | None = None


class NodeBody(Body):
    """One command on a node of the device's tree; ``value`` is for add, replace and exec."""

    kind: Literal["node-get", "node-add", "node-replace", "node-delete", "node-exec"]
    uri: Annotated[str, Field(pattern=URI_PATTERN, max_length=1024)]
    value: Annotated[str, Field(pattern=XML_TEXT_PATTERN, max_length=65536)] = ""
    format: Literal["b64", "bool", "chr", "int", "node", "null", "xml", "date", "time", "float"] | None = None
    type: Annotated[str, Field(pattern=TEXT_PATTERN, max_length=255)] | None = None
    deadline_seconds: DeadlineSeconds | None = None


class VmResources(Body):
    """New resources of the VM ``name``; what is left out stays. Octets, octets, percent, percent."""

    name: Name
    ram: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    storage: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    cpu: Annotated[int, Field(ge=0, le=100)] | None = None
    network: Annotated[int, Field(ge=0, le=100)] | None = None


class ApplyResourcesBody(Body):
    """Share the device's resources out anew: all of these VMs change, or none."""

    kind: Literal["apply-resources"]
    vms: Annotated[list[VmResources], Field(min_length=1, max_length=64)]
    deadline_seconds: DeadlineSeconds | None = None


class ListPeripheralsBody(Body):
    """Ask which peripherals the VM ``name`` has."""

    kind: Literal["list-peripherals"]
    name: Name
    deadline_seconds: DeadlineSeconds | None = None


class PeripheralBody(Body):
    """Enable or disable a peripheral of the VM ``name``."""

    kind: Literal["enable-peripheral", "disable-peripheral"]
    name: Name
    peripheral: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    deadline_seconds: DeadlineSeconds | None = None


class GuestBody(Body):
    """Something inside the running VM ``name`` that needs no more to be said."""

    kind: Literal["guest-lock", "guest-partial-lock", "guest-unlock", "guest-reset", "guest-packages", "guest-info"]
    name: Name
    deadline_seconds: DeadlineSeconds | None = None


class WipeBody(Body):
    """Erase what the guest offers for it; no ``items``: all of it."""

    kind: Literal["guest-wipe"]
    name: Name
    items: list[Text] = Field(default=[], max_length=64)
    deadline_seconds: DeadlineSeconds | None = None


class PackageBody(Body):
    """Where a package is: at a ``url`` that the device can reach, or a file of the library."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=2048)] | None = None
    image_id: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.image_id is None):
            raise ValueError("either url or image_id must be given")
        return self


class InstallBody(PackageBody):
    """Install a package: from a ``url`` that the device can reach, or a file of the library."""

    kind: Literal["guest-install"]
    name: Name
    pkg_id: Text
    package_name: Text = ""
    type: Text = ""
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN)] | None = None
    install_params: Text = ""
    inactive: bool = False
    deadline_seconds: DeadlineSeconds | None = None


class RemoveBody(Body):
    """Remove a component, by its name or ID in the inventory."""

    kind: Literal["guest-remove"]
    name: Name
    component: Text
    deadline_seconds: DeadlineSeconds | None = None


class UpdateBody(PackageBody):
    """Replace the VM's system by that of a bundle, from a ``url`` or the library; its data stays."""

    kind: Literal["guest-update"]
    name: Name
    deadline_seconds: DeadlineSeconds | None = None


class AskBody(Body):
    """Ask the VM's user (OMA-ER-VirMO 11.2.2). ``input`` is the option IT; the result is the order's message."""

    kind: Literal["guest-ask"]
    name: Name
    ask: Literal["display", "confirm", "text", "choice", "choices"]
    text: Annotated[str, Field(pattern=XML_TEXT_PATTERN, min_length=1, max_length=4000)]
    choices: list[Text] = Field(default=[], max_length=100)
    min_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    max_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    default: Annotated[str, Field(pattern=r"^[^&=]*$", max_length=255)] = ""
    max_length: Annotated[int, Field(ge=1, le=4096)] | None = None
    input: Literal["A", "N", "D", "T", "P", "I"] | None = None
    masked: bool = False
    deadline_seconds: DeadlineSeconds | None = None

    @model_validator(mode="after")
    def _choices_where_due(self) -> AskBody:
        if (self.ask in ("choice", "choices")) != bool(self.choices):
            raise ValueError("choices are for choice and choices, which need some")
        return self


OrderBody = Annotated[
    DeliverImageBody
    | DeleteImageBody
    | CreateVmBody
    | VmOperationBody
    | RefreshBody
    | NodeBody
    | ApplyResourcesBody
    | ListPeripheralsBody
    | PeripheralBody
    | GuestBody
    | WipeBody
    | InstallBody
    | RemoveBody
    | UpdateBody
    | AskBody,
    Field(discriminator="kind"),
]


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
    refused: list[str] = []


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
