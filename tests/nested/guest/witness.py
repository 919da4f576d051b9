"""Runs in a guest: connects to dom0 once, says what it counts, and answers each "sum" with the SHA-256 of its memory.

A connection that breaks is the end of it: it starts anew, with other memory, and the watcher in dom0 sees that.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import sys
import time

memory = bytearray(os.urandom(64 << 20))
while True:
    try:
        line = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
        break
    except OSError:
        time.sleep(0.5)
line.settimeout(None)
count = 0
while True:
    count += 1
    line.sendall(f"tick {count}\n".encode())
    if select.select([line], [], [], 0.25)[0]:
        if not line.recv(64):
            raise SystemExit("the watcher hung up")
        line.sendall(f"sum {hashlib.sha256(memory).hexdigest()}\n".encode())
