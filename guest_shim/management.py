"""What the shim does for the management objects below DMTree: the verbs ``read``, ``configure``, ``exec``, ``ask``,
``package`` and ``bootstrap``, as a dispatcher with handlers. Knows which object has which part; knows no channel.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from guest_shim.ask import CAPABILITY, Ask
from guest_shim.bootstrap import Bootstrap
from guest_shim.dcmo import MOID as DCMO
from guest_shim.dcmo import SERVED as DCMO_SERVED
from guest_shim.dcmo import Dcmo
from guest_shim.dispatch import NOT_FOUND, Answer, Dispatcher, Request, ShimError
from guest_shim.facts import DETAIL_SERVED, DEVDETAIL, DEVINFO, INFO_SERVED, Facts
from guest_shim.guest_update import CAPABILITY as UPDATER
from guest_shim.guest_update import MOID as FUMO
from guest_shim.guest_update import GuestUpdate
from guest_shim.lawmo import MOID as LAWMO
from guest_shim.lawmo import SERVED as LAWMO_SERVED
from guest_shim.lawmo import Lawmo
from guest_shim.places import Places
from guest_shim.scomo import MOID as SCOMO
from guest_shim.scomo import SERVED as SCOMO_SERVED
from guest_shim.scomo import Scomo


class Management:
    """The parts, and the verbs that reach them by MOID."""

    def __init__(self, places: Places) -> None:
        self.lawmo, self.scomo, facts = Lawmo(places), Scomo(places), Facts(places)
        self.ask, self.update, self.bootstrap = Ask(places), GuestUpdate(places), Bootstrap(places)
        self._configured: dict[str, Callable[[dict[str, str]], None]] = {
            LAWMO: self.lawmo.configure,
            DCMO: Dcmo(places).configure,
        }
        self._readers: dict[str, Callable[[], dict[str, str]]] = {
            LAWMO: self.lawmo.read,
            SCOMO: self.scomo.read,
            DEVINFO: facts.info,
            DEVDETAIL: facts.detail,
        }
        self._operations: dict[str, Callable[[str, Request], Answer]] = {
            LAWMO: self.lawmo.execute,
            SCOMO: self.scomo.execute,
            FUMO: self.update.execute,
        }

    def register(self, dispatcher: Dispatcher) -> None:
        """Answer the verbs, and say in hello what is served. A lock from before a reboot is made again at once."""
        self.lawmo.resume()
        dispatcher.objects += [LAWMO_SERVED, SCOMO_SERVED, INFO_SERVED, DETAIL_SERVED, DCMO_SERVED]
        if self.ask.way() is not None:
            dispatcher.capabilities.add(CAPABILITY)
        if self.update.is_there():
            dispatcher.capabilities.add(UPDATER)
        dispatcher.add("read", self.read, quick=lambda fields: _is_lawmo(fields) and self.lawmo.is_at_hand())
        dispatcher.add("configure", self.configure, quick=_is_lawmo)
        dispatcher.add("exec", self.execute)
        dispatcher.add("ask", self.ask.answer)
        dispatcher.add("package", self.scomo.receive)
        dispatcher.add("bootstrap", self.bootstrap.receive)

    def read(self, request: Request) -> Answer:
        """``read {moid}``: the payload is an object, live leaf's path → value."""
        read: Callable[[], dict[str, str]] = _part(self._readers, request)
        nodes = read()
        return Answer(payload=json.dumps(nodes).encode())

    def configure(self, request: Request) -> Answer:
        """``configure {moid}``: the payload is an object, configuration leaf's path → value."""
        configure: Callable[[dict[str, str]], None] = _part(self._configured, request)
        nodes = json.loads(request.payload)
        if not isinstance(nodes, dict):
            raise ShimError(412, "the configuration is not an object")
        configure({str(path): str(value) for path, value in nodes.items()})
        return Answer()

    def execute(self, request: Request) -> Answer:
        """``exec {moid, node, …}``: the answer's status is a result code of the object."""
        execute: Callable[[str, Request], Answer] = _part(self._operations, request)
        return execute(str(request.fields.get("node", "")), request)


def _is_lawmo(fields: dict[str, Any]) -> bool:
    return fields.get("moid") == LAWMO


def _part(parts: dict[str, Any], request: Request) -> Any:
    part = parts.get(str(request.fields.get("moid")))
    if part is None:
        raise ShimError(NOT_FOUND, f"this shim does not serve {request.fields.get('moid')!r}")
    return part
