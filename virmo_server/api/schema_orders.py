"""The bodies of orders, one for each kind."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from virmo_server.api.schema_base import (
    SHA256_PATTERN,
    TEXT_PATTERN,
    URI_PATTERN,
    XML_TEXT_PATTERN,
    Body,
    DeadlineSeconds,
    Name,
    Text,
)

PeripheralName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]


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
    """Create a VM from the delivered image named ``image``. ``description`` defaults to the name; ``devices`` names
    devices of the board that the VM gets for itself, as its configuration calls them. ``bootstrap`` is a profile for a
    DM client inside the VM (OMA-ER-VirMO 11.1.3), in base64; it is shown to nobody."""

    kind: Literal["create-vm"]
    name: Name
    image: Name
    running: bool = True
    description: Text | None = None
    devices: list[PeripheralName] = Field(default_factory=list, max_length=32)
    bootstrap: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=43_692)] | None = None
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
