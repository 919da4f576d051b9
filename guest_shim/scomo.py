"""SCOMO in the guest: packages that dom0 brings, components that are there. The package managers are ``backends``.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

from guest_shim.backends import Backend, Component, all_backends, backend_for
from guest_shim.dispatch import Answer, Request, ServedObject, ShimError, failure
from guest_shim.places import Places

logger = logging.getLogger(__name__)

MOID = "urn:oma:mo:oma-scomo:1.0"
_LEAVES = ("ID", "Name", "Version", "Description", "State", "Status")
SERVED = ServedObject(
    MOID,
    live=tuple(f"Inventory/Deployed/*/{leaf}" for leaf in _LEAVES),
    operations=(
        "Install",
        *(f"Inventory/Deployed/*/Operations/{name}" for name in ("Activate", "Deactivate", "Remove")),
    ),
)
SUCCESS, VALIDATION_FAILED, INSTALL_FAILED, NOT_SUPPORTED_TYPE = 1200, 1407, 1405, 1413
NO_MEMORY, REMOVE_FAILED, ACTIVATE_FAILED, DEACTIVATE_FAILED, NOT_IMPLEMENTED = 1406, 1408, 1409, 1410, 1411
ACTIVE, INACTIVE = "20", "10"
#: Where the ids of deactivated components are kept.
FILE = "scomo/inactive.json"
#: Components that are told of; an inventory of more is cut.
MOST_COMPONENTS = 200
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


class Scomo:
    """The inventory, and the operations. One operation at a time: package managers lock each other out."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._folder = places.state / "packages"
        self._one = threading.Lock()
        self._off: set[str] = set(map(str, places.load(FILE, [])))  #: components that were deactivated

    def read(self) -> dict[str, str]:
        """The live nodes: what is installed because somebody wanted it."""
        nodes: dict[str, str] = {}
        for name, (backend, component) in list(self._components().items())[:MOST_COMPONENTS]:
            at = f"Inventory/Deployed/{name}"
            active = component.active and not (component.id in self._off and backend.is_off(component))
            nodes.update(
                {
                    f"{at}/ID": component.id,
                    f"{at}/Name": component.name,
                    f"{at}/Version": component.version,
                    f"{at}/Description": component.description[:1000],
                    f"{at}/State": ACTIVE if active else INACTIVE,
                    f"{at}/Status": "10",
                }
            )
        return nodes

    def receive(self, request: Request) -> Answer:
        """``package {id, offset, size, sha256}``: the payload belongs there. The last part is followed by the check.

        412 not a part of a package, 416 not the next part, 420 no room, 1407 what arrived is not what was meant.
        """
        fields = request.fields
        identifier, offset, size, digest = (fields.get(key) for key in ("id", "offset", "size", "sha256"))
        if not isinstance(identifier, str) or not _PACKAGE.fullmatch(identifier):
            raise ShimError(412, f"{identifier!r} is not the id of a package")
        if type(offset) is not int or type(size) is not int or not 0 <= offset <= size:
            raise ShimError(412, "a part of a package has an offset and the whole size")
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{identifier}.part"
        try:
            with part.open("wb" if offset == 0 else "r+b") as file:
                if file.seek(0, os.SEEK_END) != offset:
                    raise ShimError(416, f"{file.tell()} bytes are here, the part begins at {offset}")
                file.write(request.payload)
                complete = file.tell() >= size
                if complete:
                    file.flush()
                    os.fsync(file.fileno())
        except FileNotFoundError:
            raise ShimError(416, f"nothing is here, the part begins at {offset}") from None
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ShimError(420, f"the package cannot be kept: {error.strerror}") from None
        if not complete:
            return Answer()
        if part.stat().st_size != size or _sha256(part) != digest:
            part.unlink()
            return failure(VALIDATION_FAILED, "what arrived is not the package that was sent")
        part.replace(self._folder / identifier)
        return Answer()

    def execute(self, node: str, request: Request) -> Answer:
        """``Install`` (a received package), or an operation on ``Inventory/Deployed/<x>``."""
        parts = node.split("/")
        deployed = len(parts) == 5 and parts[:2] == ["Inventory", "Deployed"] and parts[3] == "Operations"
        if node != "Install" and not deployed:
            raise ShimError(406, f"{node} is not an operation of SCOMO here")
        with self._one:
            if node == "Install":
                return self._install(request)
            return self._on_deployed(parts[2], parts[4])

    def _install(self, request: Request) -> Answer:
        fields = request.fields
        identifier = fields.get("package")
        if not isinstance(identifier, str) or not _PACKAGE.fullmatch(identifier):
            raise ShimError(412, f"{identifier!r} is not the id of a package")
        file = self._folder / identifier
        if not file.is_file():
            raise ShimError(404, f"package {identifier} has not arrived")
        try:
            backend = backend_for(self._places, str(fields.get("type", "")), file)
            if backend is None:
                return failure(NOT_SUPPORTED_TYPE, f"this guest cannot install {fields.get('type') or 'such'} packages")
            before = {component.id: component.version for component in backend.components()}
            result = backend.install(file, str(fields.get("name", "")), str(fields.get("params", "")))
        finally:
            file.unlink(missing_ok=True)
        if result.code:
            return failure(INSTALL_FAILED, f"{backend.name} failed ({result.code}): {result.words}")
        now = {component.id: component for component in backend.components()}
        changed = [item for item in now.values() if before.get(item.id) != item.version] or [
            item for item in now.values() if item.name == fields.get("name")
        ]
        if fields.get("active") is False:
            for component in changed:
                result = backend.deactivate(component)
                if result.code:
                    return failure(DEACTIVATE_FAILED, f"installed, but {component.name} stays active: {result.words}")
                self._note(component, off=True)
        return Answer(SUCCESS, {"identifier": changed[0].id if changed else str(fields.get("name", ""))})

    def _on_deployed(self, name: str, operation: str) -> Answer:
        backend, component = self._components().get(name, (None, None))
        if backend is None or component is None:
            raise ShimError(404, f"there is no component {name}")
        operations = {
            "Activate": (backend.activate, ACTIVATE_FAILED),
            "Deactivate": (backend.deactivate, DEACTIVATE_FAILED),
            "Remove": (backend.remove, REMOVE_FAILED),
        }
        if operation not in operations:
            raise ShimError(406, f"{operation} is not an operation of a component")
        act, failed = operations[operation]
        result = act(component)
        if result.code:
            code = NOT_IMPLEMENTED if result.code == 127 else failed
            return failure(code, f"{backend.name} {operation} {component.name} failed: {result.words}")
        self._note(component, off=operation == "Deactivate")
        return Answer(SUCCESS, {"identifier": component.id})

    def _note(self, component: Component, *, off: bool) -> None:
        """Remember what is deactivated: to ask each component's services at every look would take too long."""
        if off != (component.id in self._off):
            self._off ^= {component.id}
            self._places.store(FILE, sorted(self._off))

    def _components(self) -> dict[str, tuple[Backend, Component]]:
        """Node name → component, with who manages it."""
        found = {}
        for backend in all_backends(self._places):
            for component in backend.components():
                found[_UNSAFE.sub("_", f"{backend.name}.{component.name}")[:64]] = (backend, component)
        return dict(sorted(found.items()))


def _sha256(file: Path) -> str:
    import hashlib  # its library is larger than the shim

    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 16), b""):
            digest.update(block)
    return digest.hexdigest()
