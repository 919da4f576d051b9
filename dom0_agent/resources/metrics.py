"""Exports usage as Prometheus text over HTTP; off by default, on the loopback address when it is on.

Knows the format and :mod:`.usage`'s rows; changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dom0_agent.hypervisor.interface import HypervisorError
from dom0_agent.resources.config import MetricsConfig

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT = 30.0  #: seconds that a client may be silent

#: metric → (kind, help, section of a row, key in it, more labels)
METRICS: tuple[tuple[str, str, str, str, str, Mapping[str, str]], ...] = (
    ("virmo_vm_ram_allocated_bytes", "gauge", "RAM of CurrentConfig", "configured", "ram", {}),
    ("virmo_vm_storage_allocated_bytes", "gauge", "Storage of CurrentConfig", "configured", "storage", {}),
    ("virmo_vm_cpu_share_percent", "gauge", "CPU of CurrentConfig", "configured", "cpu", {}),
    ("virmo_vm_network_share_percent", "gauge", "Network of CurrentConfig", "configured", "network", {}),
    ("virmo_vm_cpu_cap_percent", "gauge", "Cap in percent of one physical CPU, 0: none", "effective", "cap", {}),
    ("virmo_vm_cpu_weight", "gauge", "Weight of the scheduler", "effective", "weight", {}),
    ("virmo_vm_cpu_seconds_total", "counter", "CPU time since the VM's start", "used", "cpu_seconds", {}),
    ("virmo_vm_memory_bytes", "gauge", "Memory that the domain has", "used", "memory", {}),
    ("virmo_vm_disk_bytes", "gauge", "Storage that its files hold", "used", "disk", {}),
    ("virmo_vm_network_bytes_total", "counter", "Bytes that passed", "used", "bytes_up", {"direction": "up"}),
    ("virmo_vm_network_bytes_total", "counter", "Bytes that passed", "used", "bytes_down", {"direction": "down"}),
    ("virmo_vm_network_dropped_total", "counter", "Packets over the share", "used", "dropped_up", {"direction": "up"}),
    (
        "virmo_vm_network_dropped_total",
        "counter",
        "Packets over the share",
        "used",
        "dropped_down",
        {"direction": "down"},
    ),
)


def render(device: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """All metrics as text; what is not known of a VM is left out."""
    rows = list(rows)
    lines = [
        "# HELP virmo_device_ram_bytes RAM that VMs can have",
        "# TYPE virmo_device_ram_bytes gauge",
        f"virmo_device_ram_bytes {device['ram']}",
        "# HELP virmo_device_storage_bytes Storage that VMs can have",
        "# TYPE virmo_device_storage_bytes gauge",
        f"virmo_device_storage_bytes {device['storage']}",
    ]
    told: set[str] = set()
    for name, kind, about, section, key, labels in METRICS:
        if name not in told:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            told.add(name)
        for row in rows:
            value = row[section].get(key)
            if value is not None:
                shown = {"vmid": row["vmid"], **labels}
                inner = ",".join(f'{label}="{text}"' for label, text in shown.items())
                lines.append(f"{name}{{{inner}}} {value}")
    return "\n".join(lines) + "\n"


class MetricsServer:
    """``http://ADDRESS:PORT/metrics`` until closed."""

    def __init__(self, config: MetricsConfig, text: Callable[[], str]) -> None:
        """``text`` gives the metrics; :class:`HypervisorError` becomes 503. :class:`OSError` when the port is taken."""
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                try:
                    body = text().encode()
                except HypervisorError as error:
                    logger.warning("metrics_unknown error=%s", error)
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's word
                logger.debug("metrics_request %s", format % arguments)

        self._server = ThreadingHTTPServer((config.address, config.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.5,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
