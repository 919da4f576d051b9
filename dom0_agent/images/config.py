"""What an operator can set about images (``images:`` in the configuration). Imports nothing heavy."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dom0_agent.config_schema import setting

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

#: ``platform.machine()`` → ``arch`` of a manifest
_ARCHES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImagesConfig:
    """VM images: where they are, how they are fetched, what is accepted. Bytes, seconds, bytes a second."""

    dir: Path = setting("the image store; one file system for downloads and content", Path("images"))
    max_size: int = setting("most bytes of a download, and of what it unpacks to", 64 * GIB, minimum=1)
    reserve: int = setting("bytes that images never take: dom0 lives on the same file system", 256 * MIB, minimum=0)
    parallel_downloads: int = setting("downloads at a time; others wait in State 1", 2, minimum=1, maximum=64)
    bandwidth_limit: int = setting("bytes a second of all downloads together; 0: no limit", 0, minimum=0)
    retries: int = setting("tries in a row that bring nothing new before a download fails", 8, minimum=0)
    backoff_first: float = setting("seconds before a broken download goes on; doubles each time", 1.0, minimum=0)
    backoff_max: float = setting("upper end of that, in seconds", 300.0, minimum=0)
    connect_timeout: float = setting("seconds to reach the web server", 30.0, minimum=0.01)
    header_timeout: float = setting("seconds the web server has for the header of its answer", 60.0, minimum=0.01)
    read_timeout: float = setting("seconds of silence that end a connection", 60.0, minimum=0.01)
    min_speed: int = setting("bytes a second below which a connection counts as lost; 0: never", KIB, minimum=0)
    speed_window: float = setting("seconds over which that speed is measured", 60.0, minimum=0.01)
    deadline: float = setting("seconds for one download with all its retries", 7 * 86400.0, minimum=0.01)
    max_redirects: int = setting("redirects that are followed", 5, minimum=0, maximum=20)
    ca_file: Path | None = setting("CAs for https, PEM; none: the system's", None)
    proxy: str | None = setting("http://[user:password@]host:port, for http and https", None)
    no_proxy: tuple[str, ...] = setting("hosts and domains that are reached without the proxy", ())
    require_signature: bool = setting("accept only bundles that are signed under signature_ca_file", False)
    signature_ca_file: Path | None = setting("CA of those who may sign images, PEM", None)
    arch: Literal["x86_64", "arm64"] | None = setting("of the guests that can run here; none: this machine's", None)
    disk_memory: int = setting("bytes of RAM for a VM from a bare disk image", 512 * MIB, minimum=MIB)
    resume_at_start: bool = setting("go on with interrupted downloads at start; no: they are State 3", False)

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work. :raises ValueError: names the settings"""
        if not 0 < self.backoff_first <= self.backoff_max:
            raise ValueError("backoff_first must be more than 0 and at most backoff_max")
        if self.require_signature and self.signature_ca_file is None:
            raise ValueError("require_signature needs signature_ca_file")
        if self.proxy is not None and not self.proxy.startswith("http://"):
            raise ValueError("proxy must be http://[user:password@]host:port")

    @property
    def guest_arch(self) -> str:
        """The architecture of guests, as manifests spell it; the kernel's own word when they have none for it."""
        machine = platform.machine().lower()
        return self.arch or _ARCHES.get(machine, machine)
