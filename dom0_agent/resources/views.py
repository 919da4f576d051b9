"""How ``virmoctl`` shows resources. Imported by the command line: must import next to nothing."""

from __future__ import annotations

from typing import Any

from dom0_agent.terminal import size, table


def show_usage(result: dict[str, Any]) -> str:
    """Configured, effective and used, a line a VM."""
    device = result["device"]
    head = (
        f"{device['cpus']} CPUs ({device['scheduler']}), RAM {size(device['ram'])}, storage {size(device['storage'])} "
        "for VMs"
    )
    if result["running_step"]:
        head += f"\nApplyChanges: {result['running_step']}"
    if not result["vms"]:
        return f"{head}\nno VMs"
    rows = [_row(vm) for vm in result["vms"]]
    heading = ("VM", "STATE", "CPU", "WEIGHT/CAP", "VCPUS", "CPU TIME", "RAM", "HAS", "STORAGE", "NETWORK", "UP/DOWN")
    return f"{head}\n\n" + table(heading, rows)


def _row(vm: dict[str, Any]) -> tuple[str, ...]:
    configured, effective, used = vm["configured"], vm["effective"], vm["used"]
    traffic = "-"
    if "bytes_up" in used:
        traffic = f"{size(used['bytes_up'])} / {size(used['bytes_down'])}"
    return (
        vm["node"] or vm["vmid"],
        vm["state"],
        f"{configured['cpu']} %",
        f"{effective['weight']}/{effective['cap']}" if "weight" in effective else "-",
        f"{used['vcpus']} of {effective['vcpus']}" if "vcpus" in used and "vcpus" in effective else "-",
        f"{used['cpu_seconds']:.1f} s" if "cpu_seconds" in used else "-",
        size(configured["ram"]),
        size(used["memory"]) if "memory" in used else "-",
        size(configured["storage"]),
        f"{configured['network']} %" + (f" = {used['rate'] / 1e6:g} Mbit/s" if "rate" in used else ""),
        traffic,
    )


def show_plan(result: dict[str, Any]) -> str:
    """What an ApplyChanges would do now, or why it would be refused."""
    if result["refused"]:
        return f"ApplyChanges would be refused ({result['status']}): {result['refused']}"
    return "\n".join(result["steps"]) or "no VM has a NewConfig that changes something"
