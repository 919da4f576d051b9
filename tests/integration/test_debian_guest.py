"""The shim as a service of a real Debian guest: its package, locks under systemd, software by apt, hooks, restarts.

systemd, apt, sshd, nftables and log-ins are real; between shim and agent is a Unix socket, as in the simulator.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from dom0_agent.guest.config import GuestConfig
from dom0_agent.guest.hub import GuestHub
from dom0_agent.guest.interface import GuestAnswer, GuestRequest
from dom0_agent.guest.unix_channel import UnixChannelServer
from dom0_agent.hypervisor.interface import DomainInfo, Hypervisor
from guest_shim.build import build_deb
from guest_shim.lawmo import MOID as LAWMO
from guest_shim.scomo import MOID as SCOMO
from tests.integration.debian_guest import DebianGuest, unpack_debian
from tests.integration.userland import eventually

VMID = UUID(int=5)
FIRST_TIMEOUT = 1200.0  #: seconds; the first run on a machine installs the guest
NFT = ("nft", "list", "table", "inet", "virmo_lock")
#: A service of the guest that is no log-in: something it offers to the network.
WEB = """[Unit]
Description=What this guest is for
[Service]
ExecStart=/usr/bin/python3 -m http.server 8080
[Install]
WantedBy=multi-user.target
"""
#: The guest is no domain of Xen, and its way to the agent is a socket.
HERE = """[Unit]
ConditionVirtualization=
[Service]
ExecStart=
ExecStart=/usr/bin/virmo-guest-shim --transport unix:/virmo/channel.sock
"""
_CONNECT = """
import socket, sys
probe = socket.socket()
probe.settimeout(1)
sys.exit(probe.connect_ex(("10.99.0.2", int(sys.argv[1]))) != 0)
"""


class Machine:
    """A hypervisor with nothing but channels."""

    def __init__(self) -> None:
        self.server = UnixChannelServer()

    def channels(self) -> UnixChannelServer:
        return self.server

    def domains(self) -> tuple[DomainInfo, ...]:
        return ()

    def subscribe(self, hint: Callable[[], None]) -> Callable[[], None]:
        del hint
        return lambda: None


class Neighbour:
    """Another machine on the guest's network: name spaces of its own, and a cable."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
        eventually(lambda: self._links() == 1, "the neighbour's network")

    def plug_in(self, guest: DebianGuest) -> None:
        """Connect it with a guest that was started."""
        enter = ["nsenter", "--net", "--target", str(self._process.pid), "ip"]
        cable = ["link", "add", "host", "type", "veth", "peer", "name", "eth0", "netns", str(guest.init)]
        subprocess.run([*enter, *cable], check=True)
        subprocess.run([*enter, "addr", "add", "10.99.0.1/24", "dev", "host"], check=True)
        subprocess.run([*enter, "link", "set", "host", "up"], check=True)
        guest.run("ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
        guest.run("ip", "link", "set", "eth0", "up")

    def reaches(self, port: int) -> bool:
        """Whether the guest takes a connection."""
        argv = ["nsenter", "--net", "--target", str(self._process.pid), "python3", "-c", _CONNECT, str(port)]
        return subprocess.run(argv, check=False, timeout=30).returncode == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _links(self) -> int:
        own = Path(f"/proc/{self._process.pid}/ns/net")
        return int(own.readlink() != Path("/proc/self/ns/net").readlink())


class World:
    """The guest, its agent and its neighbour."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        unpack_debian(self.root)
        for unit, text in (("web.service", WEB), ("virmo-guest-shim.service.d/here.conf", HERE)):
            path = self.root / "etc/systemd/system" / unit
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.machine = Machine()
        self.hub = GuestHub(cast(Hypervisor, self.machine), GuestConfig())
        self.hub.start()
        (self.root / "virmo").mkdir()
        self.machine.server.listen((VMID, 1), self.root / "virmo")
        self.neighbour = Neighbour()
        self.guest = DebianGuest(self.root)
        self._started()
        self.guest.run("systemctl", "enable", "--quiet", "--now", "web.service")
        deb = build_deb(folder)
        (self.root / "tmp" / deb.name).write_bytes(deb.read_bytes())
        self.installed = self.guest.run("apt-get", "install", "-y", f"/tmp/{deb.name}")
        self.connected()

    def reboot(self) -> None:
        """The power is cut, and comes back."""
        self.guest.close()
        eventually(lambda: self.hub.hello(VMID) is None, "the channel is lost")
        self.guest = DebianGuest(self.root)
        self._started()

    def connected(self) -> None:
        eventually(lambda: self.hub.hello(VMID) is not None, "the shim says hello", 60)

    def ask(self, verb: str, payload: bytes = b"", /, **fields: object) -> GuestAnswer:
        return self.hub.request(VMID, GuestRequest(verb, fields, payload), deadline=120)

    def lawmo(self, operation: str) -> int:
        answer = self.ask("exec", moid=LAWMO, node=f"Operations/{operation}")
        assert answer.status < 1300, answer.fields
        return answer.status

    def scomo(self, node: str, **fields: object) -> GuestAnswer:
        return self.ask("exec", moid=SCOMO, node=node, **fields)

    def log_in(self) -> None:
        """anna, at the console, from whatever is there."""
        self.guest.type("\r")
        self.guest.shows("login: ")
        self.guest.type("anna\r")
        self.guest.shows("Password: ")
        self.guest.type("secret\r")
        self.guest.shows("$ ")

    def close(self) -> None:
        self.guest.close()
        self.neighbour.close()
        self.hub.close()
        self.machine.server.close()

    def _started(self) -> None:
        self.guest.boots()
        self.neighbour.plug_in(self.guest)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("debian"))
    yield made
    made.close()


@pytest.mark.timeout(FIRST_TIMEOUT)
def test_the_package_makes_it_a_service(world: World) -> None:
    """apt installs the .deb; systemd keeps the shim running, and starts it again when it dies."""
    assert "virmo-guest-shim" in world.installed
    assert world.guest.run("systemctl", "is-enabled", "virmo-guest-shim").strip() == "enabled"
    assert (world.root / "etc/virmo/resume.d").is_dir()
    hello = world.hub.hello(VMID)
    assert hello is not None
    assert {LAWMO, SCOMO} <= {served.moid for served in hello.objects}
    main = world.guest.run("systemctl", "show", "--property=MainPID", "--value", "virmo-guest-shim").strip()
    world.guest.run("kill", "-KILL", main)
    eventually(lambda: world.hub.hello(VMID) is None, "the channel is lost")
    world.connected()


def test_resume_hooks_run_in_order_and_are_told_about(world: World) -> None:
    """What the agent says after a resume: the clock is right, and the executables in resume.d run."""
    hooks = world.root / "etc/virmo/resume.d"
    seen = world.root / "tmp/hooks"
    for name, ends in (("20-second", "exit 3"), ("10-first", "exit 0"), ("30-no-program", "exit 0")):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >>/tmp/hooks\n{ends}\n")
        (hooks / name).chmod(0o644 if "no-program" in name else 0o755)
    assert world.ask("clock", time=time.time()).fields == {"step": 0.0, "hooks": {}}
    answer = world.ask("clock", time=time.time(), resumed=True)
    assert answer.fields == {"step": 0.0, "hooks": {"10-first": 0, "20-second": 3}}
    assert seen.read_text().split() == ["10-first", "20-second"]


def test_a_partial_lock_ends_sessions_and_refuses_log_ins(world: World) -> None:
    """HLF-12: console and ssh are closed, what the guest is for goes on; a new terminal is closed, too."""
    guest = world.guest
    world.log_in()
    assert world.neighbour.reaches(22)
    assert world.neighbour.reaches(8080)
    assert "anna" in guest.run("loginctl", "list-sessions", "--no-legend")
    assert world.lawmo("PartiallyLock") == 1200
    guest.shows("this machine is locked by its owner")
    eventually(lambda: "anna" not in guest.run("loginctl", "list-sessions", "--no-legend"), "anna's session ends")
    guest.type("echo alive-$((6*7))\r")
    guest.keeps_silent("alive-42")
    assert "login: " not in guest.shown
    assert not world.neighbour.reaches(22)
    assert world.neighbour.reaches(8080)
    for unit in ("getty@tty5.service", "console-getty.service", "ssh.service"):
        guest.run("systemctl", "start", unit, check=False)
        assert guest.unit(unit) == "inactive"
    assert world.lawmo("UnLock") == 1200
    world.log_in()
    guest.type("exit\r")
    eventually(lambda: world.neighbour.reaches(22), "ssh is back")


def test_a_full_lock_closes_the_network_and_outlives_a_reboot(world: World) -> None:
    """HLF-12, HLF-13: locked from the first moment after the power was cut; UnLock undoes all of it."""
    before = sorted(path.name for path in (world.root / "etc/systemd/system").rglob("*"))
    assert world.lawmo("FullyLock") == 1200
    assert not world.neighbour.reaches(22)
    assert not world.neighbour.reaches(8080)
    assert world.guest.unit("web.service") == "active"
    world.reboot()
    # before the shim has said anything
    assert "policy drop" in world.guest.run(*NFT)
    assert not world.neighbour.reaches(8080)
    world.connected()
    assert json.loads(world.ask("read", moid=LAWMO).payload)["State"] == "10"
    world.guest.type("\r")
    world.guest.keeps_silent("login: ")
    assert not world.neighbour.reaches(22)
    assert world.lawmo("UnLock") == 1200
    world.guest.shows("login: ")
    eventually(lambda: world.neighbour.reaches(22) and world.neighbour.reaches(8080), "the network is back")
    assert "No such file" in world.guest.run(*NFT, check=False)
    assert sorted(path.name for path in (world.root / "etc/systemd/system").rglob("*")) == before
    assert not (world.root / "etc/nologin").exists()
    world.reboot()
    world.guest.shows("login: ")
    world.connected()


def deb(version: str, folder: Path, *, depends: str = "") -> bytes:
    """Package ``greeter`` with a service, made by dpkg-deb."""
    tree, script = folder / f"greeter-{version}", "#!/bin/sh\nset -e\n"
    service = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    files = {
        "DEBIAN/control": f"Package: greeter\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.org>\n"
        f"{depends}Description: says hello\n",
        "DEBIAN/postinst": f"{script}systemctl daemon-reload\nsystemctl enable --quiet --now greeter.service\n",
        "DEBIAN/prerm": f"{script}[ $1 != remove ] || systemctl disable --quiet --now greeter.service\n",
        "lib/systemd/system/greeter.service": service,
        "usr/share/greeter/version": version,
    }
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.startswith("DEBIAN/p") else 0o644)
    made = folder / f"greeter_{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made)], check=True, capture_output=True)
    return made.read_bytes()


def bring(world: World, identifier: str, data: bytes) -> None:
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    answer = world.ask("package", data, id=identifier, offset=0, size=len(data), sha256=digest)
    assert answer.status == 200, answer.fields


def deployed(world: World) -> dict[str, dict[str, str]]:
    """Components by ID, as the inventory's live nodes have them."""
    nodes = json.loads(world.ask("read", moid=SCOMO).payload)
    found: dict[str, dict[str, str]] = {}
    for path, value in nodes.items():
        _, _, name, leaf = path.split("/")
        found.setdefault(name, {"node": name})[leaf] = value
    return {leaves["ID"]: leaves for leaves in found.values()}


def test_apt_installs_updates_switches_and_removes(world: World, tmp_path: Path) -> None:
    """HLF-07: Install, Update, Deactivate, Activate, Remove of a package with a service; no network is needed."""
    guest = world.guest
    bring(world, "one", deb("1.0", tmp_path))
    answer = world.scomo("Install", package="one", type="deb")
    assert (answer.status, answer.fields["identifier"]) == (1200, "dpkg:greeter")
    assert guest.run("cat", "/usr/share/greeter/version") == "1.0"
    assert guest.unit("greeter.service") == "active"
    told = deployed(world)["dpkg:greeter"]
    assert (told["Version"], told["State"], told["Description"]) == ("1.0", "20", "says hello")
    assert "dpkg:libc6" not in deployed(world)  # what came as a dependency
    at = f"Inventory/Deployed/{told['node']}/Operations"
    assert world.scomo(f"{at}/Deactivate").status == 1200
    assert guest.unit("greeter.service") == "inactive"
    assert deployed(world)["dpkg:greeter"]["State"] == "10"
    assert world.scomo(f"{at}/Activate").status == 1200
    assert guest.unit("greeter.service") == "active"
    bring(world, "two", deb("2.0", tmp_path))
    assert world.scomo("Install", package="two").status == 1200
    assert guest.run("cat", "/usr/share/greeter/version") == "2.0"
    bring(world, "three", deb("3.0", tmp_path, depends="Depends: no-such-thing\n"))
    refused = world.scomo("Install", package="three", type="deb")
    assert refused.status == 1405
    assert "no-such-thing" in refused.fields["error"]
    assert guest.run("cat", "/usr/share/greeter/version") == "2.0"
    assert world.scomo(f"{at}/Remove").status == 1200
    assert guest.unit("greeter.service") == "inactive"
    assert not (world.root / "usr/share/greeter").exists()
    assert "dpkg:greeter" not in deployed(world)
    assert not list((world.root / "var/lib/virmo/packages").iterdir())


def test_a_plain_archive_is_a_component_too(world: World) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, data in (("component.json", b'{"name": "plain", "version": "7"}'),
                           ("hooks/activate", b"#!/bin/sh\ntouch /tmp/plain-runs\n"),
                           ("hooks/deactivate", b"#!/bin/sh\nrm /tmp/plain-runs\n")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    bring(world, "plain", out.getvalue())
    assert world.scomo("Install", package="plain").fields["identifier"] == "archive:plain"
    assert (world.root / "tmp/plain-runs").exists()
    told = deployed(world)["archive:plain"]
    assert world.scomo(f"Inventory/Deployed/{told['node']}/Operations/Remove").status == 1200
    assert not (world.root / "tmp/plain-runs").exists()


def test_the_package_goes_without_a_trace(world: World) -> None:
    """The last test: purged by apt."""
    world.guest.run("apt-get", "purge", "-y", "virmo-guest-shim")
    eventually(lambda: world.hub.hello(VMID) is None, "the shim has gone")
    assert world.guest.unit("virmo-guest-shim.service") == "inactive"
    assert not (world.root / "usr/bin/virmo-guest-shim").exists()
    assert not (world.root / "etc/init.d/virmo-guest-shim").exists()
