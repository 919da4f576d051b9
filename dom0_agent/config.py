"""The agent's configuration: YAML → frozen dataclasses (the reference in this folder's README.md is printed from them).

Holds what the agent as a whole needs; a part with settings of its own defines their dataclass next to its code.
Must not import anything heavy: ``virmoctl`` and ``--help`` read this too.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dom0_agent.config_schema import setting
from dom0_agent.control_client import DEFAULT_SOCKET
from dom0_agent.firmware.config import FirmwareConfig
from dom0_agent.guest.config import GuestConfig
from dom0_agent.hypervisor.config import HypervisorConfig
from dom0_agent.images.config import ImagesConfig
from dom0_agent.mo.dmtree.config import FumoConfig, LawmoConfig, ScomoConfig
from dom0_agent.resources.config import MetricsConfig, ResourcesConfig
from dom0_agent.transport.tls import TlsConfig
from dom0_agent.vm.config import VmConfig

DEFAULT_FILE = Path("/etc/virmo-agent/agent.yaml")
MAX_URI = 255  #: a DevId longer than this fits no SyncHdr that others would accept

AuthType = Literal["basic", "md5", "hmac"]


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What the device says of itself in DevInfo and DevDetail."""

    id: str = setting("DevId: a URN that is unique in the fleet, such as urn:uuid:…")
    manufacturer: str = setting("DevInfo/Man", "unknown")
    model: str = setting("DevInfo/Mod", "unknown")
    language: str = setting("DevInfo/Lang, RFC 1766", "en")
    type: str = setting("DevDetail/DevTyp", "VirtualizationHost")
    oem: str = setting("DevDetail/OEM", "")
    hardware_version: str = setting("DevDetail/HwV", "")
    firmware_version: str = setting("DevDetail/FwV", "")

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > MAX_URI or ":" not in self.id:
            raise ValueError(f"id must be a URN of at most {MAX_URI} characters, such as urn:uuid:…")


@dataclass(frozen=True, slots=True)
class CredentialConfig:
    """One direction of authentication (OMA-TS-DM-Security 5)."""

    name: str = setting("user name (AAuthName)")
    secret: str = setting("password (AAuthSecret)")
    auth: AuthType = setting("scheme", "md5")
    nonce: str = setting("first nonce, base64; empty: the first session begins with a challenge", "")

    def __post_init__(self) -> None:
        try:
            base64.b64decode(self.nonce, validate=True)
        except binascii.Error as error:
            raise ValueError("nonce is not base64") from error

    @property
    def nonce_octets(self) -> bytes:
        """The first nonce, decoded."""
        return base64.b64decode(self.nonce)


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """A DM account: a server that may manage this device."""

    server_id: str = setting("ServerID: the identity that ACLs name")
    address: str = setting("URL of the server's DM endpoint")
    client: CredentialConfig = setting("how the server knows us")
    server: CredentialConfig = setting("how we know the server")
    tls: TlsConfig = field(default_factory=TlsConfig, metadata={"doc": "TLS towards this server"})

    def __post_init__(self) -> None:
        if not self.server_id or any(c in self.server_id for c in "=&*+ \t\n"):
            raise ValueError("server_id must not be empty or contain = & * + or white space (they are ACL syntax)")
        parts = urlsplit(self.address)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"address must be an https:// URL, not {self.address!r}")


@dataclass(frozen=True, slots=True)
class NotificationConfig:
    """Where servers may ask for a session (package 0 over HTTP)."""

    address: str = setting("address to listen on", "0.0.0.0")  # noqa: S104 - what is taken there is verified
    port: int = setting("TCP port; 0: no notifications are taken", 0, minimum=0, maximum=65535)


@dataclass(frozen=True, slots=True)
class DmConfig:
    """Sessions with DM servers."""

    accounts: tuple[AccountConfig, ...] = setting("the servers", ())
    encoding: Literal["xml", "wbxml"] = setting("representation of the messages that we send", "xml")
    poll_interval: int = setting("seconds between client-initiated sessions; 0: only when asked", 3600, minimum=0)
    answer_limit: float = setting(
        "seconds an Exec may take before it is answered 202 and reported later", 20.0, minimum=0
    )
    notification: NotificationConfig = field(default_factory=NotificationConfig)
    connect_timeout: float = setting("seconds to reach the server", 10.0, minimum=1)
    answer_timeout: float = setting("seconds the server has for one answer", 60.0, minimum=1)
    retry_first: float = setting("seconds before a failed session is tried again; doubles each time", 5.0, minimum=1)
    retry_max: float = setting("upper end of that, in seconds", 900.0, minimum=1)
    max_message_size: int = setting("bytes of one message that we accept (MaxMsgSize)", 262144, minimum=4096)
    max_object_size: int = setting("bytes of one object that we accept (MaxObjSize)", 4 << 20, minimum=4096)
    tls: TlsConfig = field(
        default_factory=TlsConfig, metadata={"doc": "TLS towards servers whose account a bootstrap message brought"}
    )
    console: Path | None = setting(
        "terminal at which the daemon asks dom0's user what servers want to know (alerts 1100 to 1104), such as "
        "/dev/tty2; nothing else may read there; default: such alerts are answered 406",
        None,
    )

    def __post_init__(self) -> None:
        ids = [account.server_id for account in self.accounts]
        if len(ids) != len(set(ids)):
            raise ValueError("accounts: each server_id may be there once")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The agent's log, on standard error (systemd's journal takes it from there)."""

    level: Literal["debug", "info", "warning", "error"] = setting("least important line that is written", "info")
    format: Literal["text", "json"] = setting("one line of text, or of JSON, per event", "text")


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """The local socket that ``virmoctl`` uses."""

    socket: Path = setting("path of the Unix socket", Path(DEFAULT_SOCKET))


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The whole file. Relative paths of the parts are below ``state_dir``."""

    device: DeviceConfig = setting("this device")
    state_dir: Path = setting("what survives a restart: database, images, VMs' disks", Path("/var/lib/virmo-agent"))
    dm: DmConfig = field(default_factory=DmConfig)
    hypervisor: HypervisorConfig = field(default_factory=HypervisorConfig)
    vm: VmConfig = field(default_factory=VmConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    guest: GuestConfig = field(default_factory=GuestConfig)
    lawmo: LawmoConfig = field(default_factory=LawmoConfig)
    scomo: ScomoConfig = field(default_factory=ScomoConfig)
    fumo: FumoConfig = field(default_factory=FumoConfig)
    firmware: FirmwareConfig = field(default_factory=FirmwareConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        if not self.state_dir.is_absolute():
            raise ValueError("state_dir must be an absolute path")
        object.__setattr__(self, "images", replace(self.images, dir=self.state_dir / self.images.dir))


if __name__ == "__main__":  # prints the reference that README.md holds
    from dom0_agent.config_schema import reference_table

    print(reference_table(AgentConfig))
