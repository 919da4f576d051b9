"""The package managers that a guest can have: dpkg/apt, apk, opkg, and plain archives, which need none.

Each knows how to list, install, remove, activate and deactivate; what a component's services are is the init system's.
A manager is used when its program is there. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from guest_shim.places import Places, Result, run, which

#: Result of what a back end has no way to do.
UNSUPPORTED = Result(127, "this component has no services that could be started or stopped")


@dataclass(frozen=True)
class Component:
    """Something that is installed."""

    id: str
    name: str
    version: str = ""
    description: str = ""
    active: bool = True


class Backend(Protocol):
    """A package manager."""

    name: str

    def components(self) -> list[Component]:
        """What is installed because somebody wanted it, dependencies left out."""

    def install(self, file: Path, name: str, parameters: str) -> Result:
        """Install or update from a file; no network is needed."""

    def remove(self, component: Component) -> Result:
        """Remove it."""

    def activate(self, component: Component) -> Result:
        """Let its services run, now and after reboots."""

    def deactivate(self, component: Component) -> Result:
        """Stop them, now and after reboots."""

    def is_off(self, component: Component) -> bool:
        """Whether what was deactivated is so still: an update or a person may have switched it on again."""


Run = Callable[..., Result]


class Services:
    """Starts and stops what a package brought, by the files it owns."""

    def __init__(self, root: Path, call: Run) -> None:
        self._root = root
        self._call = call

    def of(self, files: Sequence[str]) -> list[str]:
        """systemd's units, or the init scripts, among these files."""
        units = [Path(f).name for f in files if "/systemd/system/" in f and f.endswith((".service", ".socket"))]
        if units and (self._root / "run/systemd/system").is_dir():
            return units
        return [Path(f).name for f in files if Path(f).parent.name == "init.d"]

    def are_off(self, names: Sequence[str]) -> bool:
        """Whether those that we switched off still are. Only systemd knows; elsewhere they are."""
        if not (self._root / "run/systemd/system").is_dir():
            return True
        return any(self._call(["systemctl", "is-enabled", "--quiet", name]).code for name in names)

    def set(self, names: Sequence[str], *, active: bool) -> Result:
        """Switch them on or off."""
        if not names:
            return UNSUPPORTED
        if (self._root / "run/systemd/system").is_dir():
            return self._call(["systemctl", "enable" if active else "disable", "--now", *names])
        results = []
        for name in names:
            if which("rc-update"):
                results.append(self._call(["rc-update", "add" if active else "del", name]))
            results.append(self._call([str(self._root / "etc/init.d" / name), "start" if active else "stop"]))
        return next((result for result in results if result.code), results[-1])


class _Packaged:
    """What package managers have in common: a component's services are among its files."""

    _services: Services

    def activate(self, component: Component) -> Result:
        """See :class:`Backend`."""
        return self._services.set(self._of(component), active=True)

    def deactivate(self, component: Component) -> Result:
        """See :class:`Backend`."""
        return self._services.set(self._of(component), active=False)

    def is_off(self, component: Component) -> bool:
        """See :class:`Backend`."""
        return self._services.are_off(self._of(component))

    def _of(self, component: Component) -> list[str]:
        """Its services."""
        raise NotImplementedError


class Dpkg(_Packaged):
    """Debian and its kin. apt-get installs a file when it is there, because it can say what is missing."""

    name = "dpkg"

    def __init__(self, places: Places, call: Run = run) -> None:
        self._call = call
        self._root = ["--root", str(places.root)] if str(places.root) != "/" else []
        self._services = Services(places.root, call)

    def components(self) -> list[Component]:
        """See :class:`Backend`."""
        fields = "${binary:Package}\\t${Version}\\t${db:Status-Abbrev}\\t${binary:Summary}\\n"
        listed = self._call(["dpkg-query", *self._admin(), "-W", "-f", fields])
        rows = [line.split("\t", 3) for line in listed.output.splitlines() if line.count("\t") == 3]
        wanted = None
        if not self._root and which("apt-mark"):
            wanted = set(self._call(["apt-mark", "showmanual"]).output.split())
        return [
            Component(f"dpkg:{name}", name, version, summary)
            for name, version, status, summary in rows
            if status.startswith(("ii", "hi"))
            and (wanted is None or name in wanted or name.partition(":")[0] in wanted)
        ]

    def install(self, file: Path, name: str, parameters: str) -> Result:
        """See :class:`Backend`."""
        del name
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        if not self._root and which("apt-get"):
            named = file.with_name(f"{file.name}.deb")  # apt takes a file for a package only by its suffix
            file.rename(named)
            try:
                argv = ["apt-get", "install", "-y", "-o", "Dpkg::Options::=--force-confold", "--allow-downgrades"]
                return self._call([*argv, *parameters.split(), str(named)], environment=quiet)
            finally:
                named.unlink(missing_ok=True)
        argv = ["dpkg", *self._root, "--force-confold", *parameters.split(), "-i", str(file)]
        return self._call(argv, environment=quiet)

    def remove(self, component: Component) -> Result:
        """See :class:`Backend`."""
        return self._call(["dpkg", *self._root, "--remove", component.name])

    def _of(self, component: Component) -> list[str]:
        return self._services.of(self._call(["dpkg-query", *self._admin(), "-L", component.name]).output.split("\n"))

    def _admin(self) -> list[str]:
        return ["--admindir", f"{self._root[1]}/var/lib/dpkg"] if self._root else []


class Apk(_Packaged):
    """Alpine."""

    name = "apk"

    def __init__(self, places: Places, call: Run = run) -> None:
        self._call = call
        self._places = places
        self._root = ["--root", str(places.root)] if str(places.root) != "/" else []
        self._services = Services(places.root, call)

    def components(self) -> list[Component]:
        """Those of ``/etc/apk/world``, with their versions from the installed database."""
        wanted = {word.partition("=")[0].partition("<")[0].partition(">")[0] for word in self._text("etc/apk/world")}
        found = []
        for block in "\n".join(self._lines("lib/apk/db/installed")).split("\n\n"):
            row = dict(line.split(":", 1) for line in block.splitlines() if line[1:2] == ":")
            name = row.get("P", "")
            if name in wanted:
                found.append(Component(f"apk:{name}", name, row.get("V", ""), row.get("T", "")))
        return found

    def install(self, file: Path, name: str, parameters: str) -> Result:
        """See :class:`Backend`."""
        del name
        named = file.with_name(f"{file.name}.apk")
        file.rename(named)
        try:
            argv = ["apk", *self._root, "add", "--no-network", "--allow-untrusted", *parameters.split()]
            return self._call([*argv, str(named)])
        finally:
            named.unlink(missing_ok=True)

    def remove(self, component: Component) -> Result:
        """See :class:`Backend`."""
        return self._call(["apk", *self._root, "del", component.name])

    def _of(self, component: Component) -> list[str]:
        listed = self._call(["apk", *self._root, "info", "-L", component.name]).output.splitlines()
        return self._services.of([f"/{line}" for line in listed])

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._places.root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def _text(self, name: str) -> list[str]:
        return " ".join(self._lines(name)).split()


class Opkg(_Packaged):
    """OpenWrt, Yocto."""

    name = "opkg"

    def __init__(self, places: Places, call: Run = run) -> None:
        self._call = call
        self._root = ["--offline-root", str(places.root)] if str(places.root) != "/" else []
        self._services = Services(places.root, call)

    def components(self) -> list[Component]:
        """See :class:`Backend`. opkg does not tell dependencies from what was wanted."""
        found = []
        for line in self._call(["opkg", *self._root, "list-installed"]).output.splitlines():
            name, dash, rest = line.partition(" - ")
            if dash and name:
                version, _, description = rest.partition(" - ")
                found.append(Component(f"opkg:{name}", name, version.strip(), description.strip()))
        return found

    def install(self, file: Path, name: str, parameters: str) -> Result:
        """See :class:`Backend`."""
        del name
        named = file.with_name(f"{file.name}.ipk")
        file.rename(named)
        try:
            return self._call(["opkg", *self._root, "install", *parameters.split(), str(named)])
        finally:
            named.unlink(missing_ok=True)

    def remove(self, component: Component) -> Result:
        """See :class:`Backend`."""
        return self._call(["opkg", *self._root, "remove", component.name])

    def _of(self, component: Component) -> list[str]:
        return self._services.of(self._call(["opkg", *self._root, "files", component.name]).output.splitlines())


#: Package types → the program that must be there → who manages them.
MANAGERS: tuple[tuple[tuple[str, ...], str, Callable[[Places], Backend]], ...] = (
    (("deb",), "dpkg", Dpkg),
    (("apk",), "apk", Apk),
    (("ipk",), "opkg", Opkg),
)
ARCHIVES = ("tar", "tar.gz", "tgz", "tar.xz", "tar.bz2")


def all_backends(places: Places) -> list[Backend]:
    """Those that this guest has."""
    from guest_shim.archives import Archives

    return [*(make(places) for _, program, make in MANAGERS if which(program)), Archives(places)]


def backend_for(places: Places, kind: str, file: Path) -> Backend | None:
    """Who installs a package of this type (``deb``, ``apk``, ``ipk``, ``tar…``; empty: what its bytes say)."""
    from guest_shim.archives import Archives

    kind = kind.strip().lower().rpartition("/")[2] or _guess(file)
    if kind in ARCHIVES:
        return Archives(places)
    for kinds, program, make in MANAGERS:
        if kind in kinds and which(program):
            return make(places)
    return None


def _guess(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(8)
    if start == b"!<arch>\n":
        return "deb" if which("dpkg") else "ipk"
    if start[:2] == b"\x1f\x8b" and which("apk"):
        return "apk"
    return "tar"
