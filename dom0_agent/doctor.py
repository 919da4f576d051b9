"""``virmo-agent doctor``: looks at everything the agent needs of its board, and says what to do about each failure.

Each check is a row of a table; it reads, never mends. A board image runs this before it calls a boot good.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from dom0_agent.config import AgentConfig

TOOL_DEADLINE = 20.0  #: seconds; a busy dom0 answers `xl info` slowly
OLDEST_SANE_TIME = 1735689600  #: 2025-01-01: a clock before this was never set, and no certificate would be valid
MIN_FREE = 64 << 20  #: bytes the database and a log need to go on
SUPPORTED_SCHEDULERS = ("credit", "credit2")


class Level(Enum):
    """How bad a finding is; only ``FAIL`` makes the doctor's exit status non-zero."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw and, when it is not well, what to do."""

    level: Level
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One row: ``run`` looks; ``backends`` says with which hypervisor backends it makes sense."""

    name: str
    run: Callable[[AgentConfig, Path], Finding]
    backends: tuple[str, ...] = ("xl", "sim")


def examine(config: AgentConfig, config_file: Path) -> Iterator[tuple[str, Finding]]:
    """Run all checks that apply; yields each as it is done."""
    for check in CHECKS:
        if config.hypervisor.backend in check.backends:
            yield check.name, check.run(config, config_file)


def _ok(seen: str) -> Finding:
    return Finding(Level.OK, seen)


def _fail(seen: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, seen, remedy)


def _warn(seen: str, remedy: str) -> Finding:
    return Finding(Level.WARN, seen, remedy)


def _tool(*argv: str) -> tuple[int, str]:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_DEADLINE, check=False)
    except FileNotFoundError:
        return 127, f"{argv[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} did not answer within {TOOL_DEADLINE:.0f} s"
    return done.returncode, (done.stdout or done.stderr).strip()


def _root(_config: AgentConfig, _file: Path) -> Finding:
    if os.geteuid() == 0:
        return _ok("running as root")
    return _fail(f"running as uid {os.geteuid()}", "run as root: xl and XenStore allow nobody else")


def _config_permissions(_config: AgentConfig, file: Path) -> Finding:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return _fail(f"{file} has mode {mode:04o} and holds secrets", f"chmod 0600 {file}")
    return _ok(f"{file} has mode {mode:04o}")


def _tools(config: AgentConfig, _file: Path) -> Finding:
    missing = [name for name in _TOOLS[config.hypervisor.backend] if shutil.which(name) is None]
    if missing:
        packages = ", ".join(f"{name} ({_TOOLS[config.hypervisor.backend][name]})" for name in missing)
        return _fail(f"not in PATH: {', '.join(missing)}", f"install {packages}")
    return _ok(", ".join(_TOOLS[config.hypervisor.backend]))


#: program → the Debian package that has it
_TOOLS = {
    "xl": {
        "xl": "xen-utils-4.17",
        "tc": "iproute2",
        "ip": "iproute2",
        "openssl": "openssl",
        "zstd": "zstd",
        "losetup": "mount",
        "qemu-img": "qemu-utils",
        "cp": "coreutils",
    },
    "sim": {"openssl": "openssl", "zstd": "zstd", "cp": "coreutils"},
}


def _xen(_config: AgentConfig, _file: Path) -> Finding:
    code, text = _tool("xl", "info")
    if code:
        return _fail(f"xl info: {text}", "boot this kernel under Xen, and start xencommons (xenstored) first")
    facts = dict(line.partition(":")[::2] for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    version, scheduler = facts.get("xen_version", "?"), facts.get("xen_scheduler", "?")
    if scheduler not in SUPPORTED_SCHEDULERS:
        return _fail(
            f"Xen {version} with scheduler {scheduler}",
            f"boot Xen with sched={' or sched='.join(SUPPORTED_SCHEDULERS)}: CPU shares need one of them",
        )
    return _ok(f"Xen {version}, scheduler {scheduler}, {facts.get('free_memory', '?')} MiB free")


def _tools_match_xen(_config: AgentConfig, _file: Path) -> Finding:
    code, text = _tool("xl", "list")
    if code:
        return _fail(f"xl list: {text}", "xl and Xen must be of the same version: install both from one source")
    return _ok("xl talks to Xen")


def _autoballoon(_config: AgentConfig, _file: Path) -> Finding:
    file = Path("/etc/xen/xl.conf")
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    settings = dict(line.split("#")[0].partition("=")[::2] for line in lines if "=" in line.split("#")[0])
    value = {key.strip(): value.strip().strip("\"'") for key, value in settings.items()}.get("autoballoon", "auto")
    if value in ("off", "0"):
        return _ok("autoballoon is off")
    return _fail(
        f"autoballoon is {value!r} in {file}",
        f'set autoballoon="off" in {file} and give dom0 fixed memory (dom0_mem=…,max:…): '
        "otherwise xl takes a host-wide lock and shrinks dom0",
    )


def _modules(_config: AgentConfig, _file: Path) -> Finding:
    builtin = Path(f"/lib/modules/{os.uname().release}/modules.builtin")
    names = (
        {Path(line).stem.replace("-", "_") for line in builtin.read_text().splitlines()} if builtin.is_file() else set()
    )
    missing = [m for m in _MODULES if m not in names and not Path("/sys/module", m).is_dir()]
    if missing:
        return _fail(
            f"not loaded: {', '.join(missing)}", f"modprobe {' '.join(missing)}, and list them in /etc/modules"
        )
    return _ok(", ".join(_MODULES))


_MODULES = ("xen_evtchn", "xen_gntdev", "xen_gntalloc", "xen_blkback", "xen_netback", "loop")


def _xenstore(_config: AgentConfig, _file: Path) -> Finding:
    code, text = _tool("xenstore-read", "/local/domain/0/domid")
    if code:
        return _fail(f"/local/domain/0/domid: {text}", "start xenstored and xen-init-dom0 (systemctl start xen)")
    return _ok(f"XenStore answers; this is domain {text}")


def _device_model(config: AgentConfig, _file: Path) -> Finding:
    if config.images.guest_arch != "x86_64":
        return _ok("not needed: Xen on Arm has no hvm guests")
    found = next((path for path in _DEVICE_MODELS if path.is_file()), None)
    if found is not None:
        return _ok(str(found))
    return _warn(
        "there is none, so VMs of type hvm (and bare disk images, which become such) cannot start",
        "install qemu-system-xen, or use images of type pv or pvh",
    )


#: where distributions put the program that emulates an hvm guest's machine
_DEVICE_MODELS = (
    Path("/usr/libexec/xen-qemu-system-i386"),
    Path("/usr/lib/xen/bin/qemu-system-i386"),
    Path("/usr/lib/xen-4.17/bin/qemu-system-i386"),
)


def _bridge(config: AgentConfig, _file: Path) -> Finding:
    name = config.vm.bridge
    if not name:
        return _warn("vm.bridge is empty", "guests have no network; name a bridge if they need one")
    if Path("/sys/class/net", name, "bridge").is_dir():
        return _ok(f"bridge {name}")
    return _fail(f"no bridge {name}", f"make it (ip link add {name} type bridge) or set vm.bridge")


def _peripherals(config: AgentConfig, _file: Path) -> Finding:
    from dom0_agent.hypervisor.interface import Pci, Usb
    from dom0_agent.hypervisor.xl_devices import ASSIGNABLE, present
    from dom0_agent.resources.peripheral_names import passed_device

    named = [(one.name, passed_device(one.device)) for one in config.resources.peripherals]
    missing = [(name, device) for name, device in named if device is not None and not present(device)]
    unbound = [device.address for _, device in missing if isinstance(device, Pci)]
    if unbound:
        return _fail(
            f"{', '.join(unbound)} cannot be given to VMs: not bound to {ASSIGNABLE.name}",
            f"xl pci-assignable-add {unbound[0]} before the agent starts, or name it in dom0's xen-pciback.hide",
        )
    away = [f"{name} (port {device.port})" for name, device in missing if isinstance(device, Usb)]
    if away:
        return _warn(f"nothing is plugged in: {', '.join(away)}", "plug it in; VMs that own it get it then")
    return _ok(", ".join(name for name, _ in named) or "none is named")


def _clock(_config: AgentConfig, _file: Path) -> Finding:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    if now < OLDEST_SANE_TIME:
        return _fail(f"the clock says {shown}", "set it (NTP or RTC): certificates look not yet valid")
    return _ok(shown)


def _state_dir(config: AgentConfig, _file: Path) -> Finding:
    path = config.state_dir
    if not path.is_dir():
        if path.parent.is_dir() and os.access(path.parent, os.W_OK):
            return _ok(f"{path} will be made")
        return _fail(f"{path} cannot be made", f"mkdir -p {path}, on a writable file system that survives reboots")
    if not os.access(path, os.W_OK):
        return _fail(f"{path} is not writable", "run as root, and mount it read-write")
    return _ok(f"{path} is writable")


def _space(config: AgentConfig, _file: Path) -> Finding:
    path = config.state_dir
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    wanted = config.images.reserve + MIN_FREE
    if free < wanted:
        return _fail(
            f"{free >> 20} MiB free below {config.state_dir}, {wanted >> 20} MiB wanted",
            "delete images or VMs that are not needed, or enlarge the partition",
        )
    return _ok(f"{free >> 20} MiB free below {config.state_dir}")


def _servers(config: AgentConfig, _file: Path) -> Finding:
    if not config.dm.accounts:
        return _warn("dm.accounts is empty", "nobody can manage this device yet: add an account")
    for account in config.dm.accounts:
        parts = urlsplit(account.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        where = f"{account.server_id} at {parts.hostname}:{port}"
        try:
            with socket.create_connection((str(parts.hostname), port), config.dm.connect_timeout) as raw:
                if parts.scheme == "https":
                    context = ssl.create_default_context(cafile=account.tls.ca_file)
                    context.wrap_socket(raw, server_hostname=parts.hostname).close()
        except ssl.SSLCertVerificationError as error:
            return _fail(
                f"{where}: {error.verify_message}", "set tls.ca_file to the CA that signed the server's certificate"
            )
        except FileNotFoundError:
            return _fail(
                f"{where}: no file {account.tls.ca_file}", "copy the server's CA there, or correct tls.ca_file"
            )
        except OSError as error:
            return _fail(f"{where}: {error}", "check the address, the network and the server")
    return _ok(", ".join(account.server_id for account in config.dm.accounts))


_XL = ("xl",)

CHECKS = (
    Check("root", _root, _XL),
    Check("configuration file", _config_permissions),
    Check("tools", _tools),
    Check("Xen", _xen, _XL),
    Check("xl and Xen", _tools_match_xen, _XL),
    Check("autoballoon", _autoballoon, _XL),
    Check("kernel modules", _modules, _XL),
    Check("XenStore", _xenstore, _XL),
    Check("device model", _device_model, _XL),
    Check("guest bridge", _bridge, _XL),
    Check("peripherals", _peripherals, _XL),
    Check("clock", _clock),
    Check("state directory", _state_dir),
    Check("free space", _space),
    Check("DM servers", _servers),
)
