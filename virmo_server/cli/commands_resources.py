"""``virmo resources …`` and ``virmo vm peripheral …``: what VMs get of a device."""

from __future__ import annotations

import argparse
from typing import Any

from virmo_server.cli.arguments import Nouns, command, device_argument, noun, order_options
from virmo_server.cli.client import segment
from virmo_server.cli.context import EXIT_OK, Context
from virmo_server.cli.output import ago, size

#: Word of the command line → whether its number is octets.
PARTS = {"ram": True, "storage": True, "cpu": False, "network": False}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_KEYS = {"ram": "RAM", "storage": "Storage", "cpu": "CPU", "network": "Network"}
_EXAMPLE = "www=ram:512M,cpu:40,network:30,storage:2G"


def register(nouns: Nouns) -> None:
    """Add the commands to the parser."""
    verbs = noun(nouns, "resources", "see and share out a device's memory, storage, CPU and network")
    show = command(verbs, "show", _show, "show what the device has and what its VMs have of it, as last read")
    device_argument(show)
    apply = command(verbs, "apply", _apply, "change what VMs have, all at once or not at all")
    device_argument(apply)
    apply.add_argument(
        "vms", nargs="+", type=parse_share, metavar="VM=RESOURCE:AMOUNT,…",
        help=f"such as {_EXAMPLE}: bytes with K, M, G or T, percent for cpu and network; what is left out stays",
    )  # fmt: skip
    order_options(apply)


def register_peripherals(vm_verbs: Nouns) -> None:
    """Add ``peripheral`` to the commands of ``virmo vm``."""
    verbs = noun(vm_verbs, "peripheral", "see, enable and disable the peripherals of a VM")
    listing = command(verbs, "list", _peripheral, "ask the VM which peripherals it has")
    switches = [
        (command(verbs, "enable", _peripheral, "let the VM use a peripheral"), "enable-peripheral"),
        (command(verbs, "disable", _peripheral, "keep the VM from a peripheral"), "disable-peripheral"),
    ]
    for parser, kind in [(listing, "list-peripherals"), *switches]:
        parser.set_defaults(kind=kind)
        device_argument(parser)
        parser.add_argument("name", metavar="NAME", help="the VM")
        if parser is not listing:
            parser.add_argument("peripheral", metavar="PERIPHERAL", help="as 'virmo vm peripheral list' shows it")
        order_options(parser)


def parse_share(text: str) -> dict[str, Any]:
    """``www=ram:512M,cpu:40`` as the API takes it."""
    name, separator, parts = text.partition("=")
    share: dict[str, Any] = {"name": name}
    for part in parts.split(","):
        word, _, amount = part.partition(":")
        if word not in PARTS or word in share:
            raise argparse.ArgumentTypeError(f"{text!r}: expected something like {_EXAMPLE}")
        share[word] = _amount(text, amount, is_octets=PARTS[word])
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: expected something like {_EXAMPLE}")
    return share


def _amount(text: str, amount: str, *, is_octets: bool) -> int:
    number, factor = amount.removesuffix("%"), 1
    if is_octets and amount[-1:].upper() in _UNITS:
        number, factor = amount[:-1], _UNITS[amount[-1].upper()]
    if not (number.isascii() and number.isdigit()):
        what = "a number of bytes such as 512M" if is_octets else "a percentage such as 40"
        raise argparse.ArgumentTypeError(f"{text!r}: {amount!r} is not {what}")
    return int(number) * factor


def _apply(context: Context) -> int:
    options = context.options
    return context.place_order(options.device, {"kind": "apply-resources", "vms": options.vms})


def _peripheral(context: Context) -> int:
    options = context.options
    body = {"kind": options.kind, "name": options.name, "peripheral": getattr(options, "peripheral", None)}
    return context.place_order(options.device, body)


def _show(context: Context) -> int:
    path = f"/devices/{segment(context.options.device)}"
    device, vms = context.client.get(path), context.client.get(f"{path}/vms")
    configs = {vm["name"]: _numbers(vm["current_config"]) for vm in vms}
    total = _numbers(device["device_resources"])
    if context.output.as_json:
        context.output.json({"device": total, "vms": configs})
        return EXIT_OK
    rows = [
        [name, *_cells(config), ago(vm["known_at"])] for vm, (name, config) in zip(vms, configs.items(), strict=True)
    ]
    sums = {key: sum(config.get(key, 0) for config in configs.values()) for key in _KEYS.values()}
    limits = {"CPU": 100, "Network": 100, **total}
    rows += [["all VMs", *_cells(sums), ""], ["the device has", *_cells(limits), ""]]
    context.output.table(["VM", "RAM", "STORAGE", "CPU", "NETWORK", "READ"], rows, empty="")
    return EXIT_OK


def _numbers(text: str | None) -> dict[str, int]:
    pairs = (pair.partition("=")[::2] for pair in (text or "").split("&"))
    return {key: int(value) for key, value in pairs if key in _KEYS.values() and value.isdigit()}


def _cells(config: dict[str, int]) -> list[str]:
    cells = []
    for word, key in _KEYS.items():
        number = config.get(key)
        if number is None:
            cells.append("-")
        else:
            cells.append(size(number) if PARTS[word] else f"{number} %")
    return cells
