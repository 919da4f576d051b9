"""``virmo vm …``"""

from __future__ import annotations

import base64
from pathlib import Path

from virmo_server.cli import commands_guest
from virmo_server.cli.arguments import Nouns, command, device_argument, noun, order_options
from virmo_server.cli.client import ClientError, file_content, segment
from virmo_server.cli.commands_resources import register_peripherals
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.output import ago

#: Bytes of a bootstrap profile: in base64 it has to fit into a node of a device.
PROFILE_CAP = 32768
#: Command of the terminal → kind of the order, help.
OPERATIONS = {
    "poweroff": ("power-off", "power a running VM off"),
    "poweron": ("power-on", "power a VM on: it boots"),
    "suspend": ("suspend", "suspend a running VM: its execution state is kept"),
    "resume": ("resume", "resume a suspended VM: it goes on where it was"),
    "delete": ("delete-vm", "delete a VM with its disks and saved state"),
}


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "vm", "create, power, suspend, resume, delete and list VMs, and manage what runs in them")
    create = command(verbs, "create", _create, "create a VM from an image that was delivered to the device")
    device_argument(create)
    create.add_argument("name", metavar="NAME", help="what you call the VM: letters, digits, . _ -")
    create.add_argument("--image", required=True, metavar="IMAGE", help="see 'virmo image list DEVICE'")
    create.add_argument("--powered-off", action="store_true", help="create it, but do not start it")
    create.add_argument("--description", metavar="TEXT", help="for people who look at the device (default: NAME)")
    create.add_argument(
        "--give",
        action="append",
        default=[],
        metavar="PERIPHERAL",
        help="give the VM a device of the board, as its resources.peripherals calls it (Camera); may be repeated",
    )
    create.add_argument(
        "--bootstrap",
        metavar="FILE",
        type=Path,
        help="bootstrap profile for a DM client inside the VM; the guest's shim hands it over when it first connects",
    )
    order_options(create)
    for name, (kind, help_text) in OPERATIONS.items():
        operation = command(verbs, name, _operate, help_text)
        operation.set_defaults(kind=kind)
        device_argument(operation)
        operation.add_argument("name", metavar="NAME", help="the VM")
        order_options(operation)
    commands_guest.add_verbs(verbs)
    listing = command(verbs, "list", _list, "list the VMs of a device as last read")
    device_argument(listing)
    register_peripherals(verbs)


def _create(context: Context) -> int:
    options = context.options
    body = {
        "kind": "create-vm",
        "name": options.name,
        "image": options.image,
        "running": not options.powered_off,
        "description": options.description,
        "devices": options.give,
    }
    if options.bootstrap is not None:
        body["bootstrap"] = _profile(options.bootstrap)
    return context.place_order(options.device, body)


def _profile(path: Path) -> str:
    """A bootstrap profile as the API takes it."""
    profile = file_content(path)
    if not 0 < len(profile) <= PROFILE_CAP:
        raise ClientError(f"{path}: a bootstrap profile has 1 to {PROFILE_CAP} bytes, this has {len(profile)}")
    return base64.b64encode(profile).decode()


def _operate(context: Context) -> int:
    return context.place_order(context.options.device, {"kind": context.options.kind, "name": context.options.name})


def _list(context: Context) -> int:
    device = context.options.device
    vms = context.client.get(f"/devices/{segment(device)}/vms")
    if context.output.as_json:
        context.output.json(vms)
        return EXIT_OK
    rows = [
        [
            vm["name"],
            vm["state_text"],
            vm["vmid"] or "-",
            vm["image"] or "-",
            vm["current_config"] or "-",
            ago(vm["known_at"]),
            str(vm["open_order"] or "-"),
        ]
        for vm in vms
    ]
    headings = ["VM", "STATE", "VMID", "IMAGE", "RESOURCES", "READ", "ORDER"]
    empty = f"no VMs on {device}: 'virmo vm create {device} NAME --image IMAGE' makes one"
    context.output.table(headings, rows, empty=empty)
    return EXIT_OK
