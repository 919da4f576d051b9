"""A board in memory: the VirMO and VMImgMO trees, their states, and all the ways in which a real board can disappoint.

It implements the tree that a client session works on, so the same board serves the engine's unit tests (commands given
directly) and the integration tests (a real client session over HTTPS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.client import PendingAlert
from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree_access import AtomicAccess, ItemValue, NodeResult
from virmo_server.procedures.core import DmCommand, ReadNode

VM_TRANSITIONS = {
    "PowerOff": ("2", "1"),
    "PowerOn": ("1", "2"),
    "Suspend": ("2", "3"),
    "Resume": ("3", "2"),
}
MOIDS = {"./VirMO": "urn:oma:mo:oma-virmo:1.0", "./VMImgMO": "urn:oma:mo:oma-vmimgmo:1.0"}
DCMO = "urn:oma:mo:oma-dcmo:1.0"
OPERATION_COMPLETE = "Reversed-Domain-Name: org.virmo/operationcomplete"
IMAGE_READY = "urn:oma:at:oma-virmo:imageready:1.0"


@dataclass
class SimulatedBoard:
    """``slow``: names of operations answered 202; ``broken``: operation name → status with which it ends."""

    slow: set[str] = field(default_factory=set)
    broken: dict[str, int] = field(default_factory=dict)
    fetch: Callable[[str], int] = lambda _url: 200  #: downloads a DownloadURI; the status it ends with
    nodes: dict[str, str | None] = field(default_factory=dict)  #: URI → value, ``None`` for interior nodes
    alerts: list[PendingAlert] = field(default_factory=list)
    running: list[Callable[[], None]] = field(default_factory=list)  #: slow operations under way
    log: list[str] = field(default_factory=list)  #: every write and Exec, as ``Exec ./VirMO/…``
    done: list[str] = field(default_factory=list)  #: operations that took effect
    types: dict[str, str] = field(default_factory=dict)  #: URI → MOID, of what the server has added
    _serial: int = 0

    def __post_init__(self) -> None:
        self.nodes |= {
            ".": None,
            "./VirMO": None,
            "./VirMO/DeviceResources": "RAM=1073741824&Storage=8589934592",
            "./VirMO/Operations": None,
            "./VMImgMO": None,
        }

    @property
    def _special(self) -> dict[str, Callable[[str], Callable[[], int]]]:
        return {
            "Download": self._begin_download,
            "Delete": lambda entry: lambda: self._delete(entry),
            "Create": self._begin_create,
            "ApplyChanges": lambda _entry: self._apply,
            "Enable": lambda entry: lambda: self._switch(entry, "true"),
            "Disable": lambda entry: lambda: self._switch(entry, "false"),
        }

    def finish_operations(self) -> None:
        """Let all slow operations end; their alerts are pending then."""
        for finish in self.running:
            finish()
        self.running.clear()

    def state(self, uri: str) -> str | None:
        """State of an entry."""
        return self.nodes.get(f"{uri}/State")

    def vm_uris(self) -> list[str]:
        """The VMs' nodes."""
        return [uri for uri in self._children("./VirMO") if f"{uri}/VMID" in self.nodes]

    # ---- commands given directly, for the engine's tests

    def run(self, command: DmCommand) -> tuple[int, tuple[ReadNode, ...]]:
        """Execute one of the server's commands; its status and what a Get found."""
        value = ItemValue(command.data, command.format, command.type)
        try:
            match command.verb:
                case Command.GET:
                    results = self.get("srv", command.uri)
                    return 200, tuple(
                        ReadNode(r.uri, str(r.value.data), str(r.value.format or "chr"), r.value.type) for r in results
                    )
                case Command.ADD:
                    self.add("srv", command.uri, value)
                case Command.REPLACE:
                    self.replace("srv", command.uri, value)
                case Command.DELETE:
                    self.delete("srv", command.uri)
                case _:
                    return self.execute("srv", command.uri, "", command.correlator), ()
        except DMError as error:
            return error.status, ()
        return 200, ()

    # ---- TreeAccess

    def get(self, server_id: str, uri: str) -> Sequence[NodeResult]:
        plain, _, query = uri.partition("?")
        if plain not in self.nodes:
            raise DMError(Status.NOT_FOUND, uri)
        if query == "prop=Type":
            return [NodeResult(uri, ItemValue(self._moid(plain) or ""))]
        if query == "list=Struct":
            return [
                NodeResult(node, ItemValue(format=Format.NODE, type=self._moid(node)), has_data=False)
                for node in sorted(self.nodes)
                if node == plain or node.startswith(f"{plain}/")
            ]
        if query == "list=StructData":
            below = [node for node in sorted(self.nodes) if node == plain or node.startswith(f"{plain}/")]
            return [NodeResult(node, ItemValue(self.nodes[node] or "")) for node in below]
        if query:
            raise DMError(Status.NOT_SUPPORTED, uri)
        value = self.nodes[plain]
        if value is None:
            names = "/".join(child.rpartition("/")[2] for child in self._children(plain))
            return [NodeResult(plain, ItemValue(names, Format.NODE))]
        return [NodeResult(plain, ItemValue(value, Format.INT if plain.endswith("/State") else Format.CHR))]

    def add(self, server_id: str, uri: str, value: ItemValue) -> None:
        self.log.append(f"Add {uri}")
        if uri in self.nodes:
            raise DMError(Status.ALREADY_EXISTS, uri)
        parent = uri.rpartition("/")[0]
        if parent not in self.nodes:
            raise DMError(Status.NOT_FOUND, uri)
        self._serial += 1
        if parent == "./VirMO":
            leaves = {"VMID": f"vmid-{self._serial}", "State": "0", "CreateParams": "", "Description": ""}
            leaves["Resources/CurrentConfig"] = "RAM=0&Storage=0&CPU=0&Network=0"
            self.nodes |= {uri: None, f"{uri}/Resources": None, f"{uri}/Operations": None}
            self.nodes[f"{uri}/DMTree"] = None
        elif parent == "./VMImgMO":
            leaves = {"ImgID": f"img-{self._serial}", "State": "0", "Name": "", "MediaType": "", "DownloadURI": ""}
            self.nodes |= {uri: None, f"{uri}/Operations": None}
        elif value.type == DCMO:
            self.types[uri] = DCMO
            self.nodes |= {uri: None, f"{uri}/camera": None, f"{uri}/camera/Operations": None}
            leaves = {"camera/Property": "Camera", "camera/Enabled": "true"}
        else:
            self.nodes[uri] = str(value.data)
            return
        self.nodes |= {f"{uri}/{leaf}": text for leaf, text in leaves.items()}

    def replace(self, server_id: str, uri: str, value: ItemValue) -> None:
        self.log.append(f"Replace {uri}")
        if uri not in self.nodes:
            raise DMError(Status.NOT_FOUND, uri)
        if uri.rpartition("/")[2] in {"State", "VMID", "ImgID"}:
            raise DMError(Status.NOT_ALLOWED, uri)
        self.nodes[uri] = str(value.data)

    def delete(self, server_id: str, uri: str) -> None:
        self.log.append(f"Delete {uri}")
        if uri not in self.nodes:
            raise DMError(Status.NOT_FOUND, uri)
        if f"{uri}/VMID" in self.nodes and self.state(uri) != "0":
            raise DMError(Status.NOT_ALLOWED, uri)
        if f"{uri}/VMID" in self.nodes and self.running:
            raise DMError(Status.RETRY_LATER, uri)
        self._remove(uri)

    def copy(self, server_id: str, source: str, target: str) -> None:
        raise DMError(Status.NOT_SUPPORTED, target)

    def atomic(self) -> AbstractContextManager[AtomicAccess]:
        raise DMError(Status.NOT_SUPPORTED, "atomic")

    def execute(self, server_id: str, uri: str, data: str | bytes, correlator: str | None) -> int:
        self.log.append(f"Exec {uri}")
        entry, _, operation = uri.partition("/Operations/")
        if entry not in self.nodes:
            raise DMError(Status.NOT_FOUND, uri)
        finish = self._counted(operation, self._check(entry, operation))
        if operation not in self.slow:
            status = finish()
            if operation == "Download" and status == 200:
                self._send_alert(IMAGE_READY, Format.XML, "", uri, correlator)  # due in both modes (reading A-28)
            return status

        def end() -> None:
            status = finish()
            if operation == "Download" and status == 200:
                self._send_alert(IMAGE_READY, Format.XML, "", uri, correlator)
            else:
                self._send_alert(OPERATION_COMPLETE, Format.INT, str(status), uri, correlator)

        self.running.append(end)
        return Status.ACCEPTED

    # ---- operations

    def _counted(self, operation: str, finish: Callable[[], int]) -> Callable[[], int]:
        def counted() -> int:
            status = finish()
            if status == 200:
                self.done.append(operation)
            return status

        return counted

    def _check(self, entry: str, operation: str) -> Callable[[], int]:
        if self.running:
            raise DMError(Status.RETRY_LATER, entry)
        if operation in self._special:
            return self._special[operation](entry)
        before, after = VM_TRANSITIONS[operation]
        if self.state(entry) != before:
            raise DMError(Status.NOT_ALLOWED, entry)
        return lambda: self._go(entry, operation, after)

    def _begin_create(self, entry: str) -> Callable[[], int]:
        if self.state(entry) != "0":
            raise DMError(Status.NOT_ALLOWED, entry)
        return lambda: self._create(entry)

    def _switch(self, entry: str, enabled: str) -> int:
        if "Switch" in self.broken:
            return self.broken["Switch"]
        self.nodes[f"{entry}/Enabled"] = enabled
        return 200

    def _apply(self) -> int:
        """All NewConfig or none (reading A-16); the sum of CPU is the check."""
        if "ApplyChanges" in self.broken:
            return self.broken["ApplyChanges"]
        wanted = {uri: self.nodes.get(f"{uri}/Resources/NewConfig") for uri in self.vm_uris()}
        current = {uri: self.nodes[f"{uri}/Resources/CurrentConfig"] or "" for uri in self.vm_uris()}
        target = {uri: wanted[uri] or current[uri] for uri in current}
        if sum(int(dict(pair.split("=") for pair in text.split("&"))["CPU"]) for text in target.values()) > 100:
            return Status.INCOMPLETE
        for uri, text in target.items():
            self.nodes[f"{uri}/Resources/CurrentConfig"] = text
            self.nodes.pop(f"{uri}/Resources/NewConfig", None)
        return 200

    def _go(self, entry: str, operation: str, after: str) -> int:
        if operation in self.broken:
            return self.broken[operation]
        self.nodes[f"{entry}/State"] = after
        return 200

    def _create(self, entry: str) -> int:
        if "Create" in self.broken:
            return self.broken["Create"]
        params = dict(pair.split("=") for pair in (self.nodes[f"{entry}/CreateParams"] or "").split("&"))
        images = [uri for uri in self._children("./VMImgMO") if self.nodes[f"{uri}/ImgID"] == params["ImgID"]]
        if not images:
            return Status.NOT_FOUND
        self.nodes[f"{entry}/Resources/CurrentConfig"] = "RAM=134217728&Storage=0&CPU=10&Network=10"
        self.nodes[f"{entry}/State"] = "2" if params["Running"] == "true" else "1"
        return 200

    def _delete(self, entry: str) -> int:
        if "Delete" in self.broken:
            return self.broken["Delete"]
        self._remove(entry)
        return 200

    def _begin_download(self, entry: str) -> Callable[[], int]:
        if self.state(entry) == "1":
            raise DMError(Status.RETRY_LATER, entry)
        if self.state(entry) == "2":
            raise DMError(Status.NOT_ALLOWED, entry)
        self.nodes[f"{entry}/State"] = "1"
        return lambda: self._end_download(entry)

    def _end_download(self, entry: str) -> int:
        status = self.broken.get("Download") or self.fetch(self.nodes[f"{entry}/DownloadURI"] or "")
        if status == 200:
            self.nodes |= {f"{entry}/State": "2", f"{entry}/DownloadedLocation": f"/store/{entry.rpartition('/')[2]}"}
        else:
            self.nodes[f"{entry}/State"] = "3"
        return status

    def _send_alert(self, kind: str, data_format: Format, data: str, source: str, correlator: str | None) -> None:
        item = c.Item(source=source, meta=c.Meta(format=data_format.value, type=kind), data=data)
        alert = c.Alert(code=1226, items=(item,), correlator=correlator)
        self.alerts.append(PendingAlert(f"alert-{len(self.log)}-{len(self.alerts)}", alert))

    def _moid(self, uri: str) -> str | None:
        return MOIDS.get(uri) or self.types.get(uri)

    def _children(self, uri: str) -> list[str]:
        return [n for n in self.nodes if n.rpartition("/")[0] == uri]

    def _remove(self, uri: str) -> None:
        for node in [n for n in self.nodes if n == uri or n.startswith(f"{uri}/")]:
            del self.nodes[node]
