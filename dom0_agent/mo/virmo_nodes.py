"""The node table of the Virtualisation MO (OMA-ER-VirMO 8, 11.2.2): the tree checks by it, the DDF is printed from it.

Minimum access is the specification's; what is added is reading A-03. Operation nodes are Exec only (A-04).
"""

from __future__ import annotations

from functools import cache

from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source

MOID = "urn:oma:mo:oma-virmo:1.0"  #: R-031
OPERATIONS = "Operations"
DEVICE_RESOURCES = "DeviceResources"
DMTREE = "DMTree"
XML_TYPES = ("text/xml", "application/xml")  #: A-45

GET = frozenset({Command.GET})
EXEC = frozenset({Command.EXEC})
SET = frozenset({Command.GET, Command.ADD, Command.REPLACE})
ENTRY = frozenset({Command.GET, Command.ADD, Command.DELETE, Command.REPLACE})


def _operation(name: str, description: str) -> NodeDef:
    return NodeDef(name, Format.NULL, EXEC, types=(), description=description)


def _client_leaf(
    name: str, format_: Format, description: str, *, occurrence: str = "One", live: bool = True
) -> NodeDef:
    source = Source.LIVE if live else Source.STORED
    return NodeDef(name, format_, GET, occurrence, source=source, description=description)


@cache
def virmo_definition() -> NodeDef:
    """The MO's root with all descendants."""
    return NodeDef(
        "VirMO",
        Format.NODE,
        GET,
        scope=Scope.PERMANENT,
        types=(MOID,),
        title="Virtualisation MO",
        description="The virtual machines of this device.",
        children=(
            NodeDef(
                "*",
                Format.NODE,
                ENTRY,
                "ZeroOrMore",
                types=(),
                reserved=frozenset({OPERATIONS, DEVICE_RESOURCES}),
                description="One virtual machine; its children are made with it.",
                children=_VM_CHILDREN,
            ),
            NodeDef(
                OPERATIONS,
                Format.NODE,
                GET,
                scope=Scope.PERMANENT,
                types=(),
                description="Operations that are not tied to one VM.",
                children=(
                    NodeDef(
                        "ApplyChanges",
                        Format.NULL,
                        EXEC,
                        scope=Scope.PERMANENT,
                        types=(),
                        description="Applies the NewConfig of all VMs as one step (R-060).",
                    ),
                ),
            ),
            NodeDef(
                DEVICE_RESOURCES,
                Format.CHR,
                GET,
                scope=Scope.PERMANENT,
                source=Source.LIVE,
                description="RAM=<bytes>&Storage=<bytes> that VMs can have (R-064).",
            ),
        ),
    )


_VM_CHILDREN = (
    _client_leaf("VMID", Format.CHR, "Unique id of the VM, assigned by the client (R-032).", live=False),
    NodeDef("Description", Format.CHR, SET, settable_default=True, description="For people."),
    _client_leaf("State", Format.INT, "0 NotCreated, 1 PoweredOff, 2 Running, 3 Suspended, 4 Deleted (R-035)."),
    NodeDef(
        "CreateParams",
        Format.CHR,
        SET,
        settable_default=True,
        description="ImgID=<ImgID>&Running=true|false, and vendor keys (R-036 to R-043): Devices=<names of devices of "
        "the board, with commas between them>, which the VM gets for itself.",
    ),
    NodeDef(
        "Resources",
        Format.NODE,
        GET,
        types=(),
        description="What the VM has of the device.",
        children=(
            _client_leaf(
                "CurrentConfig",
                Format.CHR,
                "RAM=<bytes>&Storage=<bytes>&CPU=<%>&Network=<%> (R-049), and vendor parameters (R-052): VCPUs=<vCPUs "
                "online>, CPUCap=<% of one physical CPU>, NetworkBps=<bits a second each way>.",
            ),
            NodeDef(
                "NewConfig",
                Format.CHR,
                frozenset({Command.GET, Command.ADD, Command.REPLACE, Command.DELETE}),
                "ZeroOrOne",
                description="What ApplyChanges is to make of CurrentConfig, in the same format with the same vendor "
                "parameters (R-053, R-054).",
            ),
        ),
    ),
    NodeDef(
        OPERATIONS,
        Format.NODE,
        GET,
        types=(),
        children=(
            _operation("Create", "Creates the VM according to CreateParams (R-056)."),
            _operation("Delete", "Deletes the VM and this sub-tree (R-057, R-125)."),
            _operation("Suspend", "Saves the execution state and stops the VM (R-018)."),
            _operation("Resume", "Continues a suspended VM where it stopped."),
            _operation("PowerOn", "Boots a powered-off VM."),
            _operation("PowerOff", "Shuts the VM down, by force when the guest does not comply."),
            _operation("ExecUICmd", "Asks the VM's user what UI/Command says; the answer is UI/Result (R-155)."),
        ),
    ),
    NodeDef(
        DMTREE,
        Format.NODE,
        frozenset({Command.GET, Command.ADD, Command.DELETE}),
        "ZeroOrOne",
        types=(),
        description="The VM's own management tree: an object's root carries its MOID as Type (R-044, R-144).",
        open=True,
    ),
    NodeDef(
        "UI",
        Format.NODE,
        GET,
        types=(),
        description="Interaction with the VM's user (11.2.2).",
        children=(
            NodeDef(
                "Command",
                Format.XML,
                SET,
                types=XML_TYPES,
                settable_default=True,
                description="One Alert of 1100 to 1104 (R-149).",
            ),
            NodeDef(
                "Result",
                Format.XML,
                GET,
                types=XML_TYPES,
                description="The Status of the last Command (R-150).",
            ),
        ),
    ),
    NodeDef(
        "Ext",
        Format.NODE,
        GET,
        types=(),
        description="What this implementation tells beyond the specification (R-068).",
        children=(
            _client_leaf(
                "DomainUUID",
                Format.CHR,
                "UUID of the VM's domain, as the hypervisor's own tools show it; exists once the VM is created.",
                occurrence="ZeroOrOne",
            ),
            _client_leaf(
                "SuspendKind",
                Format.CHR,
                "How a suspended VM is kept; exists in State 3. save: its memory is in a file, RAM and CPU are free, "
                "and it survives a reboot. pause: its vCPUs are stopped, its memory is kept; a reboot loses it.",
                occurrence="ZeroOrOne",
            ),
            _client_leaf(
                "RunningStep",
                Format.CHR,
                "What the running operation is doing; exists while one runs.",
                occurrence="ZeroOrOne",
            ),
            _client_leaf(
                "Progress",
                Format.INT,
                "Percent of the running operation, 0 to 100; exists while one runs.",
                occurrence="ZeroOrOne",
            ),
            _client_leaf(
                "LastError",
                Format.CHR,
                "Why the last operation failed, or what happened to the VM by itself.",
                occurrence="ZeroOrOne",
            ),
        ),
    ),
)
