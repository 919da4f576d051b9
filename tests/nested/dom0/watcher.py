"""Runs in dom0: listens for the witness in a guest and writes down what it says, a JSON object a line, with the time.

Asks for the checksum when a connection comes, and again after each silence: then it was suspended.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

SILENCE = 4.0  #: seconds without a tick after which the next one is a resumption

log = Path(sys.argv[2]).open("a", buffering=1)  # noqa: SIM115 - open as long as this runs


def note(**what: object) -> None:
    """One line of the log."""
    print(json.dumps({"time": time.time(), **what}), file=log)


listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))  # noqa: S104 - dom0's bridge
while True:
    connection, address = listener.accept()
    note(event="connected", address=address[0])
    connection.sendall(b"sum\n")
    last = time.monotonic()
    with connection, connection.makefile("r") as lines:
        try:
            for line in lines:
                word, value = line.split()
                now = time.monotonic()
                if word == "tick" and now - last > SILENCE:
                    note(event="resumed", tick=int(value))
                    connection.sendall(b"sum\n")
                if word == "sum":
                    note(event="sum", sha256=value)
                last = now
                if word == "tick" and int(value) % 4 == 0:
                    note(event="tick", tick=int(value))
        except OSError as error:
            note(event="broken", error=str(error))
    note(event="disconnected")
