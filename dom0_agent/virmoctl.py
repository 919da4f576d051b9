"""``virmoctl``: looks at the running agent from dom0's shell, over its control socket."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dom0_agent.control_client import DEFAULT_SOCKET, ControlError, call
from dom0_agent.guest.views import PING_TIMEOUT, show_info, show_ping, show_trace
from dom0_agent.resources.views import show_plan, show_usage
from dom0_agent.terminal import size, table

SESSION_TIMEOUT = 600.0  #: seconds; a session with a long answer limit and many commands


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status 0, or 1 with the reason on standard error."""
    arguments = _parser().parse_args(argv)
    view: View = arguments.view
    try:
        parameters = {name: getattr(arguments, name) for name in view.parameters}
        result = call(arguments.socket, view.call, view.timeout, **parameters)
    except ControlError as error:
        print(f"virmoctl: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2) if arguments.json else view.show(result))
    return 0 if not isinstance(result, dict) or result.get("ok", True) else 1


class View:
    """One command: which call it makes and how the answer is shown."""

    def __init__(
        self, call_name: str, show: Callable[[Any], str], parameters: Sequence[str] = (), timeout: float = 30.0
    ) -> None:
        self.call = call_name
        self.show = show
        self.parameters = parameters
        self.timeout = timeout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="virmoctl", description="Look at the agent that runs on this board.")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="control socket (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(group: Any, name: str, about: str, view: View) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = group.add_parser(name, help=about, description=about)
        # Also after the command, where people write it.
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the answer as JSON")
        added.set_defaults(view=view)
        return added

    command(commands, "status", "The agent, its hypervisor, servers and last session.", View("status", _show_status))
    command(
        commands,
        "session",
        "Open a DM session with each server now, and tell how it ended.",
        View("session", _show_session, timeout=SESSION_TIMEOUT),
    )
    vm = commands.add_parser("vm", help="Virtual machines.").add_subparsers(required=True, metavar="COMMAND")
    command(vm, "list", "All VMs with their states.", View("vm.list", _show_vms))
    show = command(vm, "show", "Everything known of one VM.", View("vm.show", _show_mapping, ["vm"]))
    show.add_argument("vm", help="VMID, or the name of the VM's node below ./VirMO")
    image = commands.add_parser("image", help="VM images.").add_subparsers(required=True, metavar="COMMAND")
    command(image, "list", "All images with their states.", View("image.list", _show_images))
    resources = command(
        commands, "resources", "What VMs hold of this machine, and what they use.", View("resources", show_usage)
    ).add_subparsers(metavar="COMMAND")
    about = "What an ApplyChanges would do now, step by step, or why it would be refused."
    command(resources, "plan", about, View("resources.plan", show_plan))
    guest = commands.add_parser("guest", help="Shims inside VMs.").add_subparsers(required=True, metavar="COMMAND")
    info = command(guest, "info", "Who is at the other end.", View("guest.info", show_info, ["vm"]))
    ping = command(
        guest,
        "ping",
        "Send something to a VM's shim and have it sent back.",
        View("guest.ping", show_ping, ["vm", "count", "size"], timeout=PING_TIMEOUT),
    )
    ping.add_argument("--count", type=int, default=3, help="how often (%(default)s)")
    ping.add_argument("--size", type=int, default=0, help="bytes of payload each way (%(default)s)")
    trace = command(guest, "trace", "The last things between us and a VM.", View("guest.trace", show_trace, ["vm"]))
    for added in (info, ping, trace):
        added.add_argument("vm", help="VMID, or the name of the VM's node below ./VirMO")
    return parser


#: how numbers with a unit are shown to people; JSON has them as they are
_UNITS: dict[str, Callable[[Any], str]] = {
    "free_memory": size,
    "memory": size,
    "ram": size,
    "storage": size,
    "uptime": lambda seconds: f"{seconds} s",
    "cpu": lambda percent: f"{percent} %",
    "progress": lambda percent: f"{percent} %",
    "network": lambda percent: f"{percent} %",
}


def _show_mapping(mapping: dict[str, Any]) -> str:
    width = max(len(key) for key in mapping)
    return "\n".join(f"{key.replace('_', ' '):<{width}}  {_cell(key, value)}" for key, value in mapping.items())


def _cell(key: str, value: Any) -> str:
    return "-" if value is None else _UNITS.get(key, str)(value)


def _show_status(status: dict[str, Any]) -> str:
    servers = status.pop("servers")
    rows = [
        (s["server_id"], s["address"], s["last_session"] or "never", s["outcome"] or "-", s["pending_alerts"])
        for s in servers
    ]
    head = _show_mapping(status)
    return head if not rows else f"{head}\n\n" + table(("SERVER", "ADDRESS", "LAST SESSION", "OUTCOME", "ALERTS"), rows)


def _show_session(result: dict[str, Any]) -> str:
    return "\n".join(f"{s['server_id']}: {s['outcome']}" for s in result["sessions"])


def _show_vms(vms: list[dict[str, Any]]) -> str:
    if not vms:
        return "no VMs"
    rows = [(v["node"] or "-", v["vmid"], v["state"], size(v["ram"]), _doing(v)) for v in vms]
    return table(("NODE", "VMID", "STATE", "RAM", "DOING"), rows)


def _doing(vm: dict[str, Any]) -> str:
    if vm["running_step"] is None:
        return vm["last_error"] or "-"
    return f"{vm['running_step']} ({vm['progress'] or 0} %)"


def _show_images(images: list[dict[str, Any]]) -> str:
    if not images:
        return "no images"
    rows = [
        (i["node"] or "-", i["img_id"], i["state"], f"{i['progress']} %", size(i["size"]), i["last_error"] or "-")
        for i in images
    ]
    return table(("NODE", "IMGID", "STATE", "PROGRESS", "SIZE", "LAST ERROR"), rows)


if __name__ == "__main__":
    sys.exit(main())
