"""What every command of ``virmo`` gets, and how commands that make orders end."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from virmo_server.cli.client import Client, segment
from virmo_server.cli.output import Output
from virmo_server.cli.settings import load_settings
from virmo_server.cli.waiting import wait_for_group, wait_for_order

EXIT_OK = 0
EXIT_ORDER_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_NOT_IN_TIME = 4


@dataclass
class Context:
    """Options and, when first used, the connection."""

    options: argparse.Namespace

    @cached_property
    def client(self) -> Client:
        """The server's API."""
        options = self.options
        given = {"server": options.server, "ca_file": options.ca, "config": options.config}
        return Client(load_settings(given, needs_token=getattr(options, "needs_token", True)))

    @cached_property
    def output(self) -> Output:
        """Where results go."""
        return Output(as_json=self.options.json)

    def close(self) -> None:
        """Close the connection if there is one."""
        if "client" in self.__dict__:
            self.client.close()

    def place_order(self, device: str, body: dict[str, Any]) -> int:
        """Order something of a device, or with ``@LABEL`` of many; with ``--wait`` see it through. The exit status."""
        body = {key: value for key, value in body.items() if value is not None}
        if self.options.deadline is not None:
            body["deadline_seconds"] = self.options.deadline
        if device.startswith("@"):
            return self._place_group(device[1:], body)
        order = self.client.post(f"/devices/{segment(device)}/orders", body)
        if not self.options.wait:
            if self.output.as_json:
                self.output.json(order)
            else:
                self.output.line(
                    f"order {order['id']} is queued: {order['kind']} on {order['device']}; "
                    f"'virmo order show {order['id']} --wait' shows how it goes"
                )
            return EXIT_OK
        return self.see_through(order)

    def _place_group(self, label: str, body: dict[str, Any]) -> int:
        group = self.client.post("/groups", {"label": label, "rate": self.options.rate, "order": body})
        refused = group["refused"]
        if self.options.wait:
            group = wait_for_group(self.client, self.output, group, self.options.timeout)
        return self.tell_group({**group, "refused": refused})

    def tell_group(self, group: dict[str, Any]) -> int:
        """How a group's orders stand; the exit status."""
        refused = group["refused"]
        if self.output.as_json:
            self.output.json(group)
        else:
            for line in refused:
                self.output.line(f"refused: {line}")
            self.output.line(group_summary(group))
        failed = set(group["states"]) & {"failed", "expired", "cancelled"}
        return EXIT_ORDER_FAILED if refused or failed else EXIT_OK

    def see_through(self, order: dict[str, Any]) -> int:
        """Wait for the order's end and tell it; the exit status."""
        order = wait_for_order(self.client, self.output, order, self.options.timeout)
        if self.output.as_json:
            self.output.json(order)
        else:
            self.output.line(order_summary(order))
        return EXIT_OK if order["state"] == "done" else EXIT_ORDER_FAILED


def group_summary(group: dict[str, Any]) -> str:
    """How a group's orders stand, in one line."""
    states = ", ".join(f"{count} {state}" for state, count in group["states"].items()) or "no orders"
    return f"group {group['id']} (label {group['label']}): {states}"


def order_summary(order: dict[str, Any]) -> str:
    """The end of an order in one line."""
    name = f" {order['name']}" if order["name"] else ""
    status = f" [{order['dm_status_text']}]" if order["dm_status_text"] else ""
    return f"{order['state']}: {order['kind']}{name} on {order['device']}: {order['message']}{status}"
