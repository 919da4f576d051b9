"""How ``virmoctl guest …`` shows its answers to people. Imports next to nothing: it must answer at once on a board."""

from __future__ import annotations

import time
from typing import Any

from dom0_agent.terminal import table

PING_TIMEOUT = 1000.0  #: seconds; a hundred pings that all take as long as they may


def show_info(info: dict[str, Any]) -> str:
    """Hello, a line for each management object."""
    if not info["connected"]:
        return f"{info['vmid']}: no shim is connected" + (
            f"; the last channel closed: {r}" if (r := info["reason"]) else ""
        )
    lines = [
        f"{info['vmid']}: shim {info['shim'] or '?'} over {info['transport']}, boot {info['boot_id'] or '?'}",
        f"capabilities: {', '.join(info['capabilities']) or '-'}",
    ]
    if not info["objects"]:
        return "\n".join([*lines, "it serves no management object"])
    rows = [(o["moid"], ", ".join(o["live"]) or "-", ", ".join(o["operations"]) or "-") for o in info["objects"]]
    return "\n".join([*lines, "", table(("MOID", "LIVE NODES", "OPERATIONS"), rows)])


def show_ping(result: dict[str, Any]) -> str:
    """Times in milliseconds."""
    seconds = result["seconds"]
    lines = [f"{result['size']} bytes each way: {1000 * each:.2f} ms" for each in seconds]
    if seconds:
        lines.append(f"least {1000 * min(seconds):.2f}, mean {1000 * sum(seconds) / len(seconds):.2f} ms")
    return "\n".join(lines) or "nothing was sent"


def show_trace(lines: list[dict[str, Any]]) -> str:
    """One row for each thing that happened."""
    if not lines:
        return "nothing has happened"
    rows = [
        (
            time.strftime("%H:%M:%S", time.localtime(line["when"])),
            line["what"],
            line["verb"] or "-",
            "-" if line["status"] is None else line["status"],
            line["sent"],
            line["received"],
            "-" if line["seconds"] is None else f"{1000 * line['seconds']:.1f} ms",
            line["reason"] or "-",
        )
        for line in lines
    ]
    return table(("TIME", "WHAT", "VERB", "STATUS", "SENT", "RECEIVED", "TOOK", "REASON"), rows)
